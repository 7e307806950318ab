import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from irstd.errors import InputError, UsageError
from irstd.runtime.postprocess import detect, logit_limit, sigmoid


def reference(logits, threshold):
    """The definition, pixel by pixel: one dict a component, in raster order."""
    logits = logits.astype(np.float64)
    positive = logits > math.log(threshold / (1 - threshold))
    seen = np.zeros_like(positive)
    components = []
    for start in zip(*np.nonzero(positive), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        pixels, front = [], [start]
        while front:
            y, x = front.pop()
            pixels.append((y, x))
            for ny in range(max(y - 1, 0), min(y + 2, logits.shape[0])):
                for nx in range(max(x - 1, 0), min(x + 2, logits.shape[1])):
                    if positive[ny, nx] and not seen[ny, nx]:
                        seen[ny, nx] = True
                        front.append((ny, nx))
        yx = np.array(pixels, np.float64)
        weight = np.array([1 / (1 + math.exp(-logits[p])) for p in pixels])
        centroid = (weight[:, None] * yx).sum(0) / weight.sum()
        away = yx - centroid
        moment = (weight[:, None, None] * away[:, :, None] * away[:, None, :]).sum(0) / weight.sum()
        effective = weight.sum() ** 2 / (weight**2).sum()
        low, high = yx.min(0), yx.max(0)
        components.append(
            {
                "centroid": centroid,
                "box": [low[1] - 0.5, low[0] - 0.5, high[1] + 0.5, high[0] + 0.5],
                "peak": max(logits[p] for p in pixels),
                "area": len(pixels),
                "covariance": moment / effective + np.eye(2) / 12,
            }
        )
    return sorted(components, key=lambda c: -c["peak"])


def assert_equals_reference(logits, threshold):
    found = detect(logits, threshold)
    wanted = reference(logits, threshold)
    assert len(found) == len(wanted)
    for index, component in enumerate(wanted):
        peak = component["peak"]
        assert found.peak_logit[index] == np.float32(peak)
        assert found.score[index] == pytest.approx(1 / (1 + math.exp(-peak)), rel=1e-5)
        assert found.area_px[index] == component["area"]
        np.testing.assert_array_equal(found.box_xyxy[index], component["box"])
        np.testing.assert_allclose(found.centroid_yx[index], component["centroid"], atol=1e-4)
        np.testing.assert_allclose(found.covariance_yx[index], component["covariance"], rtol=1e-4,
                                   atol=1e-5)  # fmt: skip


shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)


@settings(max_examples=80, deadline=None)
@given(
    mask=hnp.arrays(np.bool_, shapes, elements=st.booleans() | st.just(False)),
    threshold=st.sampled_from([0.01, 0.3, 0.5, 0.9]),
    seed=st.integers(0, 999),
)
def test_detect_equals_its_definition(mask, threshold, seed):
    rng = np.random.default_rng(seed)
    # Few distinct values make ties, which the order must survive.
    inside = rng.integers(5, 9, mask.shape)
    logits = np.where(mask, inside, -6).astype(np.float32)
    assert_equals_reference(logits, threshold)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.4, 1.0])
def test_detect_equals_its_definition_on_larger_maps(density):
    rng = np.random.default_rng(7)
    logits = rng.normal(2, 1, (90, 120)).astype(np.float32)
    logits[rng.random(logits.shape) > density] = -8
    assert_equals_reference(logits, 0.5)


def test_nothing_above_the_threshold_is_an_empty_result_of_the_right_shapes():
    found = detect(np.full((5, 7), -3, np.float32), 0.5)
    assert len(found) == 0
    assert found.centroid_yx.shape == (0, 2)
    assert found.box_xyxy.shape == (0, 4)
    assert found.covariance_yx.shape == (0, 2, 2)
    assert (found.score.dtype, found.area_px.dtype) == (np.float32, np.int32)


def test_types_are_those_of_detections():
    found = detect(np.full((5, 7), 3, np.float32), 0.5)
    floats = (found.centroid_yx, found.box_xyxy, found.score, found.covariance_yx, found.peak_logit)
    assert {array.dtype for array in floats} == {np.dtype(np.float32)}
    assert found.area_px.dtype == np.int32


