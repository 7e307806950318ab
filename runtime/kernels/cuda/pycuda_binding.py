# ruff: noqa: D102  what the methods do is said where Binding is
"""pycuda as a binding (bindings.py says what each method does)."""

import atexit
import contextlib
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import DeviceError, one_line
from irstd.runtime.kernels.cuda.bindings import Properties, check_index
from irstd.runtime.kernels.cuda.driver_graphs import DriverGraphs
from irstd.runtime.kernels.cuda.launch import Launch

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h, which pycuda does not name


class _Pushed:
    """The contexts that a thread has pushed and not popped, which are popped when it ends.

    pycuda ends the process where a thread, or the program, ends and leaves one; and a device that
    another thread has closed leaves one, because nobody reaches the stack of another thread.
    """

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        if threading.current_thread() is threading.main_thread():
            atexit.register(self.__del__)

    def __del__(self) -> None:
        while self.contexts:
            with contextlib.suppress(Exception):  # pycuda itself drops those of closed devices
                self.contexts.pop().pop()


class Pycuda:
    """The driver through pycuda, which frees what its objects hold: they are kept here by address.

    Raises:
        ModuleNotFoundError: It is not installed.
        DeviceError: No driver.
    """

    name = "pycuda"

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda
        except ModuleNotFoundError:
            raise
        except ImportError as error:  # it is linked with the driver's library
            raise DeviceError(f"pycuda finds no NVIDIA driver: {one_line(error)}") from error
        self._cuda: Any = cuda
        self._memory: dict[int, Any] = {}
        self._host: dict[int, Any] = {}  # arrays of bytes, which hold the memory as their base
        self._streams: dict[int, Any] = {0: None}
        self._of_thread = threading.local()
        with self._checked():
            cuda.init()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            raise DeviceError(one_line(error)) from error

    def driver_version(self) -> int:
        return int(self._cuda.get_driver_version())

    def open(self, index: int) -> object:
        with self._checked():
            check_index(index, self._cuda.Device.count())
            context = self._cuda.Device(index).retain_primary_context()
            context.push()
        self._pushed.append(context)
        return context

    def close(self, context: Any) -> None:
        with self._checked():
            if context in self._pushed:
                # Devices are closed in any order; a stack gives back its top alone.
                above = self._pushed[self._pushed.index(context) + 1 :]
                for _ in (context, *above):
                    context.pop()
                for other in above:
                    other.push()
                self._pushed.remove(context)
            context.detach()

    @property
    def _pushed(self) -> list[Any]:
        if not hasattr(self._of_thread, "pushed"):
            self._of_thread.pushed = _Pushed()
        contexts: list[Any] = self._of_thread.pushed.contexts
        return contexts

    @contextmanager
    def current(self, context: Any) -> Iterator[None]:
        with self._checked():
            context.push()
        try:
            yield
        finally:
            with self._checked():
                context.pop()

    def properties(self, index: int) -> Properties:
        known = self._cuda.device_attribute
        with self._checked():
            device = self._cuda.Device(index)
            major = device.get_attribute(known.COMPUTE_CAPABILITY_MAJOR)
            minor = device.get_attribute(known.COMPUTE_CAPABILITY_MINOR)
            return Properties(
                device.name(),
                10 * major + minor,
                device.get_attribute(known.MULTIPROCESSOR_COUNT),
                device.total_memory(),
                device.get_attribute(known.L2_CACHE_SIZE),
                bool(
                    device.get_attribute(known.INTEGRATED)
                    and device.get_attribute(known.CAN_MAP_HOST_MEMORY)
                ),
            )

    def free_bytes(self) -> int:
        with self._checked():
            free, _ = self._cuda.mem_get_info()
        return int(free)

    def load(self, image: bytes) -> object:
        with self._checked():
            return self._cuda.module_from_buffer(image)

    def function(self, module: Any, kernel: str) -> object:
        with self._checked():
            return module.get_function(kernel)

    def allow_shared(self, function: Any, nbytes: int) -> None:
        limit = self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
        with self._checked():
            function.set_attribute(limit, nbytes)

    def launch(self, function: Any, launch: Launch, parameters: bytes, stream: int) -> None:
        with self._checked():
            function(
                np.void(parameters),  # taken as it is
                grid=tuple(launch.grid),
                block=tuple(launch.block),
                shared=launch.shared_bytes,
                stream=self._stream(stream),
            )

    def allocate(self, nbytes: int) -> int:
        with self._checked():
            allocation = self._cuda.mem_alloc(nbytes)
        address = int(allocation)
        self._memory[address] = allocation
        return address

    def free(self, address: int) -> None:
        with self._checked():
            self._memory.pop(address).free()

    def allocate_host(self, nbytes: int) -> int:
        flags = self._cuda.host_alloc_flags.DEVICEMAP
        with self._checked():
            array = self._cuda.pagelocked_empty((nbytes,), np.uint8, mem_flags=flags)
        self._host[array.ctypes.data] = array
        return int(array.ctypes.data)

    def free_host(self, address: int) -> None:
        with self._checked():
            self._host.pop(address).base.free()

    def device_address(self, host: int) -> int:
        with self._checked():
            return int(self._host[host].base.get_device_pointer())

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        with self._checked():
            self._cuda.memcpy_htod(address, array)

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        with self._checked():
            self._cuda.memcpy_dtoh(array, address)

    def copy_in_async(self, address: int, host: int, nbytes: int, stream: int) -> None:
        with self._checked():
            self._cuda.memcpy_htod_async(address, self._host[host][:nbytes], self._stream(stream))

    def copy_out_async(self, host: int, address: int, nbytes: int, stream: int) -> None:
        with self._checked():
            self._cuda.memcpy_dtoh_async(self._host[host][:nbytes], address, self._stream(stream))

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        with self._checked():
            self._cuda.memset_d8_async(address, byte, nbytes, self._stream(stream))

    def stream(self, *, is_apart: bool = False) -> int:
        with self._checked():
            stream = self._cuda.Stream(_NON_BLOCKING if is_apart else 0)
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def free_stream(self, stream: int) -> None:
        del self._streams[stream]  # the last reference: pycuda destroys it

    def synchronize(self, stream: int) -> None:
        with self._checked():
            if stream:
                self._stream(stream).synchronize()
            else:
                self._cuda.Context.synchronize()

    def event(self) -> object:
        with self._checked():
            return self._cuda.Event()

    def record(self, event: Any, stream: int) -> None:
        with self._checked():
            event.record(self._stream(stream))

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        with self._checked():
            stop.synchronize()
            return float(start.time_till(stop))

    def begin_capture(self, stream: int) -> None:
        self._driver_graphs.begin_capture(stream)

    def end_capture(self, stream: int) -> object:
        return self._driver_graphs.end_capture(stream)

    def launch_graph(self, graph: Any, stream: int) -> None:
        self._driver_graphs.launch(graph, stream)

    def free_graph(self, graph: Any) -> None:
        self._driver_graphs.free(graph)

    @functools.cached_property
    def _driver_graphs(self) -> DriverGraphs:
        return DriverGraphs()

    def _stream(self, handle: int) -> Any:
        if handle not in self._streams:
            raise DeviceError(
                f"stream {handle:#x} is another library's, which pycuda cannot use; "
                "pip uninstall pycuda && pip install cuda-python"
            )
        return self._streams[handle]
