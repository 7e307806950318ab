import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from irstd import metrics
from irstd.errors import InputError
from irstd.metrics import HSE_THRESHOLDS, Scores, evaluate, match_components

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


# The definition of interface.md, written as plainly as possible.


def components(mask: Mask) -> list[NDArray[np.int64]]:
    """Pixels of each 8-connected component; scipy numbers them in raster order."""
    labels, count = ndimage.label(mask, np.ones((3, 3), int))
    return [np.argwhere(labels == number) for number in range(1, count + 1)]


def centroid(pixels: NDArray[np.int64]) -> tuple[float, float]:
    y, x = pixels.sum(axis=0) / len(pixels)
    return float(y), float(x)


def match(true: list[NDArray[np.int64]], predicted: list[NDArray[np.int64]]) -> set[int]:
    used: set[int] = set()
    centres = [centroid(one) for one in predicted]
    for ty, tx in map(centroid, true):
        for number, (py, px) in enumerate(centres):
            if number not in used and (ty - py) ** 2 + (tx - px) ** 2 < 9:
                used.add(number)
                break
    return used


def brute_force(maps: list[Map], masks: list[Mask], threshold: float) -> Scores:
    inter = union = pixels = matched = targets = false_px = 0
    ious = []
    for p, m in zip(maps, masks, strict=True):
        positive = p > np.float32(threshold)
        i, u = int((positive & m).sum()), int((positive | m).sum())
        inter, union, pixels = inter + i, union + u, pixels + m.size
        ious.append(i / u if u else 0.0)
        true, predicted = components(m), components(positive)
        used = match(true, predicted)
        matched, targets = matched + len(used), targets + len(true)
        false_px += sum(len(c) for n, c in enumerate(predicted) if n not in used)

    values = np.concatenate([p.ravel() for p in maps])
    labels = np.concatenate([m.ravel() for m in masks])
    hse_p, last = 0.0, 0.0
    for value in sorted(set(values.tolist()), reverse=True):
        if not labels.any():
            break
        chosen = values >= np.float32(value)
        recall = float((chosen & labels).sum() / labels.sum())
        hse_p += (recall - last) * float((chosen & labels).sum() / chosen.sum())
        last = recall

    hse_t = best = 0.0
    for step in sorted(HSE_THRESHOLDS, reverse=True):
        hits = found = 0
        for p, m in zip(maps, masks, strict=True):
            predicted = components(p > np.float32(step))
            hits, found = hits + len(match(components(m), predicted)), found + len(predicted)
        recall = max(hits / targets if targets else 0.0, best)
        hse_t += (recall - best) * (hits / found if found else 1.0)
        best = recall
    return Scores(
        iou=100 * inter / union if union else 0.0,
        niou=100 * sum(ious) / len(ious),
        pd=100 * matched / targets if targets else 0.0,
        fa=1e6 * false_px / pixels,
        hse_p=100 * hse_p,
        hse_t=100 * hse_t,
        hse=100 * hse_p * hse_t,
        frames=len(maps),
        targets=targets,
        threshold=threshold,
    )


def assert_equal(got: Scores, wanted: Scores) -> None:
    for name, value in dataclasses.asdict(wanted).items():
        assert getattr(got, name) == pytest.approx(value, rel=1e-9, abs=1e-9), name


