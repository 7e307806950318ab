import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.errors import InputError, UsageError
from irstd.runtime.stream import POLICIES, run_stream
from irstd.types import Detections


class World:
    """A clock that moves only when somebody sleeps, reads a frame, infers or consumes."""

    def __init__(self, infer_s=(), read_s=(), start_s=1000.0):
        self.now_s = start_s
        self.start_s = start_s
        self.infer_s = infer_s
        self.read_s = read_s
        self.inferred = []  # (frame, started, ready), relative to the start

    def clock(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += max(seconds, 5e-5)  # giving way takes a moment

    def frames(self, count):
        for index in range(count):
            self.now_s += self.read_s[index] if self.read_s else 0
            yield index

    def detect(self, frame):
        started = self.now_s
        self.now_s += self.infer_s[len(self.inferred)] if self.infer_s else 0
        self.inferred.append((frame, started - self.start_s, self.now_s - self.start_s))
        return Detections.empty()

    def run(self, count, *arguments, **options):
        results = run_stream(
            self.detect,
            self.frames(count),
            *arguments,
            **options,
            clock=self.clock,
            sleep=self.sleep,
        )
        return list(results)


def table(results):
    return [(result.frame_index, result.status) for result in results]


# At one frame a second, frame i arrives at i and is due at i + 1. The second inference takes 2.5 s.
SLOW_ONCE = (0.4, 2.5, 0.4, 0.4, 0.4, 0.4)


def test_wait_infers_everything_and_catches_up():
    world = World(SLOW_ONCE)
    assert table(world.run(6, 1, "wait")) == [
        (0, "delivered"),
        (1, "late"),  # 1 to 3.5, due at 2
        (2, "late"),  # 3.5 to 3.9, due at 3
        (3, "late"),  # 3.9 to 4.3, due at 4
        (4, "delivered"),  # 4.3 to 4.7
        (5, "delivered"),
    ]
    assert [frame for frame, _, _ in world.inferred] == [0, 1, 2, 3, 4, 5]


def test_drop_oldest_goes_on_with_the_newest():
    world = World(SLOW_ONCE)
    assert table(world.run(6, 1, "drop_oldest")) == [
        (0, "delivered"),
        (1, "late"),  # 1 to 3.5; 2 and 3 arrive meanwhile
        (2, "dropped"),
        (3, "delivered"),  # 3.5 to 3.9
        (4, "delivered"),
        (5, "delivered"),
    ]
    assert [frame for frame, _, _ in world.inferred] == [0, 1, 3, 4, 5]


def test_drop_newest_keeps_what_came_first():
    world = World(SLOW_ONCE)
    assert table(world.run(6, 1, "drop_newest")) == [
        (0, "delivered"),
        (1, "late"),  # 1 to 3.5; 2 takes the one place, 3 finds it taken
        (2, "late"),  # 3.5 to 3.9, due at 3
        (3, "dropped"),
        (4, "delivered"),  # 4 to 4.4
        (5, "delivered"),
    ]
    assert [frame for frame, _, _ in world.inferred] == [0, 1, 2, 4, 5]


def test_a_steady_overload_under_each_policy():
    # 1.5 frame times each: at the second rate of 2/3 frames a second.
    dropped = {}
    for policy in POLICIES:
        world = World([1.5] * 12)
        dropped[policy] = [
            index for index, status in table(world.run(12, 1, policy)) if status == "dropped"
        ]
    assert dropped["wait"] == []
    # Starts at 0, 1.5, 3 (frame 3 has just arrived; 2 came before it), 4.5, 6, ...
    assert dropped["drop_oldest"] == [2, 5, 8]
    assert dropped["drop_newest"] == [3, 6, 9]


def test_the_deadline_is_one_frame_time_or_what_is_asked_for():
    for deadline_ms, statuses in [
        (None, ["delivered", "late"]),
        (300, ["late", "late"]),
        (1500, ["delivered", "delivered"]),
    ]:
        world = World([0.5, 1.2])
        got = world.run(2, 1, "wait", deadline_ms)
        assert [result.status for result in got] == statuses, deadline_ms


def test_ready_exactly_at_the_deadline_is_in_time():
    world = World([0.25, 0.25], start_s=0.0)
    assert [result.status for result in world.run(1, 4, "wait")] == ["delivered"]
    world = World([0.2500001], start_s=0.0)
    assert [result.status for result in world.run(1, 4, "wait")] == ["late"]


def test_times_are_the_schedule_not_when_somebody_looked():
    world = World(SLOW_ONCE, read_s=[0.2] * 6)
    results = world.run(6, 1, "wait")
    first = results[0].captured_at_s
    assert first == pytest.approx(world.start_s + 0.2)  # the first frame must be read before
    assert [result.captured_at_s - first for result in results] == [0, 1, 2, 3, 4, 5]


def test_pacing_is_absolute_so_that_errors_do_not_add_up():
    world = World([0.01] * 300)
    world.run(300, 30, "wait")
    starts = np.array([started for _, started, _ in world.inferred])
    late_by = starts - np.arange(300) / 30
    assert late_by.min() >= -1e-9
    assert late_by.max() < 1e-3


def test_reading_ahead_is_not_part_of_the_latency():
    world = World([0.1] * 5, read_s=[0.8] * 5)
    results = world.run(5, 1)
    assert [result.status for result in results] == ["delivered"] * 5
    for result in results:
        assert result.ready_at_s - result.captured_at_s == pytest.approx(0.1, abs=1e-3)


def test_a_reader_slower_than_the_rate_still_lets_frames_through():
    world = World([0.1] * 40, read_s=[1.7] * 40)
    results = world.run(40, 1, "drop_oldest")
    statuses = [result.status for result in results]
    assert [result.frame_index for result in results] == list(range(40))
    assert statuses.count("dropped") < 40
    assert "late" in statuses


def test_dropped_results_have_no_detections_and_no_ready_time():
    results = World(SLOW_ONCE).run(6, 1)
    (dropped,) = [result for result in results if result.status == "dropped"]
    assert dropped.detections is None
    assert dropped.ready_at_s is None
    assert dropped.captured_at_s == 1002.0


def test_without_a_rate_each_frame_is_taken_as_it_comes():
    world = World([0.5, 0.1, 0.3], read_s=[0.2, 3.0, 0.1])
    results = world.run(3)
    assert table(results) == [(0, "delivered"), (1, "delivered"), (2, "delivered")]
    captured = [result.captured_at_s - world.start_s for result in results]
    np.testing.assert_allclose(captured, [0.2, 3.7, 3.9])
    world = World([0.5, 0.1, 0.3])
    assert [r.status for r in world.run(3, deadline_ms=200)] == ["late", "delivered", "late"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fps", [1, None])
def test_no_frames_no_results(policy, fps):
    assert World().run(0, fps, policy if fps else None) == []


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_frame_is_accounted_for_exactly_once_and_rightly(policy, data):
    count = data.draw(st.integers(1, 25))
    times = st.floats(0, 3)
    infer_s = data.draw(st.lists(times, min_size=count, max_size=count))
    deadline_s = data.draw(st.sampled_from([0.3, 1.0, 2.5]))
    world = World(infer_s, start_s=0.0)
    results = world.run(count, 1, policy, deadline_s * 1e3)

    assert [result.frame_index for result in results] == list(range(count))
    inferred = {frame: (started, ready) for frame, started, ready in world.inferred}
    assert len(inferred) == len(world.inferred), "a frame was inferred twice"
    for result in results:
        arrived = result.frame_index
        assert result.captured_at_s == arrived
        if result.status == "dropped":
            assert arrived not in inferred
            continue
        started, ready = inferred[arrived]
        assert started >= arrived, "a frame was inferred before it came"
        assert result.ready_at_s == ready
        assert result.status == ("delivered" if ready <= arrived + deadline_s else "late")
    dropped = [result.frame_index for result in results if result.status == "dropped"]
    if policy == "wait":
        assert dropped == []
    for frame, (started, _) in inferred.items():
        newest = min(math.floor(started), count - 1)
        if policy == "drop_oldest":
            assert frame == newest, "a newer frame had arrived"
        if policy == "drop_newest":
            refused = [index for index in dropped if frame < index <= started]
            assert refused == list(range(frame + 1, newest + 1)), "the one place was taken"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("whole", [1, 2, 3, 4, 5])
def test_frames_read_before_a_failure_are_accounted_for(policy, whole):
    def broken():
        yield from range(whole)
        raise InputError(f"frame {whole} is torn")

    world = World(SLOW_ONCE)
    stream = run_stream(world.detect, broken(), 1, policy, clock=world.clock, sleep=world.sleep)
    for index in range(whole):
        assert next(stream).frame_index == index
    with pytest.raises(InputError, match="torn"):
        next(stream)


def test_a_failure_of_the_detector_passes_through_and_ends_the_stream():
    def detect(frame):
        if frame == 2:
            raise InputError("frame 2 is all NaN")
        return Detections.empty()

    world = World()
    stream = run_stream(detect, range(5), 10, clock=world.clock, sleep=world.sleep)
    assert [next(stream).frame_index, next(stream).frame_index] == [0, 1]
    with pytest.raises(InputError, match="NaN"):
        next(stream)
    assert list(stream) == []


def test_nothing_is_read_before_the_first_result_is_asked_for():
    read = []
    stream = run_stream(lambda frame: Detections.empty(), map(read.append, range(3)), 10)
    assert read == []
    del stream


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 0}, "fps 0"),
        ({"fps": -5}, "fps -5"),
        ({"fps": math.nan}, "fps nan"),
        ({"fps": math.inf}, "fps inf"),
        ({"fps": 30, "policy": "newest"}, "one of drop_oldest, drop_newest, wait"),
        ({"policy": "newest"}, "one of drop_oldest, drop_newest, wait"),
        ({"policy": "drop_oldest"}, "needs a rate"),
        ({"fps": 30, "deadline_ms": 0}, "deadline 0 ms"),
        ({"fps": 30, "deadline_ms": math.nan}, "deadline nan ms"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(options, words):
    with pytest.raises(UsageError, match=words):
        run_stream(lambda frame: Detections.empty(), [], **options)


def test_the_real_clock_starts_no_frame_before_its_time():
    started = []

    def detect(frame):
        started.append(time.monotonic())
        return Detections.empty()

    results = list(run_stream(detect, range(20), fps=200, policy="wait"))
    for result, moment in zip(results, started, strict=True):
        assert moment >= result.captured_at_s
        assert result.ready_at_s >= moment
