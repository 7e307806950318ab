"""Ranges from hand-made histograms, where the right answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.calibration.observers import BINS, METHODS, Histogram, choose_range

CLUTTER_STD, PEAK, FRAMES = 1.0, 20.0, 8


def histogram_of(*arrays):
    everything = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float32)
    histogram = Histogram(float(everything.min()), float(everything.max()))
    for array in arrays:
        histogram.add(np.asarray(array, np.float32))
    return histogram


@pytest.fixture(scope="module")
def clutter_with_targets():
    """What a ReLU gives: clutter, and in each frame one target of nine bright pixels."""
    rng = np.random.default_rng(0)
    frames = np.maximum(rng.normal(0, CLUTTER_STD, (FRAMES, 256, 256)), 0)
    for frame in frames:
        y, x = rng.integers(8, 248, 2)
        frame[y - 1 : y + 2, x - 1 : x + 2] += PEAK * np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    return histogram_of(*frames)


def test_minmax_keeps_the_peak(clutter_with_targets):
    low, high = choose_range(clutter_with_targets, "minmax")
    assert (low, high) == (0.0, clutter_with_targets.high)
    assert high > PEAK
    assert clutter_with_targets.share_outside(low, high) == 0.0


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_entropy_and_percentile_erase_targets(method, clutter_with_targets):
    """Why they are not the default: a target's peak ends at the clutter's, its contrast is gone."""
    low, high = choose_range(clutter_with_targets, method)
    assert low == 0.0
    assert high < 0.5 * PEAK
    share = clutter_with_targets.share_outside(low, high)
    assert 0 < share < 0.005  # next to nothing by count, but every target is in it


def test_mse_clips_less_than_entropy(clutter_with_targets):
    """Squares weigh far outliers: a peak of 20 sigma in 65536 pixels is worth some levels."""
    mse = choose_range(clutter_with_targets, "mse")[1]
    assert choose_range(clutter_with_targets, "entropy")[1] < mse <= clutter_with_targets.high


@pytest.mark.parametrize("method", METHODS)
def test_uniform_values_are_all_kept(method):
    low, high = choose_range(histogram_of(np.linspace(0, 1, 1 << 16)), method)
    assert low == pytest.approx(0.0, abs=2 / BINS)
    assert high == pytest.approx(1.0, abs=0.01)


def test_mse_is_the_minimum_of_the_true_error():
    """Against the definition, by quantizing the values themselves."""
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 100_000), rng.uniform(20, 60, 3)])
    histogram = histogram_of(values)

    def error(low, high):
        step = (high - low) / 255
        levels = np.clip(np.rint((values - low) / step), 0, 255)
        return np.mean((low + levels * step - values) ** 2)

    chosen = error(*choose_range(histogram, "mse"))
    shrunk = [error(k * histogram.low, k * histogram.high) for k in np.linspace(0.07, 1, 60)]
    assert chosen <= 1.05 * min(shrunk)
    assert chosen < 0.9 * error(histogram.low, histogram.high)


def test_mse_does_not_count_exact_zeros_as_rounded():
    """Zero is exact whatever the step, so adding zeros must not move the choice."""
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.exponential(1, 20_000), [30.0]]).astype(np.float32)
    with_zeros = histogram_of(values, np.zeros(200_000))
    without = Histogram(with_zeros.low, with_zeros.high)
    without.add(values)
    assert choose_range(without, "mse") == choose_range(with_zeros, "mse")


def test_percentile_takes_its_share_from_the_sides_that_have_a_tail():
    values = np.linspace(0, 1, 100_001)
    bin_width = 1 / BINS
    positive = choose_range(histogram_of(values), "percentile")
    assert positive == (0.0, pytest.approx(0.9999, abs=bin_width))
    negative = choose_range(histogram_of(-values), "percentile")
    assert negative == (pytest.approx(-0.9999, abs=bin_width), 0.0)
    both = choose_range(histogram_of(2 * values - 1), "percentile")
    assert both == (pytest.approx(-0.9999, abs=3 * bin_width), pytest.approx(0.9999, abs=3e-3))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e30, -1e-30])
def test_constant_tensor(method, value):
    histogram = histogram_of(np.full(100, value))
    expected = float(np.float32(value))
    assert choose_range(histogram, method) == (expected, expected)
    assert histogram.counts.sum() == 100


def test_nearly_constant_tensor_does_not_overflow():
    values = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2))])
    assert choose_range(histogram_of(values), "entropy")[0] == pytest.approx(1.0)


def test_every_value_is_counted_at_both_ends():
    histogram = histogram_of([0.0, 1.0, 1.0, 0.5])
    assert histogram.counts[0] == 1
    assert histogram.counts[-1] == 2
    assert histogram.counts.sum() == 4
    assert histogram.zeros == 1


def test_values_beyond_the_extremes_count_at_the_ends():
    """Sums in another order may exceed the extremes of the first pass by a rounding."""
    histogram = Histogram(0.0, 1.0)
    histogram.add(np.float32([-1e-7, 1.0000002]))
    assert histogram.counts[0] == 1
    assert histogram.counts[-1] == 1


def test_share_outside_is_the_share_of_clipped_values():
    histogram = histogram_of(np.arange(BINS + 1) / BINS)
    assert histogram.share_outside(0.25, 0.75) == pytest.approx(0.5, abs=2 / BINS)


@settings(max_examples=25)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    method=st.sampled_from(list(METHODS)),
)
def test_any_values_give_an_ordered_range_within_the_extremes(values, method):
    histogram = histogram_of(np.float32(values))
    low, high = choose_range(histogram, method)
    assert min(values) <= low <= high <= max(values) or low == pytest.approx(high)
