import dataclasses
import os

import pytest

from irstd.benchmarks.conditions import Watch, compare_snapshots, take_snapshot

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path):
    """A pretended /proc and /sys of two cores, and a function to change a file of it."""

    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("proc/stat", "cpu  100 10 50 9000 5 1 1 20 7 7\ncpu0 1 1\n")
    put("proc/self/task/11/schedstat", "1000000000 500000000 12\n")
    put("proc/self/task/12/schedstat", "5 100000000 1\n")
    put("proc/self/statm", "5000 1000 1 1 0 1 0\n")
    for core in (0, 1):
        cpu = f"sys/devices/system/cpu/cpu{core}"
        put(f"{cpu}/cpufreq/scaling_cur_freq", "2000000\n")
        put(f"{cpu}/thermal_throttle/core_throttle_count", "3\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq", "2000000\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "2000000\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    put("sys/class/thermal/thermal_zone0/temp", "41000\n")
    put("sys/class/thermal/thermal_zone1/temp", "52500\n")
    return tmp_path, put


def compare(root, first, frequencies=(2000.0,), seconds=10.0, own_s=0.0):
    """Compare with the machine's present state, `seconds` later by its own clock."""
    last = take_snapshot(root)
    last = dataclasses.replace(last, at_s=first.at_s + seconds, own_cpu_s=first.own_cpu_s + own_s)
    return compare_snapshots(first, last, [[value] for value in frequencies], root)


def test_an_idle_locked_machine_is_quiet(machine):
    root, _ = machine
    first = take_snapshot(root)
    same = compare(root, first)
    assert (same.throttle_events, same.clocks_locked, same.governor) == (0, True, "performance")
    assert (same.temperature_c_before, same.temperature_c_after) == (52.5, 52.5)
    assert (same.other_cores, same.waited_share, same.stolen_share) == (0, 0, 0)
    assert same.rss_mb == 1000 * os.sysconf("SC_PAGESIZE") / 1e6
    assert same.rss_growth_mb == 0
    assert same.warnings == ()


def test_throttling_is_seen(machine):
    root, put = machine
    first = take_snapshot(root)
    put("sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "5\n")
    after = compare(root, first, [2000.0, 1700.0])
    assert after.throttle_events == 2
    assert after.clocks.throttle_events == 2
    assert after.clocks.frequency_spread == pytest.approx(2000 / 1700 - 1)


def test_other_programs_and_the_hypervisor_are_seen(machine):
    root, put = machine
    first = take_snapshot(root)
    busy, stolen = 100 + 15 * TICKS, 20 + 4 * TICKS  # 15 s of processor time in 10 s
    put("proc/stat", f"cpu  {busy} 10 50 9000 5 1 1 {stolen} 7 7\n")
    after = compare(root, first, own_s=9.0)
    assert after.other_cores == pytest.approx(0.6)
    assert after.stolen_share == pytest.approx(0.4 / (os.cpu_count() or 1))
    assert any("0.60 processors" in warning for warning in after.warnings)
    assert any("hypervisor" in warning for warning in after.warnings)


def test_idle_time_is_not_busy_time(machine):
    root, put = machine
    first = take_snapshot(root)
    put("proc/stat", f"cpu  100 10 50 {9000 + 99 * TICKS} {5 + 99 * TICKS} 1 1 20 7 7\n")
    assert compare(root, first).other_cores == 0


def test_waiting_for_a_processor_is_that_of_the_worst_thread(machine):
    root, put = machine
    first = take_snapshot(root)
    put("proc/self/task/12/schedstat", "9 2100000000 1\n")
    put("proc/self/task/13/schedstat", "9 9900000000 1\n")  # began meanwhile: not known
    after = compare(root, first)
    assert after.waited_share == pytest.approx(0.2)
    assert any("waited for a processor 20.0%" in warning for warning in after.warnings)


def test_unlocked_clocks_are_a_warning(machine):
    root, put = machine
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq", "800000\n")
    after = compare(root, take_snapshot(root))
    assert after.clocks_locked is False
    assert "not locked (governor performance)" in after.warnings[0]


@pytest.mark.parametrize("content", [None, "", "garbage", "cpu x y\n", "\xff" * 30])
def test_a_system_that_tells_nothing_gives_none_and_never_fails(tmp_path, content):
    if content is not None:
        for path in (
            "proc/stat",
            "proc/self/task/1/schedstat",
            "proc/self/statm",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
            "sys/class/thermal/thermal_zone0/temp",
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(content, "latin-1")
    watch = Watch(root=tmp_path)
    watch.tick()
    nothing = watch.finish()
    assert nothing.throttle_events is None
    assert nothing.other_cores is None
    assert nothing.clocks.frequency_spread is None
    assert nothing.warnings == (
        "the clock frequency cannot be read here, so throttling may go unseen",
    )


def test_frequencies_are_sampled_once_a_second_and_begin_forgets(machine, clock):
    root, put = machine
    shown = []
    watch = Watch(shown.append, root=root, clock=clock)
    path = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    put(path, "1000000\n")
    clock.now_s += 1.5
    watch.tick()
    put(path, "2000000\n")
    watch.begin()
    clock.now_s += 0.4
    put(path, "1500000\n")
    watch.tick()  # too soon after the last
    put(path, "1900000\n")
    clock.now_s += 0.7
    watch.tick()
    put(path, "2000000\n")
    seen = watch.finish()
    assert (seen.frequency_mhz_min, seen.frequency_mhz_max) == (1900, 2000)
    assert shown == pytest.approx([1.5, 0.4, 1.1])


def test_cores_of_different_kinds_are_not_throttled(machine):
    root, put = machine
    for core, kilohertz in (("cpu0", 2_000_000), ("cpu1", 3_000_000)):
        put(f"sys/devices/system/cpu/{core}/cpufreq/scaling_cur_freq", f"{kilohertz}\n")
    seen = Watch(root=root).finish()
    assert (seen.frequency_mhz_min, seen.frequency_mhz_max) == (2000, 3000)
    assert seen.clocks.frequency_spread == 0
