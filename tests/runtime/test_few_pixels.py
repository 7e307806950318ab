"""One pixel at a time and all at once: the same targets."""

import dataclasses

import numpy as np
import pytest

from irstd.runtime.few_pixels import measure_few
from irstd.runtime.postprocess import FEW_PIXELS, detect, measure_many


def assert_same(logits):
    positive = np.flatnonzero(logits > 0)
    few, many = measure_few(logits, positive), measure_many(logits, positive)
    for field in dataclasses.fields(few):
        one, all_at_once = getattr(few, field.name), getattr(many, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == all_at_once.dtype, field.name
            np.testing.assert_allclose(one, all_at_once, rtol=2e-6, atol=2e-6, err_msg=field.name)
    return few


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 12), (40, 33)])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_maps_of_every_density(size, density, rng):
    logits = rng.normal(size=size).astype(np.float32)
    logits = np.where(rng.random(size) < density, np.abs(logits) + 1e-3, -np.abs(logits) - 1e-3)
    logits = logits.astype(np.float32)
    logits[0, 0] = 1
    assert_same(logits)


@pytest.mark.parametrize(
    "shape",
    [
        ["#.#", "#.#", "###"],  # arms that meet below
        ["###", "#.#", "#.#"],
        ["#...#", ".#.#.", "..#.."],
        ["..#..", ".#.#.", "#...#", ".#.#.", "..#.."],
        ["#.#.#.#", ".......", "#.#.#.#"],
        ["#.......", "........", "#######.", "......#.", "#####.#.", "#...###."],
        ["#......#", "#......#"],  # ends of neighbouring rows do not touch
    ],
    ids="/".join,
)
def test_shapes_that_grow_together(shape):
    mask = np.array([[pixel == "#" for pixel in row] for row in shape])
    logits = np.where(mask, np.float32(2), np.float32(-2))
    found = assert_same(logits)
    assert found.area_px.sum() == mask.sum()


def test_equal_peaks_stay_in_raster_order():
    logits = np.full((9, 9), -1, np.float32)
    logits[7, 1] = logits[1, 7] = logits[4, 4] = 3
    found = assert_same(logits)
    assert found.centroid_yx.tolist() == [[1, 7], [4, 4], [7, 1]]


@pytest.mark.parametrize("logit", [-80.0, -250.0, 60.0, 3e38])
def test_weights_of_extreme_logits(logit):
    logits = np.full((8, 8), -np.inf, np.float32)
    logits[2:4, 3:6] = logit
    positive = np.flatnonzero(np.isfinite(logits))
    few, many = measure_few(logits, positive), measure_many(logits, positive)
    np.testing.assert_allclose(few.centroid_yx, [[2.5, 4]])
    np.testing.assert_array_equal(few.score, many.score)
    np.testing.assert_allclose(few.covariance_yx, many.covariance_yx, rtol=1e-6)


def test_the_way_changes_with_the_number_of_pixels_and_the_result_does_not():
    """The same target beside a growing one: its row of the result stays what it was."""
    logits = np.full((64, 64), -1, np.float32)
    logits[60:62, 60:63] = 9
    results = []
    for side in (2, 11, 12):  # 10, 127 and 150 pixels
        logits[1 : 1 + side, 1 : 1 + side] = 5
        results.append(detect(logits, 0.5))
    assert 6 + 11 * 11 <= FEW_PIXELS < 6 + 12 * 12
    for found in results:
        assert found.centroid_yx[0].tolist() == [60.5, 61]
        np.testing.assert_allclose(found.covariance_yx[0], results[0].covariance_yx[0], rtol=1e-6)
