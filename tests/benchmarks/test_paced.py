import numpy as np
import pytest

from irstd.benchmarks.paced import measure_paced
from irstd.errors import BenchmarkInvalid
from irstd.runtime.stream import StreamResult, run_stream


@pytest.fixture
def make_streaming(clock, make_detector):
    """A detector on a pretended clock, behind the real stream."""

    def advance(seconds):
        clock.now_s += max(seconds, 1e-5)

    def make(cost_ms):
        detector = make_detector(cost_ms)
        detector.stream = lambda frames, **settings: run_stream(
            detector, frames, clock=clock, sleep=advance, **settings
        )
        return detector

    return make


def counts(run):
    return run.count(0), run.count(1), run.count(2)


def test_a_detector_that_keeps_up_delivers_everything(clock, make_streaming, frames):
    run = measure_paced(make_streaming(lambda n: 8.0), frames, 50, 4, clock=clock)
    assert counts(run) == (200, 0, 0)
    assert run.latency_ms == pytest.approx(np.full(200, 8.0), abs=0.05)
    assert run.captured_at_s == pytest.approx(np.arange(200) / 50)
    assert run.deadline_ms == pytest.approx(20)
    assert run.jitter_ms.p99 < 0.1
    assert (run.longest_miss_run, run.max_late_ms) == (0, 0)
    assert run.max_stale_ms == pytest.approx(28, abs=0.1)
    assert run.infer_ms == pytest.approx(np.full(200, 7.2))


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_one_that_is_too_slow_drops_and_every_frame_is_accounted_for(
    clock, make_streaming, frames, policy
):
    run = measure_paced(make_streaming(lambda n: 50.0), frames, 30, 10, policy=policy, clock=clock)
    delivered, late, dropped = counts(run)
    assert delivered + late + dropped == len(run.status) == 300
    assert delivered == 0
    assert late == pytest.approx(200, abs=2)  # 50 ms each, in 10 s
    assert run.longest_miss_run == 300
    assert np.isnan(run.latency_ms[~run.answered]).all()
    assert np.isnan(run.infer_ms[~run.answered]).all()
    assert np.isfinite(run.latency_ms[run.answered]).all()
    assert run.max_late_ms == pytest.approx(np.nanmax(run.latency_ms) - 1e3 / 30)


def test_a_stall_shows_in_the_frames_that_waited_for_it(clock, make_streaming, frames):
    """No coordinated omission: the closed loop would report one slow frame."""
    stalled = []

    def cost(n):
        if clock() > 130 and not stalled:
            stalled.append(n)
            return 200.0
        return 5.0

    detector = make_streaming(cost)
    run = measure_paced(detector, frames, 100, 60, policy="wait", clock=clock)
    assert stalled
    assert counts(run)[2] == 0
    slow = np.flatnonzero(run.latency_ms > 20)
    # The backlog of 20 frames shrinks by 5 ms a frame.
    assert len(slow) == pytest.approx(36, abs=3)
    assert (np.diff(slow) == 1).all()
    assert run.longest_miss_run == pytest.approx(38, abs=3)


def test_a_deadline_of_its_own(clock, make_streaming, frames):
    detector = make_streaming(lambda n: 8.0)
    run = measure_paced(detector, frames, 50, 2, deadline_ms=5, clock=clock)
    assert counts(run) == (0, 100, 0)
    assert run.max_late_ms == pytest.approx(3, abs=0.05)


def test_at_least_one_frame(clock, make_streaming, frames):
    assert (
        len(measure_paced(make_streaming(lambda n: 8.0), frames, 1, 0.1, clock=clock).status) == 1
    )


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 1], [0, 1, 2, 3], [0, 1, 7], []])
def test_a_stream_that_loses_or_repeats_frames_is_no_measurement(
    clock, make_detector, frames, indices
):
    detector = make_detector(lambda n: 1.0)
    results = [StreamResult(index, None, "dropped", 1.0, None) for index in indices]
    detector.stream = lambda *_, **__: iter(results)
    with pytest.raises(BenchmarkInvalid, match="exactly once"):
        measure_paced(detector, frames, 3, 1, clock=clock)
