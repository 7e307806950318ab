"""Observe a graph's activations on frames and choose a range for each."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.calibration.observers import METHODS, Histogram
from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.errors import CalibrationError, UsageError
from irstd.frames import Frame
from irstd.runtime.sessions import Session

Inputs = Callable[[], Iterable[NDArray[np.float32]]]


def calibrate(session: Session, names: Sequence[str], inputs: Inputs, method: str) -> ScaleTable:
    """Choose the range of each tensor.

    Args:
        session: Runs the FP32 graph with the named tensors as its outputs, in that order.
        names: Tensors to observe.
        inputs: Returns the calibration inputs, each of the session's input shape; called twice,
            because bins need the extremes first.
        method: Key of METHODS.

    Returns:
        The table, in the order of `names`.

    Raises:
        UsageError: Unknown method.
        CalibrationError: No inputs, or activations that are not finite.
    """
    if method not in METHODS:
        raise UsageError(f"unknown calibration {method!r}; one of {', '.join(METHODS)}")
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    frames = 0
    for frames, x in enumerate(inputs(), start=1):  # noqa: B007
        for index, values in enumerate(session.run(x)):
            low[index] = min(low[index], float(values.min()))
            high[index] = max(high[index], float(values.max()))
    if not frames:
        raise CalibrationError("no calibration frames: give a folder with at least one")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        worst = names[int(np.flatnonzero(~np.isfinite(low + high))[0])]
        raise CalibrationError(f"{worst}: not finite on the calibration frames")
    histograms = [
        Histogram(a, b if b > a else a + 1.0) for a, b in zip(low, high, strict=True)
    ]
    for x in inputs():
        for histogram, values in zip(histograms, session.run(x), strict=True):
            histogram.add(values)
    ranges = {
        name: _choose(histogram, method) for name, histogram in zip(names, histograms, strict=True)
    }
    return ScaleTable(method, frames, ranges)


def check_frames(frames: Sequence[Frame], masks: Sequence[NDArray[np.bool_]]) -> None:
    """Refuse frames that cannot give usable ranges.

    Args:
        frames: The calibration frames.
        masks: Their masks; empty when unlabelled.

    Raises:
        CalibrationError: No frames, all of them flat (such as all-black), or labelled frames
            without a single target.
    """
    if not frames:
        raise CalibrationError("no calibration frames: give a folder with at least one")
    if all(frame.min() == frame.max() for frame in frames):
        raise CalibrationError(
            f"all {len(frames)} calibration frames are flat (all black?): ranges from them would "
            "erase every target; give frames as the camera delivers them"
        )
    if masks and not any(mask.any() for mask in masks):
        raise CalibrationError(
            f"none of the {len(masks)} labelled calibration frames holds a target: ranges from "
            "background alone would clip targets; add frames with targets"
        )


def _choose(histogram: Histogram, method: str) -> TensorRange:
    low, high = METHODS[method](histogram)
    outside = (histogram.edges[1:] <= low) | (histogram.edges[:-1] >= high)
    clipped = histogram.counts[outside].sum() / max(1, histogram.counts.sum())
    return TensorRange(low, high, histogram.low, histogram.high, float(clipped))