def draw_set(seed: int, *, frames: int, tied: bool) -> tuple[list[Map], list[Mask]]:
    """Frames of several sizes with blurred targets, false blobs, near and touching ones."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(frames):
        height, width = rng.integers(5, 34, 2)
        mask = np.zeros((height, width), np.bool_)
        score = rng.random((height, width)) ** rng.integers(1, 9)
        for _ in range(rng.integers(0, 5)):
            y, x = rng.integers(0, height), rng.integers(0, width)
            size = rng.integers(1, 4)
            if rng.random() < 0.8:
                mask[y : y + size, x : x + size] = True
            dy, dx = rng.integers(-3, 4, 2)
            if rng.random() < 0.8:
                y, x = max(y + dy, 0), max(x + dx, 0)
                score[y : y + size, x : x + size] += rng.random()
        if tied:  # on the thresholds themselves, in float32
            score = np.round(score * 20) / 20
        maps.append(np.clip(score, 0, 1).astype(np.float32))
        masks.append(mask)
    return maps, masks


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.95]))
@settings(max_examples=20)
def test_agrees_with_brute_force(seed: int, tied: bool, threshold: float) -> None:
    maps, masks = draw_set(seed, frames=3, tied=tied)
    assert_equal(evaluate(maps, masks, threshold), brute_force(maps, masks, threshold))


def test_agrees_with_brute_force_when_work_is_cut_into_many_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps, masks = draw_set(7, frames=4, tied=False)
    whole = evaluate(maps, masks)
    monkeypatch.setattr(metrics, "CHUNK_PX", 100)
    assert evaluate(maps, masks) == whole
    assert_equal(whole, brute_force(maps, masks, 0.5))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_counts_of_components_at_every_threshold(seed: int) -> None:
    """Crowded: several targets compete for several predictions at each threshold."""
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, 101, (16, 20)) / 100).astype(np.float32)
    score[rng.random(score.shape) < 0.6] = 0
    true = components(rng.random(score.shape) < 0.06)
    got = metrics._component_counts(score, np.array([centroid(one) for one in true]))
    for index, step in enumerate(HSE_THRESHOLDS):
        predicted = components(score > np.float32(step))
        assert got[:, index].tolist() == [len(match(true, predicted)), len(predicted), len(true)]


def test_masks_may_be_bytes_or_words_and_above_half_is_target() -> None:
    maps, masks = draw_set(1, frames=3, tied=False)
    wanted = evaluate(maps, masks)
    for kind, high, low in ((np.uint8, 128, 127), (np.uint16, 32768, 32767)):
        graded = [np.where(mask, high, low).astype(kind) for mask in masks]
        assert evaluate(maps, graded) == wanted


def test_a_generator_that_reuses_one_buffer_scores_the_same() -> None:
    maps, masks = draw_set(2, frames=4, tied=False)
    shape = (40, 40)
    padded = [np.pad(p, [(0, 40 - p.shape[0]), (0, 40 - p.shape[1])]) for p in maps]
    labels = [np.pad(m, [(0, 40 - m.shape[0]), (0, 40 - m.shape[1])]) for m in masks]

    def reused() -> Iterator[Map]:
        buffer = np.zeros(shape, np.float32)
        for one in padded:
            buffer[:] = one
            yield buffer

    assert evaluate(reused(), iter(labels)) == evaluate(padded, labels)


# A table worked by hand: 10 x 10, probability 0.9 where predicted.


def frame(*pixels: tuple[int, int]) -> Mask:
    mask = np.zeros((10, 10), np.bool_)
    for y, x in pixels:
        mask[y, x] = True
    return mask


def scores(*pairs: tuple[Mask, Mask]) -> Scores:
    maps = [np.where(predicted, np.float32(0.9), np.float32(0)) for predicted, _ in pairs]
    return evaluate(maps, [true for _, true in pairs])


NOTHING = frame()
TARGET = frame((2, 2), (2, 3))


@pytest.mark.parametrize(
    ("predicted", "true", "iou", "niou", "pd", "fa"),
    [
        pytest.param(TARGET, TARGET, 100, 100, 100, 0, id="exact"),
        pytest.param(frame((2, 2)), TARGET, 50, 50, 100, 0, id="half of it"),
        pytest.param(frame((2, 4)), TARGET, 0, 0, 100, 0, id="beside it, 1.5 px"),
        pytest.param(frame((2, 5), (2, 6)), TARGET, 0, 0, 0, 20000, id="exactly 3 px is too far"),
        pytest.param(frame((2, 2), (8, 8)), TARGET, 100 / 3, 100 / 3, 100, 10000, id="one false"),
        pytest.param(NOTHING, TARGET, 0, 0, 0, 0, id="missed"),
        pytest.param(TARGET, NOTHING, 0, 0, 0, 20000, id="no target"),
        pytest.param(NOTHING, NOTHING, 0, 0, 0, 0, id="nothing at all"),
        pytest.param(frame((0, 0), (1, 1)), frame((0, 0), (1, 1)), 100, 100, 100, 0, id="diagonal"),
    ],
)
def test_hand_worked_frames(
    predicted: Mask, true: Mask, iou: float, niou: float, pd: float, fa: float
) -> None:
    got = scores((predicted, true))
    assert (got.iou, got.niou, got.pd, got.fa) == pytest.approx((iou, niou, pd, fa))


def test_iou_pools_pixels_and_niou_averages_frames() -> None:
    full = frame(*[(y, x) for y in range(4) for x in range(2)])  # 8 px
    got = scores((full, full), (NOTHING, frame((5, 5), (5, 6))), (NOTHING, NOTHING))
    assert got.iou == pytest.approx(80)  # 8 of 10
    assert got.niou == pytest.approx(100 / 3)  # an empty frame scores 0
    assert (got.frames, got.targets, got.pd) == (3, 2, 50)


def test_fa_counts_pixels_of_unmatched_components_over_all_pixels() -> None:
    got = scores((frame((0, 0), (0, 1), (5, 5), (6, 6), (9, 9)), frame((0, 0))), (NOTHING, NOTHING))
    assert got.fa == pytest.approx(3 * 1e6 / 200)  # (0, 1) belongs to the matched component


def test_the_first_component_is_taken_not_the_nearest() -> None:
    true = np.array([[5.0, 2.0], [4.0, 6.0]])
    predicted = np.array([[3.0, 4.0], [5.0, 2.1]])  # 2.8 and 0.1 px, 2.2 and 4.0 px away
    assert match_components(true, predicted).tolist() == [True, False]
    assert match_components(true[::-1], predicted).tolist() == [True, True]


def test_matching_of_nothing() -> None:
    none, one = np.zeros((0, 2)), np.zeros((1, 2))
    assert match_components(none, none).tolist() == []
    assert match_components(one, none).tolist() == []
    assert match_components(none, one).tolist() == [False]


def test_a_component_serves_one_target_only() -> None:
    assert scores((frame((5, 5)), frame((5, 4), (5, 6)))).pd == 50


def test_two_targets_that_touch_are_one() -> None:
    assert scores((NOTHING, frame((1, 1), (2, 2), (3, 1)))).targets == 1


def test_the_threshold_is_strict_and_compared_in_float32() -> None:
    for threshold in (0.1, 0.3, 0.5, 0.7):
        level = np.full((4, 4), np.float32(threshold))
        assert evaluate([level], [level > 2], threshold).fa == 0
        above = np.nextafter(level, np.float32(1))
        assert evaluate([above], [level > 2], threshold).fa == 1e6


def test_a_perfect_map_scores_hundred_and_a_missed_set_nothing() -> None:
    perfect = scores((TARGET, TARGET))
    assert (perfect.hse_p, perfect.hse_t, perfect.hse) == pytest.approx((100, 100, 100))
    missed = scores((frame((9, 9)), TARGET))
    assert missed.hse_t == missed.hse == 0
    assert missed.hse_p == pytest.approx(100 * 2 / 100)  # the base rate, reached at recall 1


def test_precision_is_one_where_nothing_is_predicted_and_recall_is_anchored_at_zero() -> None:
    # One target found up to 0.60, with a false component up to 0.80.
    score = np.zeros((10, 10), np.float32)
    score[2, 2:4], score[8, 8] = 0.6, 0.8
    # From above: recall 0 and precision 1, then 0 of 1 predicted, then 1 of 2.
    assert evaluate([score], [TARGET]).hse_t == pytest.approx(50)


def test_recall_is_made_monotone_when_blobs_merge_at_low_thresholds() -> None:
    # Apart above 0.3, merged below it into one blob whose centroid is 3 px from both targets.
    score = np.zeros((10, 10), np.float32)
    score[4, 1], score[4, 7], score[4, 2:7] = 0.9, 0.9, 0.3
    assert evaluate([score], [frame((4, 1), (4, 7))]).hse_t == pytest.approx(100)
    assert evaluate([score], [frame((4, 1), (4, 7))], 0.2).pd == 0


def test_pixels_of_equal_value_enter_the_curve_together() -> None:
    level = np.full((10, 10), np.float32(0.4))
    assert evaluate([level], [TARGET]).hse_p == pytest.approx(2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps(value: float) -> None:
    level = np.full((8, 9), value, np.float32)
    mask = np.zeros((8, 9), np.bool_)
    mask[4, 4] = True
    assert_equal(evaluate([level], [mask]), brute_force([level], [mask], 0.5))


def test_one_pixel_frames() -> None:
    one = np.ones((1, 1), np.float32)
    assert evaluate([one], [one > 0]).hse == 100


def test_double_precision_maps_are_taken_as_float32() -> None:
    maps, masks = draw_set(3, frames=2, tied=False)
    doubled = [p.astype(np.float64) for p in maps]
    assert evaluate(doubled, masks) == evaluate(maps, masks)  # type: ignore[arg-type]


GOOD = np.full((4, 5), 0.2, np.float32)
LABEL = np.zeros((4, 5), np.bool_)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([], [], "0 frames"),
        ([GOOD, GOOD], [LABEL], "only 1 masks"),
        ([GOOD], [LABEL, LABEL], "only 1 probability maps"),
        ([GOOD], [LABEL.T], "frame 0"),
        ([GOOD[None]], [LABEL[None]], "frame 0"),
        ([GOOD[:0]], [LABEL[:0]], "frame 0"),
        ([GOOD, GOOD + 1], [LABEL, LABEL], "frame 1.*within"),
        ([GOOD - 1], [LABEL], "within"),
        ([np.full_like(GOOD, np.nan)], [LABEL], "finite"),
        ([np.full_like(GOOD, np.inf)], [LABEL], "within"),
        ([GOOD.astype(np.uint8)], [LABEL], "uint8"),
        ([GOOD], [LABEL.astype(np.int32)], "int32"),
        ([GOOD], [LABEL.astype(np.float32)], "float32"),
    ],
)
def test_bad_input_is_named(maps: list[Map], masks: list[Mask], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(maps, masks)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 2.0, float("nan")])
def test_a_threshold_outside_the_range_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="threshold"):
        evaluate([GOOD], [LABEL], threshold)
