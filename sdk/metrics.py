"""The field's accuracy metrics, in one definition (interface.md "Metrics"; models.md 2.6, 2.7).

Public repositories differ in matching, in the denominator of Fa and in averaging, so their tables
are not comparable; every figure of this project comes from here.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.components import label_components
from irstd.errors import InputError

MATCH_DISTANCE_PX = 3.0
CHUNK_PX = 1 << 22
HSE_THRESHOLDS: tuple[float, ...] = tuple(step / 100 for step in range(1, 100))


@dataclasses.dataclass(frozen=True)
class Scores:
    """Accuracy over a set of frames. All in percent but `fa`, false pixels per million pixels.

    Attributes:
        iou: Intersection over union of all target pixels of the set.
        niou: Mean over frames of the frame's IoU; a frame without target or prediction scores 0.
        pd: Detected share of the true components.
        fa: Pixels of unmatched predicted components per million pixels.
        hse_p: Average precision over all pixels.
        hse_t: Average precision of components over the thresholds 0.01 to 0.99.
        hse: hse_p * hse_t / 100.
        frames: Number of frames.
        targets: Number of true components.
        threshold: Probability above which (strictly) a pixel is positive, for iou, niou, pd, fa.
    """

    iou: float
    niou: float
    pd: float
    fa: float
    hse_p: float
    hse_t: float
    hse: float
    frames: int
    targets: int
    threshold: float


@dataclasses.dataclass(frozen=True)
class _Blobs:
    """Components of one frame at several thresholds.

    Attributes:
        level: (N,) index of the threshold.
        centroid_yx: (N, 2) mean pixel coordinates.
        first_px: (N,) flat index of the first pixel in raster order.
    """

    level: NDArray[np.int64]
    centroid_yx: NDArray[np.float64]
    first_px: NDArray[np.int64]


def evaluate(
    probabilities: Iterable[NDArray[np.float32]],
    masks: Iterable[NDArray[np.uint8] | NDArray[np.bool_]],
    threshold: float = 0.5,
) -> Scores:
    """Score probability maps against target masks.

    Args:
        probabilities: (H, W) float32 maps in [0, 1], one a frame. They may be produced one by one;
            a copy of each is held until the end.
        masks: (H, W) maps of the same sizes; bool, or an unsigned integer type in which values
            above half of the type's maximum are target.
        threshold: In [0, 1), compared in float32.

    Returns:
        The scores of the whole set.

    Raises:
        InputError: No frames, different numbers of maps and masks, sizes that differ, NaN or a
            value outside [0, 1].
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold {threshold} is outside [0, 1)")
    pixels = 0
    intersection = union = matched = targets = false_px = 0
    frame_ious: list[float] = []
    values: list[NDArray[np.float32]] = []
    target_values: list[NDArray[np.float32]] = []
    curve = np.zeros((3, len(HSE_THRESHOLDS)), np.int64)  # matched, predicted, true
    for index, pair in enumerate(_pairs(probabilities, masks)):
        probability, target = _checked(*pair, index)
        positive = probability > np.float32(threshold)
        overlap = int(np.count_nonzero(positive & target))
        joined = int(np.count_nonzero(positive | target))
        frame_ious.append(overlap / joined if joined else 0.0)
        intersection, union, pixels = intersection + overlap, union + joined, pixels + target.size

        truth, predicted = label_components(target), label_components(positive)
        taken = match_components(truth.centroid_yx, predicted.centroid_yx)
        matched += int(np.count_nonzero(taken))
        targets += len(truth)
        false_px += int(predicted.area_px[~taken].sum())

        curve += _component_counts(probability, truth.centroid_yx)
        values.append(probability.ravel())
        target_values.append(probability[target])
    if not frame_ious:
        raise InputError("nothing to evaluate: got 0 frames, need at least one map with its mask")

    hse_p = 100 * _pixel_average_precision(values, np.concatenate(target_values))
    hse_t = 100 * _curve_average_precision(*curve)
    return Scores(
        iou=100 * intersection / max(union, 1),
        niou=100 * float(np.mean(frame_ious)),
        pd=100 * matched / max(targets, 1),
        fa=1e6 * false_px / max(pixels, 1),
        hse_p=hse_p,
        hse_t=hse_t,
        hse=hse_p * hse_t / 100,
        frames=len(frame_ious),
        targets=targets,
        threshold=threshold,
    )


