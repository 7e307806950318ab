"""The doctor's look at a Jetson: its software, power mode, clocks, memory, swap and temperature."""

import re
from collections.abc import Sequence
from pathlib import Path

from irstd.compile.doctor_tensorrt import examine_tensorrt
from irstd.compile.findings import Finding, fine, to_do
from irstd.files import read_system
from irstd.jetpack import jetpack_of
from irstd.runtime.machine.identity import read_l4t
from irstd.runtime.machine.jetson_clocks import Clocks, parse_jetson_clocks, read_clocks
from irstd.runtime.machine.nvpmodel import PowerMode, parse_nvpmodel, parse_power_modes
from irstd.runtime.machine.packages import installed_packages
from irstd.runtime.machine.tegrastats import TegraStats, parse_tegrastats
from irstd.runtime.machine.tools import Ask

OLDEST_TENSORRT = 10
# TensorRT's workspace for one build on a board of 8 GB, and some for the libraries.
NEEDED_FREE_GB = 2.0
# Boards below this have 8 GB or less, which CPU and GPU share.
_LOW_MEMORY_GB = 12.0
# Jetson Linux throttles Orin at a junction temperature of 99 C.
_HOT_C = 90.0
_SWAPFILE = (
    "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && "
    "sudo swapon /swapfile"
)


def examine_jetson(board: str, root: Path, run: Ask) -> list[Finding]:
    """Look at a Jetson board.

    Args:
        board: Its name.
        root: Where /etc, /proc, /sys and /usr are found.
        run: Runs a tool of the system.
    """
    packages = installed_packages(run)
    said = run(["tegrastats", "--interval", "200"], timeout_s=3.0, endless=True)
    stats = parse_tegrastats(said.text)
    release = read_l4t(root)
    jetpack = jetpack_of(".".join(map(str, release))) if release else None
    return [
        fine("board", board),
        _jetpack(release, packages.get("nvidia-jetpack")),
        *examine_tensorrt(root, run, packages, jetpack.cuda if jetpack else None, is_jetson=True),
        _power_mode(root, run),
        _clocks(root, run),
        _memory(_meminfo(root)),
        _swap(root, _meminfo(root)),
        _temperature(stats, said.problem),
    ]


def _jetpack(release: tuple[int, int, int] | None, package: str | None) -> Finding:
    name = "jetpack"
    if release is None:
        return to_do(
            name, "/etc/nv_tegra_release does not say which Jetson Linux this is",
            "in a container: mount it with -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro",
        )  # fmt: skip
    l4t = ".".join(map(str, release))
    known = jetpack_of(l4t)
    if known is None:
        return fine(name, f"Jetson Linux {l4t}, of a JetPack that this SDK does not know")
    found = f"{known.version} (Jetson Linux {l4t}, TensorRT {known.tensorrt}, CUDA {known.cuda})"
    if int(known.tensorrt.split(".")[0]) < OLDEST_TENSORRT:
        return to_do(
            name, f"{found}; TensorRT {OLDEST_TENSORRT} or later is wanted",
            "flash JetPack 6.2 or later with NVIDIA's SDK Manager",
        )  # fmt: skip
    return fine(
        name, f"{found}; {f'package {package}' if package else 'no package nvidia-jetpack'}"
    )


def _power_mode(root: Path, run: Ask) -> Finding:
    name = "power mode"
    answer = run(["nvpmodel", "-q"])
    mode = parse_nvpmodel(answer.text)
    if mode is None:
        if not answer.installed:
            return to_do(name, "nvpmodel is not installed", "sudo apt install nvidia-l4t-nvpmodel")
        return to_do(name, answer.problem or "nvpmodel -q names no mode", "sudo nvpmodel -q")
    best = _fastest(parse_power_modes(read_system(root / "etc/nvpmodel.conf")))
    if mode.is_unlimited or (best is not None and best.name == mode.name):
        return fine(name, f"{mode.name}, the fastest")
    number = "" if best is None else best.number
    fix = f"sudo nvpmodel -m {number}" if best else "sudo nvpmodel -p --verbose; sudo nvpmodel -m N"
    faster = f"; {best.name} is faster" if best else ""
    return to_do(name, f"{mode.name}{faster}", fix)


