"""Open loop: frames arrive at a fixed rate, whether or not the last one is done.

Latency counts from the *scheduled* arrival, so a frame that had to wait for its turn shows it
(no coordinated omission).
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.latency import Clock, Observer, Timed, Unobserved, settle, time_first_frame
from irstd.benchmarks.statistics import Jitter, jitter, longest_run, stale_ms
from irstd.benchmarks.validity import WarmUp
from irstd.errors import BenchmarkInvalid
from irstd.frames import Frame

STATUSES = ("delivered", "late", "dropped")
DELIVERED, LATE, DROPPED = range(3)


class Result(Protocol):
    """What a stream says of one frame."""

    @property
    def frame_index(self) -> int: ...  # noqa: D102 (the class says it)
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def captured_at_s(self) -> float: ...  # noqa: D102
    @property
    def ready_at_s(self) -> float | None: ...  # noqa: D102


class Streaming(Timed, Protocol):
    """What a paced measurement needs of a detector; `irstd.runtime` has the real one."""

    def stream(
        self,
        frames: Iterable[Frame],
        fps: float | None = None,
        policy: str | None = None,
        deadline_ms: float | None = None,
    ) -> Iterator[Result]:
        """Yield one result for each frame."""
        ...


@dataclasses.dataclass(frozen=True)
class PacedRun:
    """A paced measurement. Arrays of shape (N,), one entry for each frame, in frame order.

    Attributes:
        first_frame_ms: Time of the very first frame, before the warm-up.
        warm: The closed-loop warm-up.
        rate_hz: Scheduled frames per second.
        deadline_ms: From the scheduled arrival.
        status: Index into STATUSES.
        captured_at_s: Scheduled arrival, seconds since that of the first frame.
        ready_at_s: When the output was ready, on the same scale; NaN for a dropped frame.
        pre_ms: Preprocessing time; NaN for a dropped frame, as the next two.
        infer_ms: Time inside the engine.
        post_ms: Postprocessing time.
    """

    first_frame_ms: float
    warm: WarmUp
    rate_hz: float
    deadline_ms: float
    status: NDArray[np.int8]
    captured_at_s: NDArray[np.float64]
    ready_at_s: NDArray[np.float64]
    pre_ms: NDArray[np.float64]
    infer_ms: NDArray[np.float64]
    post_ms: NDArray[np.float64]

    @property
    def answered(self) -> NDArray[np.bool_]:
        """(N,) which frames gave an output, in time or late."""
        kept: NDArray[np.bool_] = self.status != DROPPED
        return kept

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """(N,) from the scheduled arrival to the output; NaN for a dropped frame."""
        return 1e3 * (self.ready_at_s - self.captured_at_s)

    @property
    def seconds(self) -> float:
        """Scheduled length of the run."""
        return len(self.status) / self.rate_hz

    @property
    def jitter_ms(self) -> Jitter:
        """Of the gaps between outputs."""
        index = np.flatnonzero(self.answered)
        return jitter(index, self.ready_at_s[index], 1 / self.rate_hz)

    @property
    def longest_miss_run(self) -> int:
        """Most frames in a row that were late or dropped."""
        return longest_run(self.status != DELIVERED)

    @property
    def max_late_ms(self) -> float:
        """How long after its deadline the latest output was ready; 0 if none was late."""
        late = self.latency_ms[self.status == LATE] - self.deadline_ms
        return float(late.max(initial=0.0))

    @property
    def max_stale_ms(self) -> float:
        """Greatest age that the newest output ever reached."""
        kept = self.answered
        return stale_ms(self.captured_at_s[kept], self.ready_at_s[kept])

    def count(self, status: int) -> int:
        """Return how many frames ended as `status`."""
        return int(np.count_nonzero(self.status == status))


def measure_paced(
    detector: Streaming,
    frames: Sequence[Frame],
    fps: float,
    seconds: float,
    *,
    policy: str | None = None,
    deadline_ms: float | None = None,
    clock: Clock = time.perf_counter,
    observer: Observer | None = None,
) -> PacedRun:
    """Warm up in a closed loop, then stream round(fps * seconds) frames at `fps`.

    Args:
        detector: The subject.
        frames: At least one; repeated in order as long as needed.
        fps: Frames per second.
        seconds: Of the paced part.
        policy: Of the stream; None for its default.
        deadline_ms: Of each frame from its scheduled arrival; None for 1000 / fps.
        clock: For the warm-up; the stream has its own.
        observer: Told when the paced part begins, and after each result.

    Raises:
        BenchmarkInvalid: The stream did not account for every frame exactly once.
    """
    observer = observer or Unobserved()
    cycle = itertools.cycle(frames)
    first_ms = time_first_frame(detector, cycle, clock)
    warm = settle(detector, cycle, seconds, clock)
    total = max(1, round(fps * seconds))
    status = np.full(total, -1, np.int8)
    times = np.full((5, total), np.nan)  # captured, ready, pre, infer, post
    seen = 0
    observer.begin()
    arriving = itertools.islice(cycle, total)
    for result in detector.stream(arriving, fps=fps, policy=policy, deadline_ms=deadline_ms):
        seen += 1
        index = result.frame_index
        if not 0 <= index < total:
            break
        status[index] = STATUSES.index(result.status)
        times[0, index] = result.captured_at_s
        if result.ready_at_s is not None:
            stages = detector.last_timing
            times[1:, index] = (
                result.ready_at_s,
                stages.pre_ms,
                stages.infer_ms,
                stages.post_ms,
            )
        observer.tick()
    if seen != total or (status < 0).any():
        raise BenchmarkInvalid(
            f"{seen} results for {total} frames, {np.count_nonzero(status < 0)} frames without "
            "one; each frame must be accounted for exactly once"
        )
    times[:2] -= times[0, 0]
    return PacedRun(
        first_ms,
        warm,
        fps,
        1e3 / fps if deadline_ms is None else deadline_ms,
        status,
        *times,
    )
