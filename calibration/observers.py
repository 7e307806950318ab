"""Histograms of activations, and the ways to choose a range from one.

Targets are a few bright pixels among tens of thousands: a method that clips rare values clips
exactly them (targets.md B1). minmax keeps every value seen and is the default.
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
        low: Lowest value that will come.
        high: Highest value that will come, above `low`.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of one array."""
        scale = BINS / (self.high - self.low)
        bins = ((values.ravel() - np.float32(self.low)) * np.float32(scale)).astype(np.int32)
        np.clip(bins, 0, BINS - 1, out=bins)
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


def range_minmax(histogram: Histogram) -> Range:
    """Keep every value seen."""
    return histogram.low, histogram.high


def range_percentile(histogram: Histogram) -> Range:
    """Clip the rarest 0.01 % of values, half of them on each side that has a tail.

    A side that ends in a spike, as a ReLU's zero does, is not clipped by this.
    """
    cumulative = np.cumsum(histogram.counts) / max(1, histogram.counts.sum())
    tail = (1 - PERCENTILE / 100) / 2 if histogram.low < 0 < histogram.high else 0.0
    upper = 1 - (tail or 1 - PERCENTILE / 100)
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, upper, side="left"))
    edges = histogram.edges
    return float(edges[min(first, last)]), float(edges[min(last, BINS - 1) + 1])


def range_entropy(histogram: Histogram) -> Range:
    """Choose the clip with the least Kullback-Leibler divergence after quantization.

    The distribution clipped to the candidate range is compared with itself quantized to the
    available levels (Migacz, "8-bit inference with TensorRT", GTC 2017).
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


def _best_range(
    histogram: Histogram, cost: Callable[[Histogram, int, int], float]
) -> Range:
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
    low, high = edges[first], edges[last]
    step = (high - low) / (LEVELS - 1)
    quantized = low + np.rint((np.clip(centres, low, high) - low) / step) * step
    error = (centres - quantized) ** 2
    inside = slice(first, last)
    # Within a bin values spread evenly: where bins are wider than a level, rounding alone costs
    # step^2 / 12, which the bin's centre does not show.
    error[inside] = np.maximum(error[inside], step * step / 12)
    return float(np.sum(histogram.counts * error))


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
