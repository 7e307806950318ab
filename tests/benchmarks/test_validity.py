import numpy as np
import pytest

from irstd.benchmarks.validity import (
    Clocks,
    WarmUp,
    Window,
    judge,
    make_window,
    thirds,
    warm_up,
    windows_agree,
)

STEADY = WarmUp((Window(100, 1.0, 100.0, 10.0, 11.0),) * 3, settled=True)


def window(rate: float, p50: float | None = None, frames: int = 1000) -> Window:
    return Window(frames, frames / rate, rate, 1e3 / rate if p50 is None else p50, 99.0)


def judge_series(times_ms, *, seconds=None, clocks=None, warm=STEADY):
    times_ms = np.asarray(times_ms, float)
    started = np.concatenate([[0], np.cumsum(times_ms)[:-1]]) / 1e3
    end = times_ms.sum() / 1e3
    return judge(
        warm=warm,
        windows=thirds(started, times_ms, end),
        seconds=end if seconds is None else seconds,
        frames=len(times_ms),
        clocks=clocks or Clocks(),
    )


def test_a_steady_series_is_ok():
    verdict = judge_series(np.random.default_rng(0).normal(10, 0.5, 3000))
    assert verdict.ok
    assert not verdict.publishable
    assert "3000 frames in 30 s" in verdict.reasons[0]


def test_a_slow_drift_is_not_ok():
    verdict = judge_series(np.linspace(10, 12.5, 3000))
    assert not verdict.ok
    assert any(reason.startswith("median latency is not stable") for reason in verdict.reasons)


def test_a_throttle_in_the_last_third_is_not_ok():
    verdict = judge_series(np.r_[np.full(2100, 10.0), np.full(900, 14.0)])
    assert not verdict.ok
    assert any("rate is not stable" in reason for reason in verdict.reasons)


def test_a_spread_of_just_under_a_tenth_is_ok_and_just_over_is_not():
    assert windows_agree([window(100), window(109.9), window(105)])
    assert not windows_agree([window(100), window(110.1), window(105)])


def test_rate_and_latency_must_both_agree():
    assert not windows_agree([window(100, 10), window(100, 10), window(100, 12)])
    assert not windows_agree([window(100, 10), window(100, 10), window(80, 10)])


def test_a_few_outliers_that_leave_rate_and_median_alone_are_ok():
    times = np.full(3000, 10.0)
    times[::500] = 60
    assert judge_series(times).ok


@pytest.mark.parametrize("frames", [1, 2, 5, 29])
def test_a_short_run_is_not_ok_and_says_so(frames):
    verdict = judge_series(np.full(frames, 10.0))
    assert not verdict.ok
    assert "too short" in verdict.reasons[0]
    assert "--seconds" in verdict.reasons[0]


def test_thirty_frames_are_enough_to_compare():
    assert judge_series(np.full(30, 10.0)).ok


@pytest.mark.parametrize(
    ("frames", "seconds", "publishable"),
    [(3000, 599.9, False), (3000, 600.0, True), (24_575, 30.0, False), (24_576, 30.0, True)],
)
def test_the_sample_minimum(frames, seconds, publishable):
    verdict = judge_series(np.full(frames, 10.0), seconds=seconds)
    assert verdict.ok
    assert verdict.publishable is publishable
    assert bool(verdict.reasons) is not publishable


def test_what_is_not_ok_is_never_publishable():
    verdict = judge_series(np.linspace(10, 20, 60_000))
    assert not verdict.ok
    assert not verdict.publishable


def test_throttle_events_and_moving_locked_clocks_are_not_ok():
    steady = np.full(3000, 10.0)
    assert not judge_series(steady, clocks=Clocks(throttle_events=1)).ok
    assert judge_series(steady, clocks=Clocks(throttle_events=0)).ok
    assert not judge_series(steady, clocks=Clocks(locked=True, frequency_spread=0.06)).ok
    assert judge_series(steady, clocks=Clocks(locked=True, frequency_spread=0.04)).ok
    assert judge_series(steady, clocks=Clocks(locked=False, frequency_spread=0.6)).ok


def test_warnings_do_not_decide():
    verdict = judge(
        warm=STEADY,
        windows=(window(100),) * 3,
        seconds=700,
        frames=70_000,
        clocks=Clocks(),
        warnings=("busy",),
    )
    assert (verdict.ok, verdict.publishable) == (True, True)
    assert (verdict.reasons, verdict.warnings) == ((), ("busy",))


def test_the_warm_up_ends_with_the_first_three_that_agree():
    rates = iter([50, 70, 90, 100, 101, 99, 98])
    warm = warm_up(lambda: window(next(rates)))
    assert warm.settled
    # 90, 100, 101 are 12 % apart; 100, 101, 99 are the first three that agree
    assert [w.rate_fps for w in warm.windows] == [50, 70, 90, 100, 101, 99]


def test_a_warm_up_that_never_settles_gives_up_and_is_not_ok():
    rates = iter(range(100, 10_000, 100))
    warm = warm_up(lambda: window(next(rates)), limit=10)
    assert len(warm.windows) == 10
    assert not warm.settled
    verdict = judge_series(np.full(3000, 10.0), warm=warm)
    assert not verdict.ok
    assert "warm-up did not settle" in verdict.reasons[0]


@pytest.mark.parametrize("n", [3, 4, 5, 100, 1001])
def test_thirds_leave_nothing_out(n):
    times = np.arange(1.0, n + 1)
    started = np.concatenate([[0], np.cumsum(times)[:-1]]) / 1e3
    windows = thirds(started, times, times.sum() / 1e3)
    assert sum(w.frames for w in windows) == n
    assert sum(w.seconds for w in windows) == pytest.approx(times.sum() / 1e3)
    assert max(w.frames for w in windows) - min(w.frames for w in windows) <= 1


def test_thirds_of_fewer_than_three_frames():
    assert thirds(np.zeros(2), np.ones(2), 1.0) == ()


def test_a_window_counts_the_time_between_frames_in_its_rate_only():
    made = make_window(np.full(10, 5.0), 0.1)
    assert made.rate_fps == pytest.approx(100)
    assert made.p50_ms == 5
