"""Targets of a frame with few pixels above the threshold, which is the usual frame.

Between two inferences the caches hold the network, not numpy: a hundred calls on tiny arrays then
take longer than these loops over some twenty pixels. `irstd.runtime.postprocess` describes what is
computed, and computes it for frames with many pixels.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.types import Detections

PIXEL_VARIANCE = 1 / 12  # of a position known to one pixel, px^2
LOWEST_LOGIT = -300.0  # below it, weights would underflow: threshold 1e-130

_Pixel = tuple[int, int, float]  # y, x, logit


@dataclasses.dataclass(frozen=True)
class _Target:
    centroid_yx: tuple[float, float]
    box_xyxy: tuple[float, float, float, float]
    covariance_yx: tuple[tuple[float, float], tuple[float, float]]
    area_px: int
    peak_logit: float


def measure_few(logits: NDArray[np.float32], positive: NDArray[np.intp]) -> Detections:
    """Group positive pixels into 8-connected targets and measure each, one pixel at a time.

    Args:
        logits: (H, W) float32.
        positive: Flat indices of the positive pixels, at least one, ascending.
    """
    groups = _group(positive.tolist(), logits.ravel()[positive].tolist(), logits.shape[1])
    # Sorting is stable: equal peaks stay in raster order of their first pixel.
    targets = sorted(map(_measure, groups), key=lambda target: -target.peak_logit)
    peaks = [target.peak_logit for target in targets]
    scores = [1 / (1 + math.exp(-max(peak, LOWEST_LOGIT))) for peak in peaks]
    return Detections(
        centroid_yx=np.array([target.centroid_yx for target in targets], np.float32),
        box_xyxy=np.array([target.box_xyxy for target in targets], np.float32),
        score=np.array(scores, np.float32),
        area_px=np.array([target.area_px for target in targets], np.int32),
        covariance_yx=np.array([target.covariance_yx for target in targets], np.float32),
        peak_logit=np.array(peaks, np.float32),
    )


def _group(positive: Sequence[int], logits: Sequence[float], width: int) -> list[list[_Pixel]]:
    """Return the 8-connected groups of pixels, in raster order of their first pixel."""
    stride = width + 1  # a column that holds no pixel keeps the ends of rows apart
    group_of: dict[int, list[_Pixel]] = {}
    for index, logit in zip(positive, logits, strict=True):
        y, x = divmod(index, width)
        place = y * stride + x
        group: list[_Pixel] = []
        for neighbour in (place - stride - 1, place - stride, place - stride + 1, place - 1):
            other = group_of.get(neighbour)
            if other is None or other is group:
                continue
            if other < group:  # by first pixel, the earlier one; an empty group is before all
                group, other = other, group
            if group:
                for pixel in other:
                    group_of[pixel[0] * stride + pixel[1]] = group
                group += other
            else:
                group = other
        group.append((y, x, logit))
        group_of[place] = group
    return list({id(group): group for group in group_of.values()}.values())


def _measure(pixels: Sequence[_Pixel]) -> _Target:
    mass = squares = moment_y = moment_x = moment_yy = moment_xx = moment_yx = 0.0
    for y, x, logit in pixels:
        weight = 1 / (1 + math.exp(-max(logit, LOWEST_LOGIT)))
        mass += weight
        squares += weight * weight
        moment_y += weight * y
        moment_x += weight * x
        moment_yy += weight * y * y
        moment_xx += weight * x * x
        moment_yx += weight * y * x
    centre_y, centre_x = moment_y / mass, moment_x / mass
    shrink = squares / mass / mass  # one over the effective number of pixels
    variance_y = max(moment_yy / mass - centre_y * centre_y, 0) * shrink + PIXEL_VARIANCE
    variance_x = max(moment_xx / mass - centre_x * centre_x, 0) * shrink + PIXEL_VARIANCE
    crossed = (moment_yx / mass - centre_y * centre_x) * shrink
    rows, columns, logits = zip(*pixels, strict=True)
    return _Target(
        centroid_yx=(centre_y, centre_x),
        box_xyxy=(min(columns) - 0.5, min(rows) - 0.5, max(columns) + 0.5, max(rows) + 0.5),
        covariance_yx=((variance_y, crossed), (crossed, variance_x)),
        area_px=len(pixels),
        peak_logit=max(logits),
    )
