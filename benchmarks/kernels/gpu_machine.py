"""A real GPU for `gpu_suite`: our kernels through the launch layer, its clock, and a copy."""

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.cases import Array, Case, result_dtype
from irstd.benchmarks.kernels.gpu_peers import Candidate
from irstd.benchmarks.kernels.gpu_report import OURS, Report
from irstd.benchmarks.kernels.gpu_timing import Run
from irstd.runtime.kernels.compiling import compiled
from irstd.runtime.kernels.cuda.driver import Device, DeviceArray, open_device
from irstd.runtime.kernels.cuda.images import CUDA_13, Image, image_for
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.kernels.cuda.nvrtc import Nvrtc
from irstd.runtime.kernels.cuda.toolchain import find_nvcc, find_nvrtc
from irstd.runtime.kernels.haar_gate.cuda import HaarGate
from irstd.runtime.kernels.ms_deform_attn.cuda import MsDeformAttn, Number
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes
from irstd.runtime.kernels.spectral_split.cuda import SpectralSplit

COPY_SOURCE = Path(__file__).with_name("copy.cu")
COPY = "copy"  # beside the operators
_COPY_THREADS = 256
_COPY_BLOCKS = 16  # for each multiprocessor
_OCCUPY_MS = 3.0  # longer than Python takes to launch what is timed behind it
_LEAST_SCRATCH_BYTES = 256 << 20
_NUMBERS = {"float16": Number.F16, "float32": Number.F32, "uint8": Number.U8}


class CudaMachine:
    """A GPU.

    Attributes:
        stream: Handle of the stream that everything is timed in.
    """

    def __init__(self, device: Device | None = None) -> None:
        """Take a device, or open the first.

        Raises:
            MissingDependency: No package that reaches the driver.
            DeviceError: No driver, or no GPU.
        """
        self._device = device or open_device(images=image_of)
        self.stream = self._device.stream = self._device.new_stream()
        cache_bytes = self._device.properties.cache_bytes
        self._scratch = self._device.empty((max(_LEAST_SCRATCH_BYTES, 4 * cache_bytes),), np.uint8)
        self._scratch.fill_bytes(0)
        self._device.synchronize()
        fill_ms = self._device.time_ms(lambda: self._scratch.fill_bytes(0))
        self._fills = 1 + int(_OCCUPY_MS / max(fill_ms, 1e-3))

    def facts(self) -> Report:
        """Return what the driver says of the GPU, and its own version."""
        properties, driver = self._device.properties, self._device.driver_version
        return {
            "name": properties.name,
            "compute_capability": f"{properties.architecture // 10}.{properties.architecture % 10}",
            "multiprocessors": properties.multiprocessors,
            "memory_bytes": properties.memory_bytes,
            "cache_bytes": properties.cache_bytes,
            "driver_cuda": f"{driver // 1000}.{driver % 1000 // 10}",
            "binding": self._device.binding.name,
        }

    def prepare(self, op: str) -> Report:
        """Compile and load an operator."""
        return {"form": self._device.form_of(op)}

    def occupy(self) -> None:
        """Overwrite memory, more than the cache holds, for longer than Python takes to launch."""
        for _ in range(self._fills):
            self._scratch.fill_bytes(0)

    def time_ms(self, run: Run, calls: int) -> float:
        """Return the time between two events around the calls."""
        return self._device.time_ms(run, calls)

    def copy(self, nbytes: int) -> Run:
        """Return a copy from one array to another."""
        source = self._device.empty((nbytes // 16, 4), np.uint32)
        target = self._device.empty(source.shape, source.dtype)
        kernel = self._device.kernel(COPY, "irstd_copy")
        blocks = _COPY_BLOCKS * self._device.properties.multiprocessors
        launch = Launch((ctypes.c_uint * 3)(blocks, 1, 1), (ctypes.c_uint * 3)(_COPY_THREADS, 1, 1))
        return lambda: kernel(launch, source, np.uint64(nbytes // 16), target)

    def candidate(self, case: Case, arrays: Mapping[str, Array]) -> Candidate:
        """Return our kernels for a case, its arrays on the device already."""
        on_device = {name: self._device.array(array) for name, array in arrays.items()}
        run, out = _MAKERS[case.op](self._device, case, arrays, on_device)
        out.fill_bytes(0xFF)  # NaN, where a kernel forgets to write
        return Candidate(OURS, run, out.numpy)


Made = tuple[Run, DeviceArray]


def _map_operator(
    device: Device, case: Case, arrays: Mapping[str, Array], on_device: Mapping[str, DeviceArray]
) -> Made:
    dtype = result_dtype(case)
    out = device.empty(case.size, dtype)
    call = _MAP_OPERATORS[case.op](device, case.size, dtype)
    return lambda: call(**on_device, out=out), out


def _ms_deform_attn(
    device: Device, case: Case, arrays: Mapping[str, Array], on_device: Mapping[str, DeviceArray]
) -> Made:
    dtype = result_dtype(case)
    given: Mapping[str, Any] = arrays
    shapes = Shapes.of(
        given["value"], given["offsets"], given["logits"], given.get("reference_points"),
        case.keywords["level_hw"], case.keywords["query_hw"], dtype,
    )  # fmt: skip
    out = device.empty(shapes.out, dtype)
    call = MsDeformAttn(
        device, shapes, _NUMBERS[case.precision], has_reference_points=case.explicit
    )
    return lambda: call(**on_device, out=out), out


_MAP_OPERATORS: dict[str, Callable[..., Any]] = {
    "haar_gate": HaarGate,
    "spectral_split": SpectralSplit,
}
_MAKERS: dict[
    str, Callable[[Device, Case, Mapping[str, Array], Mapping[str, DeviceArray]], Made]
] = {
    "haar_gate": _map_operator,
    "ms_deform_attn": _ms_deform_attn,
    "spectral_split": _map_operator,
}


def image_of(op: str, architecture: int, driver_version: int) -> Image:
    """Return the compiled form of an operator, or of the copy."""
    if op != COPY:
        return image_for(op, architecture, driver_version)
    form = f"sm_{architecture} by CUDA {driver_version // 1000}"
    if driver_version < CUDA_13:
        library, include = find_nvrtc()
        options = ["-std=c++17", f"-arch=sm_{architecture}", f"-I{include}"]
        return Image(Nvrtc(library).cubin(COPY_SOURCE, options), form)
    made, _ = compiled([*find_nvcc(), "-cubin", f"-arch=sm_{architecture}", str(COPY_SOURCE)])
    return Image(made, form)
