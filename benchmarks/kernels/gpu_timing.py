"""Times on a GPU: events, candidates in turns, once with a cold cache and once with a warm one.

A kernel of ten microseconds ends before Python has launched the next. So the device is first given
something long to do (`Gpu.occupy`, which also pushes everything out of its cache), and what is
timed is queued behind it.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Run = Callable[[], None]  # puts one call into the device's stream and returns

ROUNDS = 21
WARM_UP_ROUNDS = 3
WARM_CALLS = 8  # between two events, all but the first finding what the one before left


class Gpu(Protocol):
    """What a timing needs of a device."""

    def occupy(self) -> None:
        """Put milliseconds of writes larger than the cache into the stream."""

    def time_ms(self, run: Run, calls: int) -> float:
        """Return the device's time from before the first to after the last of `calls` runs.

        Waits for it. What is in the stream already comes first and is not counted.
        """
        ...


@dataclass(frozen=True)
class Spread:
    """Times in ms of one candidate over the rounds."""

    median: float
    fastest: float
    slowest: float


@dataclass(frozen=True)
class Timing:
    """One candidate: every call from memory, and every call from what the cache held."""

    cold: Spread
    warm: Spread


def time_in_turns(gpu: Gpu, runs: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time candidates in turns, so that what the device does meanwhile meets all of them alike.

    Args:
        gpu: The device.
        runs: One call of each candidate.
        rounds: That count; some more go before.
    """
    cold: dict[str, list[float]] = {name: [] for name in runs}
    warm: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-WARM_UP_ROUNDS, rounds):
        for name, run in runs.items():
            gpu.occupy()
            cold_ms = gpu.time_ms(run, 1)
            gpu.occupy()
            run()
            warm_ms = gpu.time_ms(run, WARM_CALLS) / WARM_CALLS
            if turn >= 0:
                cold[name].append(cold_ms)
                warm[name].append(warm_ms)
    return {name: Timing(_spread(cold[name]), _spread(warm[name])) for name in runs}


def _spread(times_ms: Sequence[float]) -> Spread:
    return Spread(statistics.median(times_ms), min(times_ms), max(times_ms))


def bandwidth_gb_s(moved_bytes: int, time_ms: float) -> float:
    """Return bytes per time in GB/s (10^9 bytes)."""
    return moved_bytes / (time_ms * 1e6)
