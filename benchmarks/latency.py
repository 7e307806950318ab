"""Closed loop: the next frame starts when the last one is done. How fast can it be?

Every frame of the measurement counts, outliers too; the warm-up before it never does.
"""

import dataclasses
import itertools
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from irstd.benchmarks.statistics import Interval, ratio_interval
from irstd.benchmarks.validity import (
    WINDOW_FRAMES,
    WINDOW_S,
    WINDOWS,
    WarmUp,
    Window,
    make_window,
    warm_up,
)
from irstd.frames import Frame
from irstd.types import Detections

Clock = Callable[[], float]


class Stages(Protocol):
    """Times of one frame's stages in ms."""

    @property
    def pre_ms(self) -> float: ...  # noqa: D102 (the class says it)
    @property
    def infer_ms(self) -> float: ...  # noqa: D102
    @property
    def post_ms(self) -> float: ...  # noqa: D102


class Timed(Protocol):
    """What a latency measurement needs of a detector; `irstd.runtime` has the real one."""

    def __call__(self, frame: Frame) -> Detections:
        """Return the detections of one frame."""
        ...

    @property
    def last_timing(self) -> Stages:
        """Stage times of the frame before."""
        ...


class Observer(Protocol):
    """Looks on; `irstd.benchmarks.conditions.Watch` is one."""

    def begin(self) -> None:
        """The warm-up is over."""

    def tick(self) -> None:
        """A frame is done."""


class Unobserved:
    """Nobody looks on."""

    def begin(self) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Per-frame measurements, all of shape (N,).

    Attributes:
        started_s: When each frame began, seconds since the measurement began.
        total_ms: From handing the frame in to holding the detections.
        pre_ms: Part of it for preprocessing.
        infer_ms: Part of it inside the engine.
        post_ms: Part of it for postprocessing.
        detections: How many targets were found.
        seconds: How long all of it took, with what happens between frames.
    """

    started_s: NDArray[np.float64]
    total_ms: NDArray[np.float64]
    pre_ms: NDArray[np.float64]
    infer_ms: NDArray[np.float64]
    post_ms: NDArray[np.float64]
    detections: NDArray[np.int64]
    seconds: float

    @property
    def unaccounted_share(self) -> float:
        """Median share of a frame's time that no stage claims."""
        claimed = self.pre_ms + self.infer_ms + self.post_ms
        return float(np.median(1 - claimed / self.total_ms))

    @property
    def outside_engine_share(self) -> float:
        """Median share of a frame's time outside the engine call."""
        return float(np.median(1 - self.infer_ms / self.total_ms))


