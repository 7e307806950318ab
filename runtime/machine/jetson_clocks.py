"""The clocks of a Jetson: `jetson_clocks --show`, which needs root, or /sys, which does not."""

import dataclasses
import re
from pathlib import Path

from irstd.files import read_system

_CLOCK = r"MinFreq=(\d{1,12}) MaxFreq=(\d{1,12}) CurrentFreq=(\d{1,12})"
_CORE = re.compile(rf"^[ \t]*cpu\d+: +(?:Online=([01]) +)?Governor=\S+ {_CLOCK}", re.MULTILINE)
_GPU = re.compile(rf"^[ \t]*GPU {_CLOCK}", re.MULTILINE)
_MEMORY = re.compile(rf"^[ \t]*EMC {_CLOCK}(?: FreqOverride=([01]))?", re.MULTILINE)
_CLUSTERS = re.compile(r"^[ \t]*Active GPU TPCs: (\d{1,4})", re.MULTILINE)
_MHZ_PER_HZ = 1e-6
_MHZ_PER_KHZ = 1e-3


@dataclasses.dataclass(frozen=True)
class ClockRange:
    """Where a clock may go, in MHz, and where it is."""

    lowest_mhz: float
    highest_mhz: float
    current_mhz: float

    @property
    def is_fixed(self) -> bool:
        """Whether it cannot change."""
        return self.lowest_mhz == self.highest_mhz


@dataclasses.dataclass(frozen=True)
class Clocks:
    """What was found; what was not is None or empty.

    Attributes:
        cores: Of the processor cores that are on.
        gpu: Of the GPU.
        memory: Of the memory controller.
        memory_is_fixed: It stays at its highest although its range is wider.
        gpu_clusters: Texture processing clusters that the power mode leaves on, two multiprocessors
            each.
    """

    cores: tuple[ClockRange, ...]
    gpu: ClockRange | None
    memory: ClockRange | None = None
    memory_is_fixed: bool | None = None
    gpu_clusters: int | None = None

    @property
    def are_fixed(self) -> bool | None:
        """Whether a timing measured now can be repeated; None where the GPU's is not known."""
        if self.gpu is None:
            return None
        known = [*self.cores, self.gpu]
        return all(clock.is_fixed for clock in known) and self.memory_is_fixed is not False


def parse_jetson_clocks(text: str) -> Clocks | None:
    """Read what `jetson_clocks --show` prints; None where it names no clock.

    From JetPack 7.2 on, cores that are off are not listed and FreqOverride is not stated.
    """
    online = [found for found in _CORE.findall(text) if found[0] != "0"]
    gpu, memory, clusters = _GPU.search(text), _MEMORY.search(text), _CLUSTERS.search(text)
    if not online and gpu is None:
        return None
    emc = _range(memory.groups()[:3], _MHZ_PER_HZ) if memory else None
    return Clocks(
        cores=tuple(_range(found[1:], _MHZ_PER_KHZ) for found in online),
        gpu=_range(gpu.groups(), _MHZ_PER_HZ) if gpu else None,
        memory=emc,
        memory_is_fixed=(memory[4] == "1" or emc.is_fixed) if memory and emc else None,
        gpu_clusters=int(clusters[1]) if clusters else None,
    )


def read_clocks(root: Path = Path("/")) -> Clocks | None:
    """Read the clocks that /sys shows to everybody; None where the GPU's is not among them.

    Args:
        root: Where /sys is found.
    """
    cores = [
        _read_range(folder, ("scaling_min_freq", "scaling_max_freq", "scaling_cur_freq"), 1e-3)
        for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    ]
    # 17000000.ga10b on JetPack 5, 17000000.gpu on JetPack 6, gpu-gpc-0 on Thor.
    gpus = [
        _read_range(folder, ("min_freq", "max_freq", "cur_freq"), _MHZ_PER_HZ)
        for folder in sorted((root / "sys/class/devfreq").glob("*"))
        if re.search(r"gpu|ga10b", folder.name) and "nvd" not in folder.name
    ]
    found = next((gpu for gpu in gpus if gpu), None)
    known = tuple(core for core in cores if core)
    return Clocks(known, found) if found else None


def _range(digits: tuple[str, ...], mhz: float) -> ClockRange:
    lowest, highest, current = (int(value) * mhz for value in digits)
    return ClockRange(lowest, highest, current)


def _read_range(folder: Path, names: tuple[str, ...], mhz: float) -> ClockRange | None:
    values = [read_system(folder / name) for name in names]
    if not all(value.isascii() and value.isdigit() and len(value) <= 12 for value in values):
        return None
    return _range(tuple(values), mhz)
