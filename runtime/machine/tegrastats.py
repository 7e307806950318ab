"""One line of tegrastats: memory, load and clocks, temperatures, power of a Jetson.

The fields differ from board to board and from release to release: JetPack 4 gives no units to
power, JetPack 7.2 a second and third number (the highest so far) to temperatures and power, and
Thor no GPU load.
"""

import dataclasses
import re
from collections.abc import Mapping

_RAM = re.compile(r"\bRAM (\d{1,9})/(\d{1,9})MB(?: \(lfb (\d{1,9})x(\d{1,9})(MB|kB)\))?")
_SWAP = re.compile(r"\bSWAP (\d{1,9})/(\d{1,9})MB")
_CPU = re.compile(r"\bCPU \[([^\]]{0,4096})\]")
_CORE = re.compile(r"(\d{1,3})%@(\d{1,6})")
_GPU = re.compile(r"\bGR3D_FREQ (?:(\d{1,3})%)? ?(?:@\[?([\d,]{1,64})\]?)?")
_MEMORY_CLOCK = re.compile(r"\bEMC_FREQ (\d{1,3})%(?:@(\d{1,6}))?")
_TEMPERATURE = re.compile(r"\b([A-Za-z][A-Za-z0-9_]{0,31})@(-?\d{1,3}(?:\.\d{1,6})?)C\b")
_POWER = re.compile(r"\b(V[A-Z0-9_]{1,31}|POM_[A-Z0-9_]{1,31}) (-?\d{1,7})(?:mW)?/-?\d{1,7}")
_ABSENT_C = -200.0  # what powered-down zones read: -256


@dataclasses.dataclass(frozen=True)
class TegraStats:
    """One sample.

    Attributes:
        ram_used_mb: Memory in use, 2**20 bytes; GPU and CPU share it.
        ram_total_mb: Memory there is.
        largest_blocks_mb: Memory in the largest free blocks; None where not stated. TensorRT can
            fail to allocate although more than that is free.
        swap_used_mb: None on a board without swap.
        swap_total_mb: None on a board without swap.
        core_loads_percent: Load of each processor core, None for one that is off.
        core_clocks_mhz: Clock of each core, None for one that is off.
        gpu_load_percent: None where not stated, as on Thor.
        gpu_clocks_mhz: Of each cluster; empty where not stated.
        memory_clock_mhz: None where not stated: without root before JetPack 7.
        temperatures_c: By zone, lower-case names.
        power_mw: By rail, at this instant.
    """

    ram_used_mb: int
    ram_total_mb: int
    largest_blocks_mb: int | None
    swap_used_mb: int | None
    swap_total_mb: int | None
    core_loads_percent: tuple[int | None, ...]
    core_clocks_mhz: tuple[int | None, ...]
    gpu_load_percent: int | None
    gpu_clocks_mhz: tuple[int, ...]
    memory_clock_mhz: int | None
    temperatures_c: Mapping[str, float]
    power_mw: Mapping[str, int]


def parse_tegrastats(text: str) -> TegraStats | None:
    """Read the last whole line of tegrastats; None where no line is one.

    Args:
        text: What it printed; the last line may be cut, since the tool has to be killed.
    """
    whole = text if text.endswith("\n") else text.rpartition("\n")[0] or text
    line = next((line for line in reversed(whole.splitlines()) if _RAM.search(line)), None)
    if line is None:
        return None
    ram = _RAM.search(line)
    swap, gpu, memory = _SWAP.search(line), _GPU.search(line), _MEMORY_CLOCK.search(line)
    if ram is None:
        return None
    cores = _cores(line)
    clocks = [clock for clock in (gpu[2] or "").split(",") if clock] if gpu else []
    temperatures = {name.lower(): float(value) for name, value in _TEMPERATURE.findall(line)}
    return TegraStats(
        ram_used_mb=int(ram[1]),
        ram_total_mb=int(ram[2]),
        largest_blocks_mb=_blocks(ram),
        swap_used_mb=int(swap[1]) if swap else None,
        swap_total_mb=int(swap[2]) if swap else None,
        core_loads_percent=tuple(core and core[0] for core in cores),
        core_clocks_mhz=tuple(core and core[1] for core in cores),
        gpu_load_percent=int(gpu[1]) if gpu and gpu[1] else None,
        gpu_clocks_mhz=tuple(map(int, clocks)),
        memory_clock_mhz=int(memory[2]) if memory and memory[2] else None,
        temperatures_c={name: c for name, c in temperatures.items() if c > _ABSENT_C},
        power_mw={name: int(value) for name, value in _POWER.findall(line)},
    )


def _blocks(ram: re.Match[str]) -> int | None:
    if ram[3] is None:
        return None
    size = int(ram[3]) * int(ram[4])
    return size if ram[5] == "MB" else size >> 10


def _cores(line: str) -> list[tuple[int, int] | None]:
    found = _CPU.search(line)
    entries = found[1].split(",") if found else []
    cores = [_CORE.fullmatch(entry.strip()) for entry in entries]
    return [(int(core[1]), int(core[2])) if core else None for core in cores]
