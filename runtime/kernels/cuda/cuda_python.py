# ruff: noqa: D102  what the methods do is said where Binding is
"""NVIDIA's cuda-python as a binding (bindings.py says what each method does)."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from irstd.errors import DeviceError, one_line
from irstd.runtime.kernels.cuda.bindings import Properties, check_index
from irstd.runtime.kernels.cuda.launch import Launch

# Of cuLaunchKernel's `extra`: the arguments come as one buffer.
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0


class CudaPython:
    """The driver through cuda-python.

    Raises:
        ModuleNotFoundError: It is not installed.
        DeviceError: No driver.
    """

    name = "cuda-python"

    def __init__(self) -> None:
        from cuda.bindings import driver

        self._cuda: Any = driver
        self._call("cuInit", 0)

    def _call(self, function: str, *arguments: object) -> Any:
        """Call the driver and return its result: nothing, one value or a tuple."""
        try:
            status, *values = getattr(self._cuda, function)(*arguments)
        except RuntimeError as error:  # the driver's library is not there
            raise DeviceError(f"no NVIDIA driver: {one_line(error)}") from error
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            _, text = self._cuda.cuGetErrorString(status)
            reason = text.decode() if text else "unknown error"
            raise DeviceError(f"{function}: {reason} ({getattr(status, 'name', status)})")
        return values[0] if len(values) == 1 else tuple(values)

    def driver_version(self) -> int:
        return int(self._call("cuDriverGetVersion"))

    def open(self, index: int) -> object:
        count = self._call("cuDeviceGetCount")
        check_index(index, int(count))
        device = self._call("cuDeviceGet", index)
        context = self._call("cuDevicePrimaryCtxRetain", device)
        self._call("cuCtxSetCurrent", context)
        return device, context

    def close(self, context: Any) -> None:
        device, _ = context
        self._call("cuDevicePrimaryCtxRelease", device)

    @contextmanager
    def current(self, context: Any) -> Iterator[None]:
        self._call("cuCtxPushCurrent", context[1])
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def properties(self, index: int) -> Properties:
        device = self._call("cuDeviceGet", index)

        def attribute(name: str) -> int:
            known = getattr(self._cuda.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(self._call("cuDeviceGetAttribute", known, device))

        return Properties(
            self._call("cuDeviceGetName", 128, device).split(b"\0")[0].decode(),
            10 * attribute("COMPUTE_CAPABILITY_MAJOR") + attribute("COMPUTE_CAPABILITY_MINOR"),
            attribute("MULTIPROCESSOR_COUNT"),
            int(self._call("cuDeviceTotalMem", device)),
            attribute("L2_CACHE_SIZE"),
            bool(attribute("INTEGRATED") and attribute("CAN_MAP_HOST_MEMORY")),
        )

    def free_bytes(self) -> int:
        free, _ = self._call("cuMemGetInfo")
        return int(free)

    def load(self, image: bytes) -> object:
        return self._call("cuModuleLoadData", image)

    def function(self, module: Any, kernel: str) -> object:
        return self._call("cuModuleGetFunction", module, kernel.encode())

    def allow_shared(self, function: Any, nbytes: int) -> None:
        limit = self._cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call("cuFuncSetAttribute", function, limit, nbytes)

    def launch(self, function: Any, launch: Launch, parameters: bytes, stream: int) -> None:
        buffer = ctypes.create_string_buffer(parameters, len(parameters))
        size = ctypes.c_size_t(len(parameters))
        extra = (ctypes.c_void_p * 5)(
            _BUFFER_POINTER, ctypes.addressof(buffer), _BUFFER_SIZE, ctypes.addressof(size), _END
        )
        self._call(
            "cuLaunchKernel", function, *launch.grid, *launch.block, launch.shared_bytes,
            stream, 0, ctypes.addressof(extra),
        )  # fmt: skip

    def allocate(self, nbytes: int) -> int:
        return int(self._call("cuMemAlloc", nbytes))

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def allocate_host(self, nbytes: int) -> int:
        return int(self._call("cuMemHostAlloc", nbytes, self._cuda.CU_MEMHOSTALLOC_DEVICEMAP))

    def free_host(self, address: int) -> None:
        self._call("cuMemFreeHost", address)

    def device_address(self, host: int) -> int:
        return int(self._call("cuMemHostGetDevicePointer", host, 0))

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        self._call("cuMemcpyHtoD", address, array.ctypes.data, array.nbytes)

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        self._call("cuMemcpyDtoH", array.ctypes.data, address, array.nbytes)

    def copy_in_async(self, address: int, host: int, nbytes: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", address, host, nbytes, stream)

    def copy_out_async(self, host: int, address: int, nbytes: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", host, address, nbytes, stream)

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        self._call("cuMemsetD8Async", address, byte, nbytes, stream)

    def stream(self, *, is_apart: bool = False) -> int:
        kinds = self._cuda.CUstream_flags
        kind = kinds.CU_STREAM_NON_BLOCKING if is_apart else kinds.CU_STREAM_DEFAULT
        return int(self._call("cuStreamCreate", int(kind)))

    def free_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def event(self) -> object:
        return self._call("cuEventCreate", 0)

    def record(self, event: Any, stream: int) -> None:
        self._call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        self._call("cuEventSynchronize", stop)
        return float(self._call("cuEventElapsedTime", start, stop))

    def begin_capture(self, stream: int) -> None:
        # What other threads do meanwhile, such as allocating, is none of this recording's business.
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> object:
        recorded = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)

    def launch_graph(self, graph: Any, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def free_graph(self, graph: Any) -> None:
        self._call("cuGraphExecDestroy", graph)
