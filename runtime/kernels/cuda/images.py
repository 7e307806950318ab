"""Which of a kernel's compiled forms a device takes."""

from dataclasses import dataclass

from irstd.errors import DeviceError
from irstd.runtime.kernels.cuda.compiler import (
    ARCHITECTURES,
    CUDA_12_ARCHITECTURES,
    PTX_ARCHITECTURE,
    build_cubins,
    build_fatbin,
)

CUDA_13, CUDA_12 = 13000, 12000  # as drivers count


@dataclass(frozen=True)
class Image:
    """What a driver loads.

    Attributes:
        data: A fat binary or a cubin.
        form: "sm_87 by CUDA 12", or "PTX for compute_86 by CUDA 13", which the driver compiles.
    """

    data: bytes
    form: str


def image_for(op: str, architecture: int, driver_version: int) -> Image:
    """Compile an operator for a device, or find it in the cache.

    Args:
        op: A folder of `runtime/kernels` with an `<op>.cu`.
        architecture: Ten times the compute capability of the device.
        driver_version: 13000 for a driver of CUDA 13.0, which takes what nvcc 13 makes; 12060 for
            one of CUDA 12.6 (JetPack 6), which takes only what CUDA 12 makes.

    Raises:
        DeviceError: Nothing that is compiled fits; says what there is.
        MissingDependency: No compiler.
        BuildError: It refuses the source.
    """
    if driver_version >= CUDA_13:
        if architecture in ARCHITECTURES:
            return Image(build_fatbin(op).read_bytes(), f"sm_{architecture} by CUDA 13")
        if architecture > PTX_ARCHITECTURE:
            form = f"PTX for compute_{PTX_ARCHITECTURE} by CUDA 13"
            return Image(build_fatbin(op).read_bytes(), form)
        raise DeviceError(
            f"{op}: this device is sm_{architecture}; compiled are {_list(ARCHITECTURES)} and PTX "
            f"for compute_{PTX_ARCHITECTURE} and later"
        )
    if driver_version < CUDA_12:
        raise DeviceError(
            f"{op}: the driver is of CUDA {_release(driver_version)}; wanted 12.6 or later"
        )
    if architecture in CUDA_12_ARCHITECTURES:
        path = build_cubins(op, (architecture,))[architecture]
        return Image(path.read_bytes(), f"sm_{architecture} by CUDA 12")
    raise DeviceError(
        f"{op}: this device is sm_{architecture}, its driver of CUDA {_release(driver_version)}; "
        f"compiled for CUDA 12 are {_list(CUDA_12_ARCHITECTURES)}; update the driver to CUDA 13 "
        f"for {_list(ARCHITECTURES)} and PTX for compute_{PTX_ARCHITECTURE}"
    )


def _list(architectures: tuple[int, ...]) -> str:
    return "sm_" + ", ".join(map(str, architectures))


def _release(driver_version: int) -> str:
    return f"{driver_version // 1000}.{driver_version % 1000 // 10}"
