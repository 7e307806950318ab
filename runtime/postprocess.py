"""The one postprocessing: logits become detections (interface.md, Python and Metrics).

Cost follows the number of pixels above the threshold, not the size of the frame: most frames end at
one comparison with their peak.
"""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.components import label_components
from irstd.errors import InputError, UsageError
from irstd.runtime.few_pixels import LOWEST_LOGIT, PIXEL_VARIANCE, measure_few
from irstd.types import Detections

FEW_PIXELS = 128  # up to here, one by one is faster


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
    return rounded if float(rounded) <= exact else below


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
    positive = np.flatnonzero(logits > limit)
    if len(positive) <= FEW_PIXELS:
        return measure_few(logits, positive)
    return measure_many(logits, positive)


def measure_many(logits: NDArray[np.float32], positive: NDArray[np.intp]) -> Detections:
    """Do what `measure_few` does, all pixels at once."""
    height, width = logits.shape
    y, x = np.divmod(positive, width)
    # Labelling a full frame costs more than everything else together. Without its empty rows and
    # columns, all but one of each gap, a frame with few targets is tiny and as connected as before.
    row, rows = _squeeze(y, height)
    column, columns = _squeeze(x, width)
    squeezed = np.zeros((len(rows), len(columns)), np.uint8)
    squeezed[row, column] = 1
    components = label_components(squeezed)
    n = len(components)
    of_pixel = components.labels[row, column] - 1

    logit = logits[y, x]
    peak = np.full(n, -np.inf, np.float32)
    np.maximum.at(peak, of_pixel, logit)
    weight = 1 / (1 + np.exp(-np.maximum(logit, LOWEST_LOGIT, dtype=np.float64)))

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: Any = np.bincount(of_pixel, values, n)  # annotated for counts only
        return np.asarray(summed, np.float64)

    weight_y, weight_x = weight * y, weight * x
    mass = total(weight)
    centre_y, centre_x = total(weight_y) / mass, total(weight_x) / mass
    shrink = total(weight * weight) / mass / mass  # one over the effective number of pixels
    covariance = np.empty((n, 2, 2), np.float32)
    covariance[:, 0, 0] = _variance(total(weight_y * y) / mass - centre_y * centre_y, shrink)
    covariance[:, 1, 1] = _variance(total(weight_x * x) / mass - centre_x * centre_x, shrink)
    crossed = (total(weight_y * x) / mass - centre_y * centre_x) * shrink
    covariance[:, 0, 1] = covariance[:, 1, 0] = crossed

    in_raster = components.order - 1
    by_score = np.argsort(-peak[in_raster], kind="stable")
    ranked = in_raster[by_score]
    x0, y0, x1, y1 = components.box_xyxy[by_score].T
    box = np.empty((n, 4), np.float32)
    box[:, 0], box[:, 1] = columns[x0] - 0.5, rows[y0] - 0.5
    box[:, 2], box[:, 3] = columns[x1 - 1] + 0.5, rows[y1 - 1] + 0.5
    centroid = np.empty((n, 2), np.float32)
    centroid[:, 0], centroid[:, 1] = centre_y[ranked], centre_x[ranked]
    return Detections(
        centroid_yx=centroid,
        box_xyxy=box,
        score=sigmoid(peak[ranked]),
        area_px=components.area_px[by_score],
        covariance_yx=covariance[ranked],
        peak_logit=peak[ranked],
    )


def _variance(moment: NDArray[np.float64], shrink: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of a single row or column the moment is zero, which the difference of squares may miss.
    return np.maximum(moment, 0) * shrink + PIXEL_VARIANCE


def _squeeze(position: NDArray[np.intp], length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Leave out the lines that hold no pixel, all but the first after each run of those that do.

    Returns:
        The new position of each pixel, and the old position of each new line.
    """
    keep = np.zeros(length + 1, np.bool_)
    keep[position] = True
    keep[position + 1] = True
    return np.cumsum(keep)[position] - 1, np.flatnonzero(keep)
