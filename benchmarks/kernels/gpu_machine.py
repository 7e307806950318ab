"""A real GPU for `gpu_suite`: our kernels through the launch layer, its clock, and a copy."""

import ctypes
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irstd.benchmarks.kernels.gpu_cases import Array, Case, result_dtype
from irstd.benchmarks.kernels.gpu_peers import Candidate
from irstd.benchmarks.kernels.gpu_report import OURS, Report
from irstd.benchmarks.kernels.gpu_timing import Run
from irstd.runtime.kernels.cpu_library import compile_with, cpu_library
from irstd.runtime.kernels.cuda.driver import Device, DeviceArray, open_device
from irstd.runtime.kernels.cuda.images import CUDA_13, Image, image_for
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.kernels.cuda.nvrtc import Nvrtc
from irstd.runtime.kernels.cuda.toolchain import find_nvcc, find_nvrtc
from irstd.runtime.kernels.ms_deform_attn.cuda import MsDeformAttn, Number
from irstd.runtime.kernels.ms_deform_attn.shapes import Shapes

COPY_SOURCE = Path(__file__).with_name("copy.cu")
COPY = "copy"  # beside the operators
_COPY_THREADS = 256
_COPY_BLOCKS = 16  # for each multiprocessor
_OCCUPY_MS = 3.0  # longer than Python takes to launch what is timed behind it
_LEAST_SCRATCH_BYTES = 256 << 20
_MOST_LAUNCHES = 4
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


def _haar_gate(
    device: Device, case: Case, arrays: Mapping[str, Array], on_device: Mapping[str, DeviceArray]
) -> Made:
    images, channels, height, width = case.size
    out = device.empty(case.size, result_dtype(case))
    launch, segment_rows = Launch(), ctypes.c_int()
    cpu_library().irstd_haar_gate_launch(
        images, height, width, out.dtype.itemsize, device.properties.multiprocessors,
        ctypes.byref(launch), ctypes.byref(segment_rows),
    )  # fmt: skip
    kernel = device.kernel(case.op, f"irstd_haar_gate_{_kind(case)}")
    x, weight, bias = (on_device[name] for name in ("x", "weight", "bias"))
    sizes = np.array([channels, height, width, segment_rows.value], np.int32)
    return lambda: kernel(launch, x, weight, bias, *sizes, out), out


def _spectral_split(
    device: Device, case: Case, arrays: Mapping[str, Array], on_device: Mapping[str, DeviceArray]
) -> Made:
    images, channels, height, width = case.size
    low, out = (device.empty(case.size, result_dtype(case)) for _ in range(2))
    launches, segment_rows = (Launch * _MOST_LAUNCHES)(), ctypes.c_int()
    count = cpu_library().irstd_spectral_split_launch(
        images, channels, height, width, out.dtype.itemsize, device.properties.multiprocessors,
        launches, ctypes.byref(segment_rows),
    )  # fmt: skip
    x, cutoff = on_device["x"], on_device["cutoff"]
    weights = [on_device[name] for name in ("gate_weight", "gate_bias", "gamma")]
    hw = np.array([height, width], np.int32)
    chw = np.array([channels, height, width], np.int32)
    steps: dict[str, tuple[Any, ...]] = (
        {"whole": (x, cutoff, *chw, low)}
        if count == 2
        else {"rows": (x, *hw, low), "columns": (cutoff, *chw, low), "rows_back": (x, *hw, low)}
    )
    steps["gate"] = (x, low, *weights, *chw, np.int32(segment_rows.value), out)
    kernels = [device.kernel(case.op, f"irstd_spectral_split_{s}_{_kind(case)}") for s in steps]

    def run() -> None:
        for kernel, launch, arguments in zip(kernels, launches, steps.values(), strict=False):
            kernel(launch, *arguments)

    return run, out


def _ms_deform_attn(
    device: Device, case: Case, arrays: Mapping[str, Array], on_device: Mapping[str, DeviceArray]
) -> Made:
    shapes = Shapes.of(
        arrays["value"], arrays["offsets"], arrays["logits"], arrays.get("reference_points"),
        case.keywords["level_hw"], case.keywords["query_hw"], result_dtype(case),
    )  # fmt: skip
    attend = MsDeformAttn(
        device, shapes, _NUMBERS[case.precision], has_reference_points=case.explicit
    )
    out = device.empty(shapes.out, result_dtype(case))
    named = dict(on_device)
    value, offsets, logits = (named.pop(name) for name in ("value", "offsets", "logits"))
    return lambda: attend(value, offsets, logits, out, **named), out


_MAKERS: dict[
    str, Callable[[Device, Case, Mapping[str, Array], Mapping[str, DeviceArray]], Made]
] = {
    "haar_gate": _haar_gate,
    "ms_deform_attn": _ms_deform_attn,
    "spectral_split": _spectral_split,
}


def _kind(case: Case) -> str:
    return "f32" if case.precision == "float32" else "f16"


def image_of(op: str, architecture: int, driver_version: int) -> Image:
    """Return the compiled form of an operator, or of the copy."""
    if op != COPY:
        return image_for(op, architecture, driver_version)
    form = f"sm_{architecture} by CUDA {driver_version // 1000}"
    if driver_version < CUDA_13:
        library, include = find_nvrtc()
        options = ["-std=c++17", f"-arch=sm_{architecture}", f"-I{include}"]
        return Image(Nvrtc(library).cubin(COPY_SOURCE, options), form)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.cubin"
        target = ["-cubin", f"-arch=sm_{architecture}", "-o", str(path)]
        compile_with([*find_nvcc(), *target, str(COPY_SOURCE)])
        return Image(path.read_bytes(), form)
