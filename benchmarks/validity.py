"""Whether a measurement may be believed: warm-up, windows that agree, throttling, sample size.

`ok` says that the numbers are stable. `publishable` says besides that there are enough of them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.statistics import percentile

AGREEMENT = 0.10  # the largest spread of windows that agree, of rate and of latency
WINDOWS = 3  # how many in a row must agree
WARM_UP_WINDOWS = 10  # tried before giving up
WINDOW_S = 1.0
WINDOW_FRAMES = 30  # wanted in a window
FEWEST_FRAMES = 10  # in a window that is compared at all
LOCKED_SPREAD = 0.05  # of the frequency of clocks that are locked
PUBLISHABLE_S = 600.0
PUBLISHABLE_FRAMES = 24_576  # for p90; a p99 of that certainty would take 270,336


@dataclasses.dataclass(frozen=True)
class Window:
    """One stretch of a measurement.

    Attributes:
        frames: Finished in it.
        seconds: Its length.
        rate_fps: frames / seconds.
        p50_ms: Median time of a frame.
        p99_ms: 99th percentile, for information: too noisy to decide on.
    """

    frames: int
    seconds: float
    rate_fps: float
    p50_ms: float
    p99_ms: float


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """What was run before the measurement.

    Attributes:
        windows: In order; none of their frames is in any reported figure.
        settled: Whether the last three agreed.
    """

    windows: tuple[Window, ...]
    settled: bool

    @property
    def seconds(self) -> float:
        """Total length."""
        return sum(window.seconds for window in self.windows)


@dataclasses.dataclass(frozen=True)
class Clocks:
    """What the processor did during a measurement, as far as the system tells.

    Attributes:
        throttle_events: Increase of the throttle counters of all cores; None if unreadable.
        locked: Whether lowest and highest allowed frequency are equal; None if unreadable.
        frequency_spread: max / min - 1 of the sampled frequencies; None if unreadable.
    """

    throttle_events: int | None = None
    locked: bool | None = None
    frequency_spread: float | None = None


@dataclasses.dataclass(frozen=True)
class Validity:
    """The verdict. `reasons` say what stands against ok or publishable, `warnings` the rest."""

    ok: bool
    publishable: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def make_window(times_ms: NDArray[np.float64], seconds: float) -> Window:
    """Return the window of (N,) per-frame times, N above 0, that took `seconds` together."""
    return Window(
        frames=len(times_ms),
        seconds=seconds,
        rate_fps=len(times_ms) / seconds,
        p50_ms=percentile(times_ms, 50),
        p99_ms=percentile(times_ms, 99),
    )


def spread(values: Sequence[float]) -> float:
    """Return max / min - 1 of positive values; infinite where one is 0."""
    lowest = min(values)
    return max(values) / lowest - 1 if lowest > 0 else float("inf")


def windows_agree(windows: Sequence[Window]) -> bool:
    """Whether the last three windows differ by at most 10 %, both in rate and in median latency."""
    return len(windows) >= WINDOWS and not _disagreements(windows[-WINDOWS:])


def warm_up(run_window: Callable[[], Window], limit: int = WARM_UP_WINDOWS) -> WarmUp:
    """Run windows until the last three agree, at most `limit` of them."""
    windows: list[Window] = []
    while len(windows) < limit and not windows_agree(windows):
        windows.append(run_window())
    return WarmUp(tuple(windows), windows_agree(windows))


def thirds(
    started_s: NDArray[np.float64], times_ms: NDArray[np.float64], end_s: float
) -> tuple[Window, ...]:
    """Cut a run into three windows of equally many frames.

    Args:
        started_s: (N,) ascending, when each frame began; seconds on any clock.
        times_ms: (N,) how long each took.
        end_s: When the run ended, on the clock of `started_s`.

    Returns:
        Three windows that leave no frame out; none if N is below 3.
    """
    n = len(times_ms)
    if n < WINDOWS:
        return ()
    cuts = [round(part * n / WINDOWS) for part in range(WINDOWS + 1)]
    edges = np.append(started_s, end_s)
    return tuple(
        make_window(times_ms[first:last], float(edges[last] - edges[first]))
        for first, last in itertools.pairwise(cuts)
    )


def judge(
    *,
    warm: WarmUp,
    windows: Sequence[Window],
    seconds: float,
    frames: int,
    clocks: Clocks,
    warnings: Sequence[str] = (),
) -> Validity:
    """Decide whether a measurement is stable, and whether it is large enough to publish.

    Args:
        warm: What was run before.
        windows: The measurement cut in three, `thirds`.
        seconds: Its length.
        frames: All frames in it.
        clocks: What the processor did meanwhile.
        warnings: Passed on; they do not decide.
    """
    against_ok = [*_unsettled(warm), *_too_short(windows), *_disagreements(windows)]
    against_ok += _throttled(clocks)
    too_few: list[str] = []
    if seconds < PUBLISHABLE_S and frames < PUBLISHABLE_FRAMES:
        too_few.append(
            f"{frames} frames in {seconds:.0f} s: publishable from {PUBLISHABLE_FRAMES} frames or "
            f"{PUBLISHABLE_S:.0f} s on, measure with --seconds {PUBLISHABLE_S:.0f}"
        )
    return Validity(
        ok=not against_ok,
        publishable=not against_ok and not too_few,
        reasons=(*against_ok, *too_few),
        warnings=tuple(warnings),
    )


def _unsettled(warm: WarmUp) -> list[str]:
    if warm.settled:
        return []
    return [
        f"warm-up did not settle: {len(warm.windows)} windows in {warm.seconds:.1f} s and the last "
        f"{WINDOWS} never agreed within {AGREEMENT:.0%}; stop other programs and measure again"
    ]


def _too_short(windows: Sequence[Window]) -> list[str]:
    fewest = min((window.frames for window in windows), default=0)
    if len(windows) == WINDOWS and fewest >= FEWEST_FRAMES:
        return []
    return [
        f"too short: {fewest} frames in a third of the run, wanted at least {FEWEST_FRAMES}; "
        "measure with a larger --seconds"
    ]


def _disagreements(windows: Sequence[Window]) -> list[str]:
    """Name what differs by too much between windows."""
    if len(windows) < WINDOWS:
        return []
    found: list[str] = []
    series = {
        "rate": ("fps", [window.rate_fps for window in windows]),
        "median latency": ("ms", [window.p50_ms for window in windows]),
    }
    for name, (unit, values) in series.items():
        if spread(values) > AGREEMENT:
            listed = ", ".join(f"{value:.3g}" for value in values)
            found.append(
                f"{name} is not stable: {listed} {unit} in the three windows, "
                f"{spread(values):.0%} apart, wanted at most {AGREEMENT:.0%}"
            )
    return found


def _throttled(clocks: Clocks) -> list[str]:
    found: list[str] = []
    if clocks.throttle_events:
        found.append(
            f"the processor throttled {clocks.throttle_events} times while measuring; "
            "cool it or lower its power mode, and measure again"
        )
    changed = clocks.frequency_spread
    if clocks.locked and changed is not None and changed > LOCKED_SPREAD:
        found.append(
            f"the clocks are locked and yet the frequency varied by {changed:.0%}, wanted at most "
            f"{LOCKED_SPREAD:.0%}: throttled"
        )
    return found