def match_components(
    true_yx: NDArray[np.float64], predicted_yx: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Match components greedily in raster order.

    Each true component, in order, takes the first unused predicted one whose centroid is less than
    3 px away: the first, not the nearest (models.md 2.6).

    Args:
        true_yx: (T, 2) centroids in raster order of the components.
        predicted_yx: (P, 2) likewise.

    Returns:
        (P,) bool, which predicted components were taken.
    """
    taken = np.zeros(len(predicted_yx), np.bool_)
    for centre in true_yx:
        for candidate in np.flatnonzero(_is_near(predicted_yx, centre)):
            if not taken[candidate]:
                taken[candidate] = True
                break
    return taken


def _is_near(points_yx: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.bool_]:
    dy, dx = (points_yx - centre).T
    near: NDArray[np.bool_] = dy * dy + dx * dx < MATCH_DISTANCE_PX**2
    return near


def _pairs(
    probabilities: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[Any]]
) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    for count, (probability, mask) in enumerate(itertools.zip_longest(probabilities, masks)):
        if probability is None or mask is None:
            fewer = "probability maps" if probability is None else "masks"
            raise InputError(f"got only {count} {fewer}; wanted one mask for each probability map")
        yield probability, mask


def _checked(
    probability: NDArray[np.float32], mask: NDArray[Any], index: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Check one pair; return a copy of the map, and the mask as booleans."""
    if probability.ndim != 2 or probability.shape != mask.shape or not probability.size:
        raise InputError(
            f"frame {index}: map {probability.shape} and mask {mask.shape} must be one (H, W)"
        )
    if not np.issubdtype(probability.dtype, np.floating):
        raise InputError(f"frame {index}: probabilities are {probability.dtype}, wanted float32")
    if not (probability.min() >= 0 and probability.max() <= 1):  # also false for NaN
        raise InputError(f"frame {index}: probabilities must be finite and within [0, 1]")
    copied = probability.astype(np.float32)
    if mask.dtype == np.bool_:
        return copied, mask
    if not np.issubdtype(mask.dtype, np.unsignedinteger):
        raise InputError(f"frame {index}: a mask is bool or unsigned integer, not {mask.dtype}")
    return copied, mask > np.iinfo(mask.dtype).max // 2


def _pixel_average_precision(
    values: Sequence[NDArray[np.float32]], target_values: NDArray[np.float32]
) -> float:
    """Area under the pixel precision-recall curve, average-precision step rule, exact.

    Precision matters only where recall grows, so it is computed at the targets' values alone.

    Args:
        values: Flat maps, all pixels of the set.
        target_values: (T,) the values of its target pixels.
    """
    if not len(target_values):
        return 0.0
    steps, gained = np.unique(target_values, return_counts=True)
    predicted = np.zeros(len(steps), np.int64)
    for chunk in _chunks(values, steps[0]):
        chunk.sort()
        predicted += len(chunk) - np.searchsorted(chunk, steps)
    true_positives = np.cumsum(gained[::-1])[::-1]
    return float(np.sum(gained / len(target_values) * (true_positives / predicted)))


def _chunks(
    values: Sequence[NDArray[np.float32]], lowest: np.float32
) -> Iterator[NDArray[np.float32]]:
    """Yield all values that are at least `lowest`, in arrays of about CHUNK_PX."""
    waiting: list[NDArray[np.float32]] = []
    for part in values:
        waiting.append(part[part >= lowest])
        if sum(map(len, waiting)) >= CHUNK_PX:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _component_counts(
    probability: NDArray[np.float32], true_yx: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count matched, predicted and true components of one frame at each HSE threshold."""
    counts = np.zeros((3, len(HSE_THRESHOLDS)), np.int64)
    counts[2] = len(true_yx)
    candidates: list[tuple[int, int, int]] = []
    for blobs in _blobs_by_threshold(probability):
        counts[1] += np.bincount(blobs.level, minlength=len(HSE_THRESHOLDS))
        for truth, centre in enumerate(true_yx):
            for near in np.flatnonzero(_is_near(blobs.centroid_yx, centre)):
                level, first = int(blobs.level[near]), int(blobs.first_px[near])
                candidates.append((level, truth, first))
    # As match_components does it, at all thresholds: in raster order, the first unused one.
    served: set[tuple[int, int]] = set()
    taken: set[tuple[int, int]] = set()
    for level, truth, first in sorted(candidates):
        if (level, truth) not in served and (level, first) not in taken:
            served.add((level, truth))
            taken.add((level, first))
            counts[0, level] += 1
    return counts


def _blobs_by_threshold(probability: NDArray[np.float32]) -> Iterator[_Blobs]:
    """Label one frame at all HSE thresholds.

    Components at a higher threshold lie inside those of the lowest one. So the frame is labelled
    once, and the boxes around its components, gathered by size, are labelled at all thresholds that
    they reach, stacked with an empty row between them.
    """
    thresholds = np.asarray(HSE_THRESHOLDS, np.float32)
    base = label_components(probability > thresholds[0])
    if not len(base):
        return
    # Of each pixel, the number of thresholds that it is above.
    reached: NDArray[np.uint8] = np.zeros(probability.shape, np.uint8)
    inside = base.labels > 0
    reached[inside] = np.searchsorted(thresholds, probability[inside], side="left")
    x0, y0, x1, y1 = base.box_xyxy.T
    size = np.ceil(np.log2(np.maximum(y1 - y0, x1 - x0))).astype(np.int64)
    for group in (np.flatnonzero(size == s) for s in np.unique(size)):
        height, width = int((y1 - y0)[group].max()), int((x1 - x0)[group].max())
        left, top, right, bottom, label = (
            part[group].reshape(-1, 1, 1) for part in (x0, y0, x1, y1, base.order)
        )
        rows, columns = top + np.arange(height)[:, None], left + np.arange(width)
        at = np.minimum(rows, len(reached) - 1), np.minimum(columns, reached.shape[1] - 1)
        own = (rows < bottom) & (columns < right) & (base.labels[at] == label)
        yield from _label_boxes(
            np.where(own, reached[at], np.uint8(0)), y0[group], x0[group], reached.shape[1]
        )


def _label_boxes(
    boxes: NDArray[np.uint8], y0: NDArray[np.int32], x0: NDArray[np.int32], frame_width: int
) -> Iterator[_Blobs]:
    """Label boxes of one size at every threshold that each of them reaches.

    Args:
        boxes: (N, H, W) number of thresholds that the pixel is above.
        y0: (N,) place of each box in the frame.
        x0: Likewise.
        frame_width: px.
    """
    _, height, width = boxes.shape
    used = boxes.max(axis=(1, 2)).astype(np.int64)
    owner = np.repeat(np.arange(len(boxes)), used)
    level = np.arange(len(owner)) - np.repeat(np.cumsum(used) - used, used)
    at_once = max(CHUNK_PX // ((height + 1) * width), 1)
    for start in range(0, len(owner), at_once):
        who, step = owner[start : start + at_once], level[start : start + at_once]
        stack = np.zeros((len(who), height + 1, width), np.bool_)
        np.greater(boxes[who], step[:, None, None], out=stack[:, :height])
        found = label_components(stack.reshape(-1, width))
        tile, row = np.divmod(found.first_px // width, height + 1)
        origin = np.stack([y0[who[tile]], x0[who[tile]]], axis=1)
        # Integer sums, so that the quotient is rounded once, as in a frame labelled by itself.
        area = found.area_px[:, None]
        shift = origin - np.stack([tile * (height + 1), np.zeros_like(tile)], axis=1)
        sums = np.rint(found.centroid_yx * area) + shift * area
        first = (row + origin[:, 0]) * frame_width + found.first_px % width + origin[:, 1]
        yield _Blobs(step[tile], sums / area, first)


def _curve_average_precision(
    matched: NDArray[np.int64], predicted: NDArray[np.int64], true: NDArray[np.int64]
) -> float:
    """Integrate precision over recall from high to low threshold, anchored at recall 0."""
    precision = np.where(predicted > 0, matched / np.maximum(predicted, 1), 1.0)[::-1]
    recall = np.maximum.accumulate((matched / np.maximum(true, 1))[::-1])
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
