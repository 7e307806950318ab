"""Observe a graph's activations on frames and choose a range for each."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.calibration.observers import METHODS, Histogram, choose_range
from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.errors import CalibrationError, UsageError
from irstd.frames import Frame
from irstd.runtime.sessions import Session

Inputs = Callable[[], Iterable[NDArray[np.float32]]]
_KEEPS_ALL = "minmax"


def calibrate(session: Session, names: Sequence[str], inputs: Inputs, method: str) -> ScaleTable:
    """Choose the range of each tensor.

    Args:
        session: Runs the FP32 graph with the named tensors as its outputs, in that order.
        names: Tensors to observe.
        inputs: Returns the calibration inputs, each of the session's input shape; called once more
            for methods that need a histogram, because its bins need the extremes first.
        method: Key of METHODS.

    Returns:
        The table, in the order of `names`.

    Raises:
        UsageError: Unknown method.
        CalibrationError: No inputs, or activations that are not finite.
    """
    if method not in METHODS:
        raise UsageError(f"unknown calibration {method!r}; one of {', '.join(METHODS)}")
    extremes, frames = observe_extremes(session, names, inputs())
    if method == _KEEPS_ALL:
        ranges = {name: TensorRange(*ends, *ends, 0.0) for name, ends in extremes.items()}
        return ScaleTable(method, frames, ranges)
    histograms = [Histogram(*extremes[name]) for name in names]
    for x in inputs():
        for histogram, values in zip(histograms, session.run(x), strict=True):
            histogram.add(values)
    chosen = zip(names, histograms, strict=True)
    return ScaleTable(method, frames, {name: _choose(found, method) for name, found in chosen})


def observe_extremes(
    session: Session, names: Sequence[str], inputs: Iterable[NDArray[np.float32]]
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return the (lowest, highest) value of each tensor, and how many inputs there were.

    Args:
        session: As for `calibrate`.
        names: Tensors to observe.
        inputs: Of the session's input shape.

    Raises:
        CalibrationError: No inputs, or a value that is not finite.
    """
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    frames = 0
    for x in inputs:
        frames += 1
        for index, values in enumerate(session.run(x)):
            least, most = float(values.min()), float(values.max())
            if not (math.isfinite(least) and math.isfinite(most)):  # NaN comes through both
                raise CalibrationError(
                    f"{names[index]}: not finite on calibration input {frames}; "
                    "check the weights and --normalize"
                )
            low[index], high[index] = min(low[index], least), max(high[index], most)
    if not frames:
        raise CalibrationError("no calibration frames: give a folder with at least one")
    ends = zip(names, low, high, strict=True)
    return {name: (float(least), float(most)) for name, least, most in ends}, frames


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
    low, high = choose_range(histogram, method)
    clipped = histogram.share_outside(low, high)
    return TensorRange(low, high, histogram.low, histogram.high, clipped)
