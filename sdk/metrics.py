"""The field's accuracy metrics, in one definition (interface.md "Metrics"; models.md 2.6, 2.7).

Public repositories differ in matching, in the denominator of Fa and in averaging, so their tables
are not comparable; every figure of this project comes from here.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.components import Components, label_components
from irstd.errors import InputError

MATCH_DISTANCE_PX = 3.0
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


def evaluate(
    probabilities: Iterable[NDArray[np.float32]],
    masks: Iterable[NDArray[np.uint8] | NDArray[np.bool_]],
    threshold: float = 0.5,
) -> Scores:
    """Score probability maps against target masks.

    Args:
        probabilities: (H, W) float32 maps in [0, 1], one a frame.
        masks: (H, W) maps of the same sizes; bool, or an unsigned integer type in which values
            above half of the type's maximum are target.
        threshold: In [0, 1).

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
    keys: list[NDArray[np.uint32]] = []
    curve = np.zeros((3, len(HSE_THRESHOLDS)), np.int64)  # matched, predicted, true
    for index, (probability, mask) in enumerate(_pairs(probabilities, masks)):
        positive, target = probability > threshold, _is_target(mask, probability, index)
        overlap = int(np.count_nonzero(positive & target))
        joined = int(np.count_nonzero(positive | target))
        frame_ious.append(overlap / joined if joined else 0.0)
        intersection, union, pixels = intersection + overlap, union + joined, pixels + target.size

        truth, predicted = label_components(target), label_components(positive)
        taken = match_components(truth.centroid_yx, predicted.centroid_yx)
        matched += int(np.count_nonzero(taken))
        targets += len(truth)
        false_px += int(predicted.area_px[~taken].sum())

        curve += _component_counts(probability, truth)
        keys.append(_pixel_keys(probability, target))
    if not frame_ious:
        raise InputError("nothing to evaluate: got 0 frames, need at least one map with its mask")

    hse_p, hse_t = 100 * _pixel_average_precision(keys), 100 * _curve_average_precision(*curve)
    return Scores(
        iou=100 * intersection / max(union, 1),
        niou=100 * float(np.mean(frame_ious)),
        pd=100 * matched / max(targets, 1),
        fa=1e6 * false_px / pixels,
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
    if not len(predicted_yx):
        return taken
    for centre in true_yx:
        offset = predicted_yx - centre
        near = (offset * offset).sum(axis=1) < MATCH_DISTANCE_PX**2
        candidates = np.flatnonzero(near & ~taken)
        if len(candidates):
            taken[candidates[0]] = True
    return taken


def _pairs(
    probabilities: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[np.generic]]
) -> Iterable[tuple[NDArray[np.float32], NDArray[np.generic]]]:
    try:
        yield from zip(probabilities, masks, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise InputError(f"as many masks as probability maps are needed: {error}") from None


def _is_target(
    mask: NDArray[np.generic], probability: NDArray[np.float32], index: int
) -> NDArray[np.bool_]:
    """Check one pair and return its mask as booleans."""
    if probability.ndim != 2 or probability.shape != mask.shape:
        raise InputError(
            f"frame {index}: map {probability.shape} and mask {mask.shape} must be one (H, W)"
        )
    if not (probability.min(initial=0) >= 0 and probability.max(initial=0) <= 1):  # also NaN
        raise InputError(f"frame {index}: probabilities must be finite and within [0, 1]")
    if mask.dtype == np.bool_:
        return mask.astype(np.bool_, copy=False)
    if not np.issubdtype(mask.dtype, np.unsignedinteger):
        raise InputError(f"frame {index}: a mask is bool or unsigned integer, not {mask.dtype}")
    half: NDArray[np.bool_] = mask > np.iinfo(mask.dtype).max // 2
    return half


def _pixel_keys(
    probability: NDArray[np.float32], target: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Return one sortable integer a pixel: the bits of the probability, then the label.

    The bits of non-negative float32 values below 2 order as the values do and leave the top bit
    free, so a sort of these keys sorts exactly by probability.
    """
    bits = (probability.astype(np.float32).ravel() + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return (bits << np.uint32(1)) | target.ravel()


def _pixel_average_precision(keys: Sequence[NDArray[np.uint32]]) -> float:
    """Area under the pixel precision-recall curve, average-precision step rule, exact."""
    label = np.uint32(1)
    positives = sum(int(np.count_nonzero(part & label)) for part in keys)
    if not positives:
        return 0.0
    lowest = min(int(hits.min()) for part in keys if len(hits := part[(part & label) == 1]))
    # A negative below the lowest positive changes precision only where recall is already 1.
    ranked = np.sort(np.concatenate([part[part >= lowest - 1] for part in keys]))[::-1]
    value = ranked >> label
    last_of_tie = np.append(value[1:] != value[:-1], True)
    true_positives = np.cumsum(ranked & label, dtype=np.int64)[last_of_tie]
    predicted = np.flatnonzero(last_of_tie) + 1
    gained = np.diff(true_positives, prepend=0)
    return float(np.sum(gained / positives * (true_positives / predicted)))


def _component_counts(probability: NDArray[np.float32], truth: Components) -> NDArray[np.int64]:
    """Count matched, predicted and true components of one frame at each HSE threshold."""
    owners, centroids = _components_by_threshold(probability)
    counts = np.zeros((3, len(HSE_THRESHOLDS)), np.int64)
    counts[1] = np.bincount(owners, minlength=len(HSE_THRESHOLDS))
    counts[2] = len(truth)
    if len(truth):
        bounds = np.searchsorted(owners, np.arange(len(HSE_THRESHOLDS) + 1))
        for step in np.flatnonzero(counts[1]):
            here = centroids[bounds[step] : bounds[step + 1]]
            counts[0, step] = np.count_nonzero(match_components(truth.centroid_yx, here))
    return counts


def _components_by_threshold(
    probability: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Label one frame at all HSE thresholds.

    Components at a higher threshold lie inside those of the lowest one. So the frame is labelled
    once, and then each small box around a component is labelled at all thresholds in one call, the
    binary boxes stacked with an empty row between them.

    Returns:
        (N,) the threshold's index, ascending, and (N, 2) the centroid of each component, in raster
        order within a threshold.
    """
    levels = np.asarray(HSE_THRESHOLDS, np.float64)[:, None, None]
    base = label_components(probability > HSE_THRESHOLDS[0])
    owners: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    centroids: list[NDArray[np.float64]] = [np.zeros((0, 2))]
    firsts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for label, (x0, y0, x1, y1) in zip(base.order, base.box_xyxy, strict=True):
        box = np.where(base.labels[y0:y1, x0:x1] == label, probability[y0:y1, x0:x1], 0)
        height, width = box.shape
        used = int(np.searchsorted(levels.ravel(), float(box.max()), side="left"))
        stack = np.zeros((used, height + 1, width), np.uint8)
        stack[:, :height] = box[None] > levels[:used]
        parts = label_components(stack.reshape(-1, width))
        step, row = np.divmod(parts.first_px // width, height + 1)
        owners.append(step)
        firsts.append((row + y0) * probability.shape[1] + parts.first_px % width + x0)
        origin = np.stack([y0 - step * (height + 1), np.full_like(step, x0)], axis=1)
        centroids.append(parts.centroid_yx + origin)
    owner = np.concatenate(owners)
    order = np.lexsort((np.concatenate(firsts), owner))
    return owner[order], np.concatenate(centroids)[order]


def _curve_average_precision(
    matched: NDArray[np.int64], predicted: NDArray[np.int64], true: NDArray[np.int64]
) -> float:
    """Integrate precision over recall from high to low threshold, anchored at recall 0."""
    precision = np.where(predicted > 0, matched / np.maximum(predicted, 1), 1.0)[::-1]
    recall = np.maximum.accumulate((matched / np.maximum(true, 1))[::-1])
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
