"""Which device this is: what an engine is built for, and held against when it is opened."""

import re
from pathlib import Path

from irstd.engine_record import EngineDevice
from irstd.errors import DeviceError
from irstd.files import read_system
from irstd.runtime.kernels.cuda.bindings import Binding, Properties, find_binding
from irstd.runtime.machine.nvidia_smi import query_gpus
from irstd.runtime.machine.packages import parse_l4t_release
from irstd.runtime.machine.tools import Ask, ask
from irstd.runtime.tensorrt.api import load_tensorrt, version_of

_MODULE = re.compile(r"(?:Kernel Module(?: for \w+)?\s+)?(\d{2,4}\.\d+(?:\.\d+)*)\b")


def this_device(
    binding: Binding | None = None, root: Path = Path("/"), index: int = 0
) -> tuple[EngineDevice, Properties]:
    """Return what an engine that is built here is for, and the facts of the GPU.

    Args:
        binding: What reaches the driver; None takes pycuda or cuda-python.
        root: Where /etc, /proc and /sys are found.
        index: Of the GPU.

    Raises:
        MissingDependency: No TensorRT that can be used, or neither pycuda nor cuda-python.
        DeviceError: No driver, or no such GPU.
    """
    return device_with(f"TensorRT {version_of(load_tensorrt())}", binding, root, index)


def device_with(
    library: str, binding: Binding | None = None, root: Path = Path("/"), index: int = 0
) -> tuple[EngineDevice, Properties]:
    """Return what `this_device` does, for an engine of another library.

    Args:
        library: Name and version.
        binding: What reaches the driver; None takes pycuda or cuda-python.
        root: Where /etc, /proc and /sys are found.
        index: Of the GPU.

    Raises:
        MissingDependency: Neither pycuda nor cuda-python.
        DeviceError: No driver, or no such GPU.
    """
    binding = binding or find_binding()
    properties = binding.properties(index)
    device = EngineDevice(
        library=library,
        cuda_major=binding.driver_version() // 1000,
        gpu=properties.name,
        board=read_board(root) or "",
        architecture=properties.architecture,
        multiprocessors=properties.multiprocessors,
        driver=read_driver(root),
    )
    return device, properties


def read_board(root: Path = Path("/")) -> str | None:
    """Return the name of a Jetson's board; None off boards.

    The device tree of a PC on Arm names a board too, so what is not NVIDIA's counts only with
    NVIDIA's release file.
    """
    model = read_system(root / "proc/device-tree/model")
    is_jetson = "Jetson" in model or (root / "etc/nv_tegra_release").is_file()
    return (model or "NVIDIA Jetson") if is_jetson else None


def read_l4t(root: Path = Path("/")) -> tuple[int, int, int] | None:
    """Return the release of Jetson Linux, such as (36, 4, 3); None where there is none."""
    return parse_l4t_release(read_system(root / "etc/nv_tegra_release"))


def read_driver(root: Path = Path("/"), run: Ask = ask) -> str:
    """Return the version of the driver: the release of Jetson Linux, else of the kernel module.

    Two releases of Jetson Linux can share one module's version, though not one driver. Under
    Windows (WSL 2) the module is not Linux's, and nvidia-smi alone knows.

    Raises:
        DeviceError: Neither is stated: there is no driver.
    """
    if release := read_l4t(root):
        return "L4T " + ".".join(map(str, release))
    for file in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        if found := _MODULE.search(read_system(root / file)):
            return found[1]
    for gpu in query_gpus(run)[0]:
        if gpu.driver_version:
            return gpu.driver_version
    raise DeviceError(
        "no NVIDIA driver is loaded: neither /etc/nv_tegra_release nor /sys/module/nvidia/version, "
        "and nvidia-smi names no GPU; see irstd-compile doctor"
    )
