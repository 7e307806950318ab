"""The one postprocessing: logits become detections (interface.md, Python and Metrics).

Cost follows the number of pixels above the threshold, not the size of the frame: most frames end at
one comparison with their peak.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from irstd.components import label_components
from irstd.errors import InputError, UsageError
from irstd.types import Detections

_PIXEL_VARIANCE = 1 / 12  # of a position known to one pixel, px^2


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of logits, same shape, float32 in [0, 1].

    Accurate to float32 also where they are tiny: rankings of pixels depend on that.
    """
    with np.errstate(over="ignore"):  # exp(89) is infinite in float32, and 1 / inf the right answer
        probabilities = np.exp(-logits)
    probabilities += np.float32(1)
    return np.reciprocal(probabilities, out=probabilities)


@functools.lru_cache(maxsize=16)
def logit_limit(threshold: float) -> np.float32:
    """Return the float32 that a logit must exceed for its probability to exceed `threshold`.

    It is rounded down, so that comparing float32 logits with it is exact.

    Raises:
        UsageError: The threshold is not strictly between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"threshold {threshold}: wanted a probability above 0 and below 1")
    exact = math.log(threshold) - math.log1p(-threshold)
    rounded = np.float32(exact)
    below: np.float32 = np.nextafter(rounded, np.float32(-np.inf))
    return rounded if rounded <= exact else below


def detect(logits: NDArray[np.float32], threshold: float) -> Detections:
    """Find the targets in one map of logits.

    A target is an 8-connected component of pixels with `sigmoid(logit) > threshold`, compared on
    the logit. Its pixels weigh in with their probability w: the centroid is their weighted mean,
    and the centroid's covariance is their weighted second moment divided by the effective number of
    pixels, (sum w)^2 / sum w^2, plus 1/12 px^2 on the diagonal.

    Args:
        logits: (H, W) float32.
        threshold: Probability in (0, 1) that a pixel must exceed.

    Returns:
        Detections by descending peak logit, hence score; equal ones in raster order of their first
        pixel. Empty if no pixel exceeds the threshold.

    Raises:
        InputError: `logits` is not (H, W) float32 with at least one pixel, or holds NaN.
        UsageError: The threshold is not strictly between 0 and 1.
    """
    if logits.ndim != 2 or logits.dtype != np.float32 or logits.size == 0:
        raise InputError(f"logits are {logits.shape} {logits.dtype}; wanted (H, W) float32")
    limit = logit_limit(threshold)
    peak = logits.max()
    if not peak > limit:
        if np.isnan(peak):
            raise InputError("logits hold NaN: the engine or its graph is broken")
        return Detections.empty()
    return _measure(logits, logits > limit)


def _measure(logits: NDArray[np.float32], mask: NDArray[np.bool_]) -> Detections:
    # Labelling a full frame costs more than everything else together. Without its empty rows and
    # columns, all but one of each gap, a frame with few targets is tiny and as connected as before.
    rows, columns = _occupied(mask, axis=1), _occupied(mask, axis=0)
    components = label_components(mask[rows[:, None], columns])
    n = len(components)

    row, column = np.nonzero(components.labels)
    rank = np.zeros(n + 1, np.intp)
    rank[components.order] = np.arange(n)
    of_pixel = rank[components.labels[row, column]]
    grouped = np.argsort(of_pixel, kind="stable")
    of_pixel = of_pixel[grouped]
    yx = np.stack([rows[row[grouped]], columns[column[grouped]]], axis=1)
    logit = logits[yx[:, 0], yx[:, 1]]
    starts = np.searchsorted(of_pixel, np.arange(n))

    peak = np.maximum.reduceat(logit, starts)
    # Only ratios of weights matter, so they are taken relative to the peak's: nothing underflows.
    log_probability = -np.logaddexp(0.0, -logit.astype(np.float64))
    weight = np.exp(log_probability - np.maximum.reduceat(log_probability, starts)[of_pixel])
    total = np.add.reduceat(weight, starts)
    centroid = np.add.reduceat(weight[:, None] * yx, starts) / total[:, None]
    away = yx - centroid[of_pixel]
    moment = np.add.reduceat(weight[:, None, None] * away[:, :, None] * away[:, None, :], starts)
    # M / sum w over (sum w)^2 / sum w^2.
    shrink = np.add.reduceat(weight**2, starts) / total**3
    covariance = moment * shrink[:, None, None] + _PIXEL_VARIANCE * np.eye(2)

    x0, y0, x1, y1 = components.box_xyxy.T
    edges = np.stack([columns[x0], rows[y0], columns[x1 - 1] + 1, rows[y1 - 1] + 1], axis=1)
    by_score = np.argsort(-peak, kind="stable")
    floats = np.float32
    return Detections(
        centroid_yx=centroid[by_score].astype(floats),
        box_xyxy=(edges[by_score] - 0.5).astype(floats),
        score=sigmoid(peak[by_score]),
        area_px=components.area_px[by_score].astype(np.int32),
        covariance_yx=covariance[by_score].astype(floats),
        peak_logit=peak[by_score],
    )


def _occupied(mask: NDArray[np.bool_], *, axis: int) -> NDArray[np.intp]:
    """Return the lines across `axis` that hold a pixel, and the first empty one after each run."""
    used = np.logical_or.reduce(mask, axis=axis)
    keep = used.copy()
    keep[1:] |= used[:-1]
    return np.flatnonzero(keep)
