"""What the machine did during a measurement, as far as Linux tells; elsewhere None, never a guess.

Reading costs about 0.1 ms, so it happens between frames, once a second.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from irstd.benchmarks.validity import Clocks, spread
from irstd.files import read_system

SAMPLE_PERIOD_S = 1.0
_OTHERS_WARN_CORES = 0.25
_WAITED_WARN_SHARE = 0.02
_STOLEN_WARN_SHARE = 0.01
_IDLE_FIELDS = (3, 4)  # of /proc/stat: idle, iowait
_STEAL_FIELD = 7
_COUNTED_FIELDS = 7  # user to softirq; what follows is steal, and guests, which are in user


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """State of the machine at one moment; None where the system does not tell.

    Attributes:
        at_s: `time.monotonic()`.
        own_cpu_s: Processor time that this process has used.
        busy_cpu_s: Processor time that all processes have used.
        stolen_cpu_s: Time that the hypervisor gave to others.
        waited_s: For each thread of this process, how long it was ready but had no processor.
        throttle_events: Sum over the cores.
        temperature_c: Of the hottest zone.
        rss_mb: Memory of this process in RAM, in 10^6 bytes.
    """

    at_s: float
    own_cpu_s: float
    busy_cpu_s: float | None
    stolen_cpu_s: float | None
    waited_s: dict[str, float]
    throttle_events: int | None
    temperature_c: float | None
    rss_mb: float | None


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What changed between two snapshots, and the frequencies sampled in between.

    Attributes:
        seconds: Between the snapshots.
        governor: Of the first core's frequency.
        clocks_locked: Whether the lowest and the highest allowed frequency are equal.
        frequency_mhz_min: Lowest sample of any core.
        frequency_mhz_max: Highest sample of any core.
        frequency_spread: Of the core that varied most, as `spread` defines it; cores of different
            kinds have different clocks.
        throttle_events: How often a core was slowed down for heat or power.
        temperature_c_before: Hottest zone at the start.
        temperature_c_after: And at the end.
        other_cores: Processors' worth of time that other programs used, on average.
        waited_share: Share of the time that this process was ready but had no processor.
        stolen_share: Share of all processors' time that the hypervisor gave to others.
        load_average: Of the last minute, at the end.
        rss_mb: Memory at the end, in 10^6 bytes.
        rss_growth_mb: Since the start.
    """

    seconds: float
    governor: str | None
    clocks_locked: bool | None
    frequency_mhz_min: float | None
    frequency_mhz_max: float | None
    frequency_spread: float | None
    throttle_events: int | None
    temperature_c_before: float | None
    temperature_c_after: float | None
    other_cores: float | None
    waited_share: float | None
    stolen_share: float | None
    load_average: float | None
    rss_mb: float | None
    rss_growth_mb: float | None

    @property
    def clocks(self) -> Clocks:
        """The part on which a verdict depends."""
        return Clocks(
            throttle_events=self.throttle_events,
            locked=self.clocks_locked,
            frequency_spread=self.frequency_spread,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the numbers hard to repeat."""
        found: list[str] = []
        if self.other_cores is not None and self.other_cores > _OTHERS_WARN_CORES:
            found.append(f"other programs kept {self.other_cores:.2f} processors busy meanwhile")
        if self.waited_share is not None and self.waited_share > _WAITED_WARN_SHARE:
            found.append(
                f"this process waited for a processor {self.waited_share:.1%} of the time: stop "
                "other programs"
            )
        if self.stolen_share is not None and self.stolen_share > _STOLEN_WARN_SHARE:
            found.append(f"the hypervisor gave {self.stolen_share:.1%} of the time to others")
        if self.clocks_locked is None:
            found.append("the clock frequency cannot be read here, so throttling may go unseen")
        elif not self.clocks_locked:
            found.append(f"the clocks are not locked (governor {self.governor})")
        return tuple(found)


class Watch:
    """Samples the machine during a measurement: `begin`, then `tick` between frames, then `finish`.

    Args:
        show: Told how many seconds have passed, at each tick.
        root: Where the `proc` and `sys` folders are.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        show: Callable[[float], None] = lambda seconds: None,
        *,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._root = root
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Start over: what happened before, a warm-up say, does not count."""
        self._samples_mhz = [read_frequencies_mhz(self._root)]
        self._first = take_snapshot(self._root)
        self._began_s = self._clock()
        self._next_s = self._began_s + SAMPLE_PERIOD_S

    def tick(self) -> None:
        """Sample the frequencies if a second has passed since the last sample."""
        now_s = self._clock()
        self._show(now_s - self._began_s)
        if now_s >= self._next_s:
            self._next_s = now_s + SAMPLE_PERIOD_S
            self._samples_mhz.append(read_frequencies_mhz(self._root))

    def finish(self) -> Conditions:
        """Return what happened since `begin`."""
        self._samples_mhz.append(read_frequencies_mhz(self._root))
        return compare_snapshots(
            self._first, take_snapshot(self._root), self._samples_mhz, self._root
        )


def compare_snapshots(
    first: Snapshot, last: Snapshot, samples_mhz: list[list[float]], root: Path = Path("/")
) -> Conditions:
    """Return what changed from one snapshot to a later one.

    Args:
        first: The state before.
        last: The state after.
        samples_mhz: Frequency of each core, as `read_frequencies_mhz` gave it once a second.
        root: Where the `sys` folder is.
    """
    cores = list(zip(*samples_mhz, strict=False))  # a core may be switched off meanwhile
    seconds = max(last.at_s - first.at_s, 1e-9)
    own_s = last.own_cpu_s - first.own_cpu_s
    busy_s = _difference(last.busy_cpu_s, first.busy_cpu_s)
    stolen_s = _difference(last.stolen_cpu_s, first.stolen_cpu_s)
    common = first.waited_s.keys() & last.waited_s.keys()
    waited = [last.waited_s[thread] - first.waited_s[thread] for thread in common]
    throttled = _difference(last.throttle_events, first.throttle_events)
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    lowest = _read_number(policy / "scaling_min_freq")
    highest = _read_number(policy / "scaling_max_freq")
    return Conditions(
        seconds=seconds,
        governor=read_system(policy / "scaling_governor") or None,
        clocks_locked=None if lowest is None or highest is None else lowest == highest,
        frequency_mhz_min=min(map(min, cores), default=None),
        frequency_mhz_max=max(map(max, cores), default=None),
        frequency_spread=max(map(spread, cores), default=None),
        throttle_events=None if throttled is None else int(throttled),
        temperature_c_before=first.temperature_c,
        temperature_c_after=last.temperature_c,
        other_cores=None if busy_s is None else max(busy_s - own_s, 0.0) / seconds,
        waited_share=max(waited) / seconds if waited else None,
        stolen_share=None if stolen_s is None else stolen_s / seconds / (os.cpu_count() or 1),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        rss_mb=last.rss_mb,
        rss_growth_mb=_difference(last.rss_mb, first.rss_mb),
    )


def take_snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the state of the machine from the `proc` and `sys` folders under `root`."""
    own = os.times()
    busy_s, stolen_s = _read_cpu_times(root / "proc/stat")
    return Snapshot(
        at_s=time.monotonic(),
        own_cpu_s=own.user + own.system,
        busy_cpu_s=busy_s,
        stolen_cpu_s=stolen_s,
        waited_s=_read_waits(root / "proc/self/task"),
        throttle_events=_read_throttle_events(root),
        temperature_c=_read_temperature(root),
        rss_mb=_read_rss_mb(root / "proc/self/statm"),
    )


def read_frequencies_mhz(root: Path = Path("/")) -> list[float]:
    """Return the present frequency of each core in MHz; empty where it cannot be read."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    return [value / 1e3 for path in sorted(files) if (value := _read_number(path)) is not None]


def _read_cpu_times(path: Path) -> tuple[float | None, float | None]:
    first_line = read_system(path).split("\n")[0]
    fields = _numbers(first_line.removeprefix("cpu "))
    if len(fields) <= _STEAL_FIELD:
        return None, None
    ticks = np.array(fields) / os.sysconf("SC_CLK_TCK")
    busy = ticks[:_COUNTED_FIELDS].sum() - ticks[list(_IDLE_FIELDS)].sum()
    return float(busy), float(ticks[_STEAL_FIELD])


def _read_waits(folder: Path) -> dict[str, float]:
    waits: dict[str, float] = {}
    for path in folder.glob("*/schedstat"):
        fields = _numbers(read_system(path))
        if len(fields) >= 2:  # time on a processor, time ready but waiting, both in ns
            waits[path.parent.name] = fields[1] / 1e9
    return waits


def _read_throttle_events(root: Path) -> int | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [value for path in files if (value := _read_number(path)) is not None]
    return int(sum(counts)) if counts else None


def _read_temperature(root: Path) -> float | None:
    files = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    zones = [value / 1e3 for path in files if (value := _read_number(path)) is not None]
    return max(zones, default=None)


def _read_rss_mb(path: Path) -> float | None:
    fields = _numbers(read_system(path))
    return fields[1] * os.sysconf("SC_PAGESIZE") / 1e6 if len(fields) > 1 else None


def _read_number(path: Path) -> float | None:
    fields = _numbers(read_system(path))
    return fields[0] if fields else None


def _numbers(text: str) -> list[float]:
    """Return the numbers of a line; none if anything in it is not one."""
    try:
        return [float(field) for field in text.split()]
    except ValueError:
        return []


def _difference(last: float | None, first: float | None) -> float | None:
    return None if last is None or first is None else last - first