def _fastest(modes: Sequence[PowerMode]) -> PowerMode | None:
    """Return the mode without a limit, else the one whose name has the most watts."""

    def watts(mode: PowerMode) -> float:
        found = re.search(r"(\d{1,4})W", mode.name)
        return float("inf") if mode.is_unlimited else float(found[1]) if found else 0.0

    return max(modes, key=watts, default=None)


def _clocks(root: Path, run: Ask) -> Finding:
    name = "clocks"
    answer = run(["jetson_clocks", "--show"])
    # It wants root; what everybody may read lacks the memory's clock.
    clocks = parse_jetson_clocks(answer.text) or read_clocks(root)
    if clocks is None:
        if not answer.installed:
            return to_do(
                name, "jetson_clocks is not installed", "sudo apt install nvidia-l4t-tools"
            )
        return to_do(name, answer.problem or "no clock is readable", "sudo jetson_clocks --show")
    if clocks.are_fixed:
        memory = "" if clocks.memory else "; the memory's is for root to see"
        return fine(name, f"fixed, {_gpu_clock(clocks)}{memory}")
    found = f"they change with load, {_gpu_clock(clocks)}: timings differ from run to run"
    return to_do(name, found, "sudo jetson_clocks")


def _gpu_clock(clocks: Clocks) -> str:
    if clocks.gpu is None:
        return "GPU not readable"
    return f"GPU {clocks.gpu.current_mhz:.0f} of {clocks.gpu.highest_mhz:.0f} MHz"


def _memory(sizes_gb: dict[str, float]) -> Finding:
    name = "memory"
    if not {"MemTotal", "MemAvailable"} <= set(sizes_gb):
        return fine(name, "/proc/meminfo is not readable")
    found = f"{sizes_gb['MemAvailable']:.1f} of {sizes_gb['MemTotal']:.1f} GiB free"
    if sizes_gb["MemAvailable"] < NEEDED_FREE_GB:
        return to_do(
            name, f"{found}; building an engine takes about {NEEDED_FREE_GB:.0f}",
            "sudo systemctl isolate multi-user.target (stops the desktop until the next start)",
        )  # fmt: skip
    return fine(name, found)


def _swap(root: Path, sizes_gb: dict[str, float]) -> Finding:
    name = "swap"
    rows = [line.split() for line in read_system(root / "proc/swaps").splitlines()[1:]]
    real = [row[0] for row in rows if len(row) >= 3 and "zram" not in row[0]]
    total = sizes_gb.get("SwapTotal", 0.0)
    if real or sizes_gb.get("MemTotal", 0.0) >= _LOW_MEMORY_GB:
        return fine(name, f"{total:.1f} GiB" + (f" in {', '.join(real)}" if real else ""))
    what = f"{total:.1f} GiB in memory itself (zram)" if rows else "none"
    return to_do(name, f"{what}; building on a board of 8 GB or less may need some", _SWAPFILE)


def _temperature(stats: TegraStats | None, problem: str | None) -> Finding:
    name = "temperature"
    if stats is None:
        return to_do(
            name, problem or "tegrastats prints nothing that is known",
            "sudo apt install nvidia-l4t-tools; tegrastats",
        )  # fmt: skip
    hottest = stats.temperatures_c.get("tj", max(stats.temperatures_c.values(), default=None))
    if hottest is None:
        return fine(name, "no zone is readable")
    found = f"{hottest:.0f} C at the hottest"
    if hottest >= _HOT_C:
        return to_do(name, f"{found}: it will slow down", "sudo jetson_clocks --fan")
    return fine(name, found)


def _meminfo(root: Path) -> dict[str, float]:
    rows = re.findall(r"^(\w+): +(\d{1,15}) kB$", read_system(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kib) / (1 << 20) for name, kib in rows}
