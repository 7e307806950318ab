"""What a series of per-frame times amounts to. Pure functions on arrays, no clock in here."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError

RESAMPLES = 400


@dataclasses.dataclass(frozen=True)
class LatencySummary:
    """A series of per-frame times, all in ms. No sample is ever left out.

    Percentiles are by nearest rank: the smallest time that really occurred such that at least that
    share of all frames took no longer. `std` is that of the sample itself (divisor N).
    """

    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float


@dataclasses.dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the quantity it belongs to."""

    low: float
    high: float
    level: float = 0.95


@dataclasses.dataclass(frozen=True)
class Jitter:
    """How far the gaps between outputs are from what the frame rate says, in ms.

    Between two outputs in a row, of frames i < j, the gap should be (j - i) periods: dropped frames
    in between are counted as drops and not once more as jitter. `std` is the standard deviation of
    the differences, `p99` the 99th percentile of their sizes.
    """

    std: float
    p99: float


def percentile(values: NDArray[np.float64], percent: float) -> float:
    """Return the nearest-rank percentile of a non-empty array: a value that really occurred."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def summarize(times_ms: NDArray[np.float64]) -> LatencySummary:
    """Summarize (N,) per-frame times in ms.

    Raises:
        InputError: No frames.
    """
    if not len(times_ms):
        raise InputError("no frame was finished: got 0 times; measure longer or at a lower rate")
    ranks = (50.0, 90.0, 95.0, 99.0, 99.9)
    p50, p90, p95, p99, p99_9 = (
        float(value) for value in np.percentile(times_ms, ranks, method="inverted_cdf")
    )
    return LatencySummary(
        mean=float(times_ms.mean()),
        std=float(times_ms.std()),
        min=float(times_ms.min()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p99_9=p99_9,
        max=float(times_ms.max()),
    )


def percentile_interval(
    times_ms: NDArray[np.float64], percent: float, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the 95 % bootstrap interval of a percentile.

    Neighbouring frames are slow together, so whole blocks of N^(1/3) frames in a row are drawn, not
    single frames, which would make the interval too narrow.

    Args:
        times_ms: (N,) in the order in which they were measured, N above 0.
        percent: Which percentile, in (0, 100].
        seed: Same seed, same interval.
        resamples: Number of bootstrap samples.
    """
    n = len(times_ms)
    block_length = math.ceil(n ** (1 / 3))
    blocks = math.ceil(n / block_length)
    order = np.argsort(times_ms, kind="stable")
    block_of = order // block_length
    sorted_ms = times_ms[order]
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for index in range(resamples):
        times_drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks))
        at_or_below = np.cumsum(times_drawn[block_of])
        rank = math.ceil(percent / 100 * at_or_below[-1])
        drawn[index] = sorted_ms[np.searchsorted(at_or_below, rank)]
    low, high = np.percentile(drawn, (2.5, 97.5), method="inverted_cdf")
    return Interval(float(low), float(high))


def ratio_interval(
    slower_ms: NDArray[np.float64],
    faster_ms: NDArray[np.float64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the 95 % bootstrap interval of mean(slower_ms) / mean(faster_ms).

    Args:
        slower_ms: (N,) one figure per pair of interleaved blocks.
        faster_ms: (N,) the other variant's figure of the same pairs; pairs are drawn together.
        seed: Same seed, same interval.
        resamples: Number of bootstrap samples.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(slower_ms), (resamples, len(slower_ms)))
    ratios = slower_ms[picks].mean(axis=1) / faster_ms[picks].mean(axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Interval(float(low), float(high))


def jitter(
    frame_index: NDArray[np.int64], ready_at_s: NDArray[np.float64], period_s: float
) -> Jitter:
    """Measure the jitter of a paced run.

    Args:
        frame_index: (N,) ascending numbers of the frames that gave an output, in time or late.
        ready_at_s: (N,) when each output was ready.
        period_s: 1 / frame rate.

    Returns:
        Both figures 0 with fewer than two outputs.
    """
    if len(ready_at_s) < 2:
        return Jitter(0.0, 0.0)
    off_ms = 1e3 * (np.diff(ready_at_s) - np.diff(frame_index) * period_s)
    return Jitter(std=float(off_ms.std()), p99=percentile(np.abs(off_ms), 99))


def longest_run(flags: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of True in a row."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(lengths.max(initial=0))


def stale_ms(captured_at_s: NDArray[np.float64], ready_at_s: NDArray[np.float64]) -> float:
    """Return the greatest age, in ms, that the newest output ever reached.

    Just before output j appears, the newest known scene is that of output j - 1, captured
    `ready[j] - captured[j - 1]` ago.

    Args:
        captured_at_s: (N,) of the frames that gave an output, in order.
        ready_at_s: (N,) likewise.

    Returns:
        0 with fewer than two outputs.
    """
    return float(1e3 * (ready_at_s[1:] - captured_at_s[:-1]).max(initial=0.0))