def test_two_pixels_by_hand():
    logits = np.full((6, 9), -9, np.float32)
    logits[2, 3] = 0.0 + math.log(3)  # probability 0.75
    logits[2, 4] = 1e-3  # probability 0.50025
    found = detect(logits, 0.5)
    p, q = 0.75, 0.50025
    spread = p * q / (p + q) ** 2
    effective = (p + q) ** 2 / (p * p + q * q)
    np.testing.assert_allclose(found.centroid_yx, [[2, 3 + q / (p + q)]], rtol=1e-6)
    np.testing.assert_array_equal(found.box_xyxy, [[2.5, 1.5, 4.5, 2.5]])
    np.testing.assert_allclose(
        found.covariance_yx, [[[1 / 12, 0], [0, spread / effective + 1 / 12]]], rtol=1e-4
    )
    np.testing.assert_allclose(found.score, [0.75], rtol=1e-6)


def test_a_diagonal_target_is_one_component_with_correlated_axes():
    logits = np.full((9, 9), -9, np.float32)
    for step in range(3):
        logits[2 + step, 3 + step] = 5
    found = detect(logits, 0.5)
    assert len(found) == 1
    assert found.covariance_yx[0, 0, 1] > 0
    assert detect(logits[:, ::-1].copy(), 0.5).covariance_yx[0, 0, 1] < 0


def test_components_a_row_or_column_apart_stay_apart():
    for gap in (2, 3, 40):
        logits = np.full((60, 60), -9, np.float32)
        logits[5, 5] = logits[5 + gap, 5] = logits[5, 5 + gap] = 3
        assert len(detect(logits, 0.5)) == 3, gap


def test_strongest_first_and_ties_in_raster_order():
    logits = np.full((20, 20), -9, np.float32)
    logits[15, 2], logits[3, 17], logits[3, 4], logits[9, 9] = 2, 2, 2, 5
    np.testing.assert_array_equal(
        detect(logits, 0.5).centroid_yx, [[9, 9], [3, 4], [3, 17], [15, 2]]
    )


def test_exactly_the_threshold_is_not_above_it():
    logits = np.zeros((3, 3), np.float32)
    assert len(detect(logits, 0.5)) == 0
    logits[1, 1] = np.nextafter(np.float32(0), np.float32(1))
    assert detect(logits, 0.5).area_px.tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(
    threshold=st.floats(1e-300, 1, exclude_max=True),
    steps=st.integers(-2, 2),
)
def test_the_limit_separates_float32_logits_like_the_exact_one(threshold, steps):
    exact = math.log(threshold) - math.log1p(-threshold)
    logit = np.float32(exact)
    for _ in range(abs(steps)):
        logit = np.nextafter(logit, np.float32(math.copysign(np.inf, steps)))
    assert bool(logit > logit_limit(threshold)) == (float(logit) > exact)


def test_weights_of_hopeless_pixels_do_not_underflow():
    logits = np.full((4, 4), -600, np.float32)
    logits[1, 1:3] = -300
    found = detect(logits, 1e-200)
    np.testing.assert_allclose(found.centroid_yx, [[1, 1.5]])
    np.testing.assert_allclose(found.covariance_yx[0, 1, 1], 0.25 / 2 + 1 / 12, rtol=1e-6)


def test_saturated_logits_are_ordered_and_finite():
    logits = np.full((4, 9), -np.inf, np.float32)
    logits[1, 1], logits[1, 4], logits[1, 7] = 90, np.inf, 80
    found = detect(logits, 0.5)
    assert found.peak_logit.tolist() == [np.inf, 90, 80]
    assert found.score.tolist() == [1, 1, 1]
    assert np.isfinite(found.covariance_yx).all()


def test_the_logits_are_not_changed_and_may_be_a_view():
    logits = np.random.default_rng(0).normal(0, 3, (40, 40)).astype(np.float32)
    before = logits.copy()
    view = logits[3:31, 5:29]
    found = detect(view, 0.5)
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(found.centroid_yx, detect(view.copy(), 0.5).centroid_yx)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        detect(np.zeros((2, 2), np.float32), threshold)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((1, 4, 4), np.float32),
        np.zeros((4, 4), np.float64),
        np.zeros((0, 4), np.float32),
    ],
)
def test_wrong_logits_are_refused(logits):
    with pytest.raises(InputError, match=r"wanted \(H, W\) float32"):
        detect(logits, 0.5)


@pytest.mark.parametrize("others", [-5, 5])
def test_nan_in_the_logits_is_an_error_not_a_silence(others):
    logits = np.full((4, 4), others, np.float32)
    logits[2, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        detect(logits, 0.5)


def test_sigmoid_is_accurate_where_probabilities_are_tiny_or_saturate():
    logits = np.array([-200, -80, -30, -1, 0, 1, 30, 200, -np.inf, np.inf], np.float32)
    wanted = [math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x)) for x in logits]
    np.testing.assert_allclose(sigmoid(logits), wanted, rtol=3e-7, atol=1e-38)
    assert sigmoid(logits).dtype == np.float32
