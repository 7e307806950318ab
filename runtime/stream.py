"""Frames at a fixed rate against absolute deadlines, each accounted for exactly once.

One thread does everything. Frame i arrives at `start + i / fps`, known in advance, so which frames
have arrived when the detector becomes free is a comparison with the clock, exact without a queue, a
second thread or a lock.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from irstd.errors import UsageError
from irstd.frames import Frame
from irstd.types import Detections

# A sleeping thread is woken 0.05 to 1 ms late, on virtual machines at the upper end. The last
# millisecond is therefore slept in the shortest steps there are, sleep(0), which take about 0.05 ms
# on Linux and let other threads in: at 30 fps less than 3 % of a core, for starts within 0.1 ms.
_SPIN_S = 1e-3

RATE_RANGE_HZ = (0.01, 10_000.0)

POLICIES = ("drop_oldest", "drop_newest", "wait")

Status = Literal["delivered", "late", "dropped"]


@dataclasses.dataclass(frozen=True)
class StreamResult:
    """What became of one frame.

    Attributes:
        frame_index: Number of the frame in its stream, from 0.
        detections: None for a dropped frame.
        status: "delivered" (ready by its deadline), "late" (ready after it) or "dropped".
        captured_at_s: When the frame arrived by the schedule; without one, when it was there.
            `time.monotonic()` seconds.
        ready_at_s: When the detections were ready, likewise; None for a dropped frame.
    """

    frame_index: int
    detections: Detections | None
    status: Status
    captured_at_s: float
    ready_at_s: float | None


def run_stream(
    detect: Callable[[Frame], Detections],
    frames: Iterable[Frame],
    fps: float | None = None,
    policy: str | None = None,
    deadline_ms: float | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[StreamResult]:
    """Run frames at a rate and yield what became of each, in frame order.

    The schedule starts when the first frame is at hand. Whenever the detector becomes free, the
    policy decides about the frames that have arrived by then:

    - drop_oldest: the newest is inferred, older ones are dropped. Results stay fresh.
    - drop_newest: the oldest is inferred, newer ones are dropped, as by a queue of one place. What
      was accepted first is kept.
    - wait: all are inferred in order, late or not.

    The next frame is read ahead of its arrival, so that decoding is not part of the latency; the
    time that the consumer spends between two results is, as in any loop of one thread.

    Args:
        detect: What infers one frame.
        frames: With `fps`, something that can be read ahead: a list, files, a video. A live camera
            sets its own pace: leave `fps` out.
        fps: Frames a second; None takes each frame as it comes.
        policy: One of POLICIES; default drop_oldest; without `fps` only wait.
        deadline_ms: From a frame's arrival; default one frame time, without `fps` none.
        clock: Seconds that never go back.
        sleep: Waits that many seconds; 0 gives way to other threads.

    Raises:
        UsageError: A rate, policy or deadline outside of these, at the call. What `frames` raises
            passes through after the results of the frames before it. What `detect` raises passes
            through at once: nothing is yielded for its frame and those dropped in its favour.
    """
    if fps is not None:
        check_rate(fps)
    if deadline_ms is not None and not deadline_ms > 0:
        raise UsageError(f"deadline {deadline_ms} ms: wanted a time above 0")
    if policy is not None and policy not in POLICIES:
        raise UsageError(f"unknown policy {policy!r}; one of {', '.join(POLICIES)}")
    if fps is None:
        if policy not in (None, "wait"):
            raise UsageError(f"policy {policy} needs a rate (fps); without one it is wait")
        return _unpaced(detect, frames, _allowed_s(deadline_ms, math.inf), clock)
    allowed_s = _allowed_s(deadline_ms, 1 / fps)
    return _paced(detect, frames, fps, policy or "drop_oldest", allowed_s, clock, sleep)


def check_rate(fps: float) -> None:
    """Refuse a rate that no camera has: beyond RATE_RANGE_HZ waiting and counting break down.

    Raises:
        UsageError: It is not a number within RATE_RANGE_HZ.
    """
    low, high = RATE_RANGE_HZ
    if not isinstance(fps, int | float) or not low <= fps <= high:
        raise UsageError(f"fps {fps}: wanted a rate from {low} to {high:g} Hz")


def _allowed_s(deadline_ms: float | None, default_s: float) -> float:
    return default_s if deadline_ms is None else deadline_ms / 1000


def _unpaced(
    detect: Callable[[Frame], Detections],
    frames: Iterable[Frame],
    allowed_s: float,
    clock: Callable[[], float],
) -> Iterator[StreamResult]:
    for index, frame in enumerate(frames):
        captured_at_s = clock()
        yield _infer(detect, frame, index, captured_at_s, captured_at_s + allowed_s, clock)


def _paced(
    detect: Callable[[Frame], Detections],
    frames: Iterable[Frame],
    fps: float,
    policy: str,
    allowed_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[StreamResult]:
    failures: list[Exception] = []
    source = enumerate(_until_failure(frames, failures))
    current = next(source, None)
    start_s = clock()

    def arrival_s(index: int) -> float:
        return start_s + index / fps

    while current is not None:
        first = current[0]
        _wait_until(arrival_s(first), clock, sleep)
        now_s = clock()
        # Counted once a turn: frames that arrive while dropped ones are read wait for the next
        # turn, or a reader slower than the rate would never let one through.
        behind = 0
        while arrival_s(first + behind + 1) <= now_s:
            behind += 1
        if policy == "drop_oldest":
            for newer in itertools.islice(source, behind):
                current = newer
        index, frame = current
        due_s = arrival_s(index)
        result = _infer(detect, frame, index, due_s, due_s + allowed_s, clock)
        for overtaken in range(first, index):
            yield _dropped(overtaken, arrival_s(overtaken))
        yield result
        if policy == "drop_newest":
            for refused, _ in itertools.islice(source, behind):
                yield _dropped(refused, arrival_s(refused))
        current = next(source, None)
    if failures:
        raise failures[0]


def _until_failure(frames: Iterable[Frame], failures: list[Exception]) -> Iterator[Frame]:
    """Yield frames; note what reading raises, so that the frames read before it are still run."""
    try:
        yield from frames
    except Exception as error:  # whatever it is, it is raised again once they are accounted for
        failures.append(error)


def _infer(
    detect: Callable[[Frame], Detections],
    frame: Frame,
    index: int,
    captured_at_s: float,
    deadline_s: float,
    clock: Callable[[], float],
) -> StreamResult:
    found = detect(frame)
    ready_at_s = clock()
    stamped = dataclasses.replace(
        found, frame_index=index, captured_at_s=captured_at_s, ready_at_s=ready_at_s
    )
    status: Status = "delivered" if ready_at_s <= deadline_s else "late"
    return StreamResult(index, stamped, status, captured_at_s, ready_at_s)


def _dropped(index: int, captured_at_s: float) -> StreamResult:
    return StreamResult(index, None, "dropped", captured_at_s, None)


def _wait_until(
    moment_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    remaining_s = moment_s - clock()
    if remaining_s > _SPIN_S:
        sleep(remaining_s - _SPIN_S)
    while clock() < moment_s:
        sleep(0)