@dataclasses.dataclass(frozen=True)
class LatencyRun:
    """One detector, measured. `samples` is empty only if no frame was asked for."""

    first_frame_ms: float
    warm: WarmUp
    samples: Samples


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Latency of the other variant / that of the first; above 1 the first is faster.

    Of each variant the mean over its turns of the turn's median.
    """

    p50: float
    interval: Interval


def measure_latency(
    detector: Timed,
    frames: Sequence[Frame],
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
    observer: Observer | None = None,
) -> LatencyRun:
    """Warm up, then measure for `seconds`.

    Args:
        detector: The subject.
        frames: At least one; repeated in order as long as needed.
        seconds: Of the measurement alone.
        clock: Seconds, monotonic.
        observer: Told when the measurement begins, and after each frame, outside its time.
    """
    observer = observer or Unobserved()
    cycle = itertools.cycle(frames)
    first_ms = time_first_frame(detector, cycle, clock)
    warm = settle(detector, cycle, seconds, clock)
    observer.begin()
    return LatencyRun(first_ms, warm, run_block(detector, cycle, seconds, clock, observer.tick))


def measure_interleaved(
    detector: Timed,
    other: Timed,
    frames: Sequence[Frame],
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
    observer: Observer | None = None,
) -> tuple[LatencyRun, LatencyRun, Ratio]:
    """Measure two detectors in turns of a second, so that both see the same machine.

    Args:
        detector: The first, for `seconds` in all.
        other: Likewise.
        frames: At least one; each detector goes through them in the same order.
        seconds: Of each detector's measurement.
        clock: Seconds, monotonic.
        observer: Told when the measurement begins, and after each frame, outside its time.

    Returns:
        Both runs, and other / first with a 95 % interval from the pairs of turns.
    """
    observer = observer or Unobserved()
    subjects = [(subject, itertools.cycle(frames)) for subject in (detector, other)]
    warmed = [
        (time_first_frame(*subject, clock), settle(*subject, seconds, clock))
        for subject in subjects
    ]
    observer.begin()
    turns = max(WINDOWS, round(seconds / WINDOW_S))
    blocks: tuple[list[Samples], list[Samples]] = ([], [])
    for _ in range(turns):
        for subject, done in zip(subjects, blocks, strict=True):
            done.append(run_block(*subject, seconds / turns, clock, observer.tick))
    own, others = (
        LatencyRun(first_ms, warm, join(done))
        for (first_ms, warm), done in zip(warmed, blocks, strict=True)
    )
    own_ms, others_ms = (np.array([np.median(block.total_ms) for block in done]) for done in blocks)
    ratio = float(others_ms.mean() / own_ms.mean())
    return own, others, Ratio(ratio, ratio_interval(others_ms, own_ms))


def time_first_frame(detector: Timed, cycle: Iterator[Frame], clock: Clock) -> float:
    """Return the time in ms of one frame: the first, if it is called first."""
    started_s = clock()
    detector(next(cycle))
    return 1e3 * (clock() - started_s)


def settle(
    detector: Timed,
    cycle: Iterator[Frame],
    seconds: float,
    clock: Clock = time.perf_counter,
) -> WarmUp:
    """Run until the speed is steady, in windows that suit a measurement of `seconds`.

    A window lasts 1 s and 30 frames, but never longer than a third of the measurement.
    """
    longest_s = seconds / WINDOWS

    def run_window() -> Window:
        least_s = min(WINDOW_S, longest_s)
        block = run_block(
            detector, cycle, least_s, clock, fewest=WINDOW_FRAMES, longest_s=longest_s
        )
        return make_window(block.total_ms, block.seconds)

    return warm_up(run_window)


def run_block(
    detector: Timed,
    cycle: Iterator[Frame],
    seconds: float,
    clock: Clock = time.perf_counter,
    between: Callable[[], None] = lambda: None,
    *,
    fewest: int = 1,
    longest_s: float = 0.0,
) -> Samples:
    """Run frames for `seconds`, and on until `fewest` are done or `longest_s` is over.

    At least one frame is run, and the last one is always finished.
    """
    started, total, pre, infer, post = (array("d") for _ in range(5))
    found = array("q")
    began_s = now_s = clock()
    while now_s - began_s < seconds or (len(total) < fewest and now_s - began_s < longest_s):
        frame = next(cycle)
        start_s = clock()
        detections = detector(frame)
        end_s = clock()
        stages = detector.last_timing
        started.append(start_s - began_s)
        total.append(1e3 * (end_s - start_s))
        pre.append(stages.pre_ms)
        infer.append(stages.infer_ms)
        post.append(stages.post_ms)
        found.append(len(detections))
        between()
        now_s = clock()
    return Samples(
        started_s=np.array(started),
        total_ms=np.array(total),
        pre_ms=np.array(pre),
        infer_ms=np.array(infer),
        post_ms=np.array(post),
        detections=np.array(found, np.int64),
        seconds=now_s - began_s,
    )


def join(blocks: Sequence[Samples]) -> Samples:
    """Join blocks in order, as if nothing had happened between them."""
    offsets = np.cumsum([0.0, *(block.seconds for block in blocks)])
    return Samples(
        started_s=np.concatenate(
            [block.started_s + offset for block, offset in zip(blocks, offsets, strict=False)]
        ),
        total_ms=np.concatenate([block.total_ms for block in blocks]),
        pre_ms=np.concatenate([block.pre_ms for block in blocks]),
        infer_ms=np.concatenate([block.infer_ms for block in blocks]),
        post_ms=np.concatenate([block.post_ms for block in blocks]),
        detections=np.concatenate([block.detections for block in blocks]),
        seconds=float(offsets[-1]),
    )


def timer_overhead_us(clock: Clock = time.perf_counter, tries: int = 1000) -> float:
    """Return the median time in microseconds that reading the clock takes."""
    return 1e6 * statistics.median(-clock() + clock() for _ in range(tries))
