import itertools

import numpy as np
import pytest

from irstd.benchmarks.latency import (
    join,
    measure_interleaved,
    measure_latency,
    run_block,
    timer_overhead_us,
)
from irstd.benchmarks.validity import thirds


class Recorder:
    """An observer that costs time between the frames."""

    def __init__(self, clock, cost_s=0.0):
        self.clock, self.cost_s = clock, cost_s
        self.begun_at_s = []
        self.ticks = 0

    def begin(self):
        self.begun_at_s.append(self.clock())

    def tick(self):
        self.ticks += 1
        self.clock.now_s += self.cost_s


def test_the_first_frame_and_the_warm_up_are_apart_from_the_measurement(
    clock, make_detector, frames
):
    detector = make_detector(lambda n: 500.0 if n == 0 else 30.0 if n < 100 else 10.0)
    run = measure_latency(detector, frames, 30.0, clock=clock)
    assert run.first_frame_ms == pytest.approx(500)
    assert run.warm.settled
    assert run.warm.windows[0].p50_ms == pytest.approx(30)
    assert run.samples.total_ms == pytest.approx(np.full(3000, 10.0))
    warmed = sum(window.frames for window in run.warm.windows)
    assert len(detector.seen) == 1 + warmed + 3000


def test_frames_come_in_order_and_again(clock, make_detector, frames):
    detector = make_detector(lambda n: 10.0)
    measure_latency(detector, frames, 1.0, clock=clock)
    assert detector.seen[:12] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert all((b - a) % 5 == 1 for a, b in itertools.pairwise(detector.seen))


def test_what_happens_between_frames_costs_rate_but_not_latency(clock, make_detector, frames):
    observer = Recorder(clock, cost_s=0.01)
    run = measure_latency(
        make_detector(lambda n: 10.0), frames, 6.0, clock=clock, observer=observer
    )
    assert run.samples.total_ms == pytest.approx(np.full(300, 10.0))
    assert len(run.samples.total_ms) / run.samples.seconds == pytest.approx(50)
    assert observer.ticks == 300
    assert len(observer.begun_at_s) == 1


def test_a_throttle_shows_in_the_thirds(clock, make_detector, frames):
    detector = make_detector(lambda n: 10.0 if clock() < 130 else 15.0)
    samples = measure_latency(detector, frames, 36.0, clock=clock).samples
    first, _, last = thirds(samples.started_s, samples.total_ms, samples.seconds)
    assert first.p50_ms == pytest.approx(10)
    assert last.p50_ms == pytest.approx(15)


def test_stage_shares(clock, make_detector, frames):
    samples = measure_latency(make_detector(lambda n: 10.0), frames, 1.0, clock=clock).samples
    assert samples.outside_engine_share == pytest.approx(0.1)
    assert samples.unaccounted_share == pytest.approx(0, abs=1e-9)


def test_a_block_runs_on_until_it_has_enough_frames(clock, make_detector, frames):
    detector, cycle = make_detector(lambda n: 100.0), itertools.cycle(frames)
    assert len(run_block(detector, cycle, 1.0, clock).total_ms) == pytest.approx(10, abs=1)
    longer = run_block(detector, cycle, 1.0, clock, fewest=30, longest_s=10.0)
    assert len(longer.total_ms) == 30
    capped = run_block(detector, cycle, 1.0, clock, fewest=30, longest_s=2.0)
    assert len(capped.total_ms) == pytest.approx(20, abs=1)


def test_a_frame_longer_than_the_whole_run_is_still_finished(clock, make_detector, frames):
    samples = measure_latency(make_detector(lambda n: 5e3), frames, 1.0, clock=clock).samples
    assert samples.total_ms == pytest.approx([5e3])
    assert samples.seconds == pytest.approx(5)


def test_interleaving_takes_turns_and_gives_the_ratio_on_a_drifting_machine(
    clock, make_detector, frames
):
    def slow(base):
        return lambda n: base * (1 + (clock() - 100) / 60)  # everything slows down with time

    ours, theirs = make_detector(slow(10.0)), make_detector(slow(19.0))
    turns = []
    for name, detector in (("ours", ours), ("theirs", theirs)):
        real = detector.cost_ms
        detector.cost_ms = lambda n, real=real, name=name: turns.append(name) or real(n)
    own, others, ratio = measure_interleaved(ours, theirs, frames, 20.0, clock=clock)
    order = [name for name, _ in itertools.groupby(turns)]
    assert order[-6:] == ["ours", "theirs"] * 3
    assert len(order) >= 40
    assert ratio.p50 == pytest.approx(1.9, rel=0.03)
    assert ratio.interval.low <= ratio.p50 <= ratio.interval.high
    assert ratio.interval.high - ratio.interval.low < 0.05
    assert own.samples.seconds == pytest.approx(20, rel=0.05)
    assert others.samples.seconds == pytest.approx(20, rel=0.05)


def test_joined_blocks_are_one_run_without_the_gaps(clock, make_detector, frames):
    detector, cycle = make_detector(lambda n: 10.0), itertools.cycle(frames)
    blocks = []
    for _ in range(3):
        blocks.append(run_block(detector, cycle, 0.1, clock))
        clock.now_s += 50
    joined = join(blocks)
    assert joined.started_s == pytest.approx(np.arange(len(joined.total_ms)) / 100)
    assert joined.seconds == pytest.approx(0.01 * len(joined.total_ms))


def test_the_overhead_of_a_clock_that_ticks_ten_microseconds_a_reading():
    ticking = itertools.count(0.0, 1e-5)
    assert timer_overhead_us(lambda: next(ticking)) == pytest.approx(10)
