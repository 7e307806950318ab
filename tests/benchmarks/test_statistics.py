import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.benchmarks.statistics import (
    jitter,
    longest_run,
    percentile,
    percentile_interval,
    ratio_interval,
    stale_ms,
    summarize,
)
from irstd.errors import InputError

times = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60).map(np.array)


def test_a_series_whose_percentiles_are_known():
    summary = summarize(np.random.default_rng(0).permutation(np.arange(1.0, 1001)))
    assert (summary.p50, summary.p90, summary.p95, summary.p99) == (500, 900, 950, 990)
    assert summary.p99_9 in (999, 1000)  # 99.9 % of 1000 is not a whole number in binary
    assert (summary.min, summary.max, summary.mean) == (1, 1000, 500.5)
    assert summary.std == pytest.approx(math.sqrt((1000**2 - 1) / 12))


@settings(max_examples=50, deadline=None)
@given(times, st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_smallest_sample_with_that_share_at_or_below(values, percent):
    got = percentile(values, percent)
    reached = [v for v in values if np.count_nonzero(values <= v) >= percent / 100 * len(values)]
    assert got == min(reached)


def test_one_outlier_is_never_left_out():
    values = np.full(1000, 2.0)
    values[17] = 500
    summary = summarize(values)
    assert summary.max == 500
    assert summary.mean == pytest.approx(2.498)
    assert summary.p99 == 2


def test_no_samples_is_an_error_and_not_a_nan():
    with pytest.raises(InputError, match="0 times"):
        summarize(np.zeros(0))


def _slow_interval(values, percent, seed, resamples):
    """Draw blocks and sort: what percentile_interval does without ever sorting twice."""
    n = len(values)
    length = math.ceil(n ** (1 / 3))
    blocks = [values[start : start + length] for start in range(0, n, length)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        counts = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)))
        drawn_blocks = [np.tile(b, c) for b, c in zip(blocks, counts, strict=True)]
        sample = np.sort(np.concatenate(drawn_blocks))
        drawn.append(sample[math.ceil(percent / 100 * len(sample)) - 1])
    return np.percentile(drawn, (2.5, 97.5), method="inverted_cdf")


@settings(max_examples=25, deadline=None)
@given(times, st.sampled_from([50.0, 90.0, 99.0]), st.integers(0, 3))
def test_the_interval_equals_the_slow_bootstrap(values, percent, seed):
    got = percentile_interval(values, percent, seed=seed, resamples=40)
    assert (got.low, got.high) == tuple(_slow_interval(values, percent, seed, 40))


def test_the_interval_holds_the_true_percentile_nearly_always_and_shrinks():
    truth = 10 + 1.2816
    widths = {}
    for n in (300, 3000):
        samples = [np.random.default_rng(seed).normal(10, 1, n) for seed in range(100, 160)]
        intervals = [percentile_interval(sample, 90, resamples=150) for sample in samples]
        assert sum(i.low <= truth <= i.high for i in intervals) >= 50  # of 60; 57 are expected
        widths[n] = np.mean([i.high - i.low for i in intervals])
    assert widths[3000] == pytest.approx(widths[300] / math.sqrt(10), rel=0.2)


def test_slow_frames_in_a_row_widen_the_interval():
    rng = np.random.default_rng(2)
    apart = rng.normal(10, 0.1, 8000)
    apart[rng.choice(8000, 80, replace=False)] += 5
    together = np.sort(apart)[np.r_[0:4000, 7920:8000, 4000:7920]]
    narrow, wide = percentile_interval(apart, 99), percentile_interval(together, 99)
    assert wide.high - wide.low > narrow.high - narrow.low


def test_the_ratio_of_pairs_that_vary_together_is_sharp():
    machine = np.random.default_rng(3).uniform(0.5, 2, 30)
    interval = ratio_interval(3.0 * machine, 1.5 * machine)
    assert interval.low == pytest.approx(2)
    assert interval.high == pytest.approx(2)


def test_jitter_of_a_perfect_series_is_zero_with_and_without_drops():
    index = np.arange(50)
    ready = 7 + index / 30 + 0.004
    assert jitter(index, ready, 1 / 30).p99 == pytest.approx(0, abs=1e-9)
    kept = index % 3 != 1
    assert jitter(index[kept], ready[kept], 1 / 30).std == pytest.approx(0, abs=1e-9)


def test_jitter_sees_one_output_that_came_late():
    ready = np.arange(5) / 100
    ready[2] += 0.004
    got = jitter(np.arange(5), ready, 1 / 100)
    assert got.p99 == pytest.approx(4)  # the gaps are off by 0, +4, -4, 0 ms
    assert got.std == pytest.approx(math.sqrt(32 / 4))
    assert jitter(np.arange(1), ready[:1], 1 / 100).p99 == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_the_longest_run(flags):
    runs = "".join("x" if flag else " " for flag in flags).split()
    assert longest_run(np.array(flags, bool)) == max(map(len, runs), default=0)


def test_the_greatest_age_of_the_newest_output():
    captured = np.array([0.0, 0.1, 0.4])
    ready = np.array([0.05, 0.12, 0.46])
    assert stale_ms(captured, ready) == pytest.approx(360)  # frame 1 is shown until 0.46
    assert stale_ms(captured[:1], ready[:1]) == 0
