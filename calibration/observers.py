"""Histograms of activations, and the ways to choose a range from one.

Targets are a few bright pixels among tens of thousands: a method that clips rare values clips
exactly them. minmax keeps every value seen and is the default; how the others fail on clutter with
a rare peak is written down in tests/calibration/test_observers.py.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BINS = 2048
LEVELS = 256
PERCENTILE = 99.99
CANDIDATES = 128
_TINY = 1e-12

Range = tuple[float, float]


class Histogram:
    """Counts of one tensor's values in equal bins between its extremes.

    Args:
        low: Lowest value that will come, finite.
        high: Highest value that will come, finite, not below `low`.

    Attributes:
        low: As given.
        high: As given.
        counts: (BINS,) values in each bin.
        zeros: How many of them are exactly 0, which every quantization keeps exact.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high
        self.counts = np.zeros(BINS, np.int64)
        self.zeros = 0

    @property
    def is_constant(self) -> bool:
        """Whether all values are one, up to what float32 tells apart."""
        return self.high - self.low <= 1e-6 * max(abs(self.low), abs(self.high))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of one array; those outside the extremes count at the ends."""
        self.zeros += values.size - int(np.count_nonzero(values))
        if self.is_constant:
            self.counts[0] += values.size
            return
        scaled = np.subtract(values.ravel(), self.low, dtype=np.float64)
        scaled *= BINS / (self.high - self.low)
        bins = np.clip(scaled, 0, BINS - 1).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def edges(self) -> NDArray[np.float64]:
        """(BINS + 1,) bin edges."""
        return np.linspace(self.low, self.high, BINS + 1)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,) bin centres."""
        edges = self.edges
        return (edges[1:] + edges[:-1]) / 2

    def share_outside(self, low: float, high: float) -> float:
        """Return the share of values in bins that lie outside [low, high]."""
        if self.is_constant:
            return 0.0
        outside = (self.edges[1:] <= low) | (self.edges[:-1] >= high)
        return float(self.counts[outside].sum() / max(1, int(self.counts.sum())))


def choose_range(histogram: Histogram, method: str) -> Range:
    """Choose a range with one of METHODS; a constant tensor's is that constant.

    Returns:
        (low, high), within the extremes.
    """
    if histogram.is_constant:
        return histogram.low, histogram.high
    return METHODS[method](histogram)


def range_minmax(histogram: Histogram) -> Range:
    """Keep every value seen."""
    return histogram.low, histogram.high


def range_percentile(histogram: Histogram) -> Range:
    """Clip the rarest 0.01 % of values, shared by the sides that have a tail.

    The side of zero that a tensor does not reach has none: a ReLU's zeros are never clipped.
    """
    share = 1 - PERCENTILE / 100
    sides = int(histogram.low < 0) + int(histogram.high > 0)
    lower = share / sides if histogram.low < 0 else 0.0
    upper = share / sides if histogram.high > 0 else 0.0
    cumulative = np.cumsum(histogram.counts) / max(1, int(histogram.counts.sum()))
    first = int(np.searchsorted(cumulative, lower, side="right"))
    last = int(np.searchsorted(cumulative, 1 - upper, side="left"))
    edges = histogram.edges
    return float(edges[min(first, last)]), float(edges[min(last, BINS - 1) + 1])


def range_entropy(histogram: Histogram) -> Range:
    """Choose the clip with the least Kullback-Leibler divergence after quantization.

    The distribution clipped to the candidate range is compared with itself quantized to the
    available levels (Migacz, "8-bit inference with TensorRT", GTC 2017). Values as rare as targets
    hardly count in it: it clips them.
    """
    return _best_range(histogram, _divergence)


def range_mse(histogram: Histogram) -> Range:
    """Choose the clip with the least expected squared error, of rounding and clipping together."""
    return _best_range(histogram, _squared_error)


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": range_minmax,
    "entropy": range_entropy,
    "percentile": range_percentile,
    "mse": range_mse,
}


def _best_range(histogram: Histogram, cost: Callable[[Histogram, int, int], float]) -> Range:
    """Try shrinking ranges that keep zero inside, and return the cheapest; ties keep more."""
    zero = int(np.clip(np.searchsorted(histogram.edges, 0.0), 0, BINS))
    best, best_cost = (0, BINS), np.inf
    for step in range(CANDIDATES):
        keep = 1 - step / CANDIDATES
        first = zero - int(np.ceil(keep * zero))
        last = zero + int(np.ceil(keep * (BINS - zero)))
        if last - first < LEVELS // 2:
            break
        found = cost(histogram, first, last)
        if found < best_cost:
            best, best_cost = (first, last), found
    edges = histogram.edges
    return float(edges[best[0]]), float(edges[best[1]])


def _squared_error(histogram: Histogram, first: int, last: int) -> float:
    centres, edges = histogram.centres, histogram.edges
    # Zero is always kept on a level, so the grid reaches from it or to it.
    low, high = min(edges[first], 0.0), max(edges[last], 0.0)
    step = (high - low) / (LEVELS - 1)
    quantized = low + np.rint((np.clip(centres, low, high) - low) / step) * step
    error = (centres - quantized) ** 2
    inside = slice(first, last)
    # Within a bin values spread evenly: where bins are narrower than a level, rounding costs
    # step^2 / 12 on average, which the bin's centre does not show. Exact zeros cost nothing.
    error[inside] = np.maximum(error[inside], step * step / 12)
    spread = histogram.counts.astype(np.float64)
    spread[_bin_of_zero(histogram)] -= histogram.zeros
    return float(np.sum(np.maximum(spread, 0.0) * error))


def _bin_of_zero(histogram: Histogram) -> int:
    width = (histogram.high - histogram.low) / BINS
    return int(np.clip(-histogram.low / width, 0, BINS - 1))


def _divergence(histogram: Histogram, first: int, last: int) -> float:
    kept = histogram.counts[first:last].astype(np.float64)
    reference = kept.copy()
    reference[0] += histogram.counts[:first].sum()
    reference[-1] += histogram.counts[last:].sum()
    group = np.arange(len(kept)) * LEVELS // len(kept)
    occupied = kept > 0
    sums = np.bincount(group, kept, minlength=LEVELS)
    filled = np.bincount(group, occupied, minlength=LEVELS)
    quantized = np.where(occupied, (sums / np.maximum(filled, 1))[group], 0.0)
    p, q = reference / max(reference.sum(), 1), quantized / max(quantized.sum(), 1)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], _TINY))))
