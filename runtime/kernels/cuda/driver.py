"""The launch layer: a GPU, arrays in its memory, and kernels put into its streams.

    with open_device() as device:
        x, out = device.array(image), device.empty(image.shape, np.float32)
        kernel = device.kernel("haar_gate", "irstd_haar_gate_f32")
        kernel(launch, x, ..., np.int32(height), out)
        result = out.numpy()

`launch` is what the operator's `irstd_<op>_launch` filled. Arguments are arrays on the device,
numpy scalars of the parameters' width, structures of ctypes, and None. The primary context is
used, so that torch and others on the same device share memory and streams: their arrays are
arguments as they are (`__cuda_array_interface__`), and ours are theirs. A Device belongs to the
thread that opened it.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from irstd.errors import DeviceError, InputError, UsageError
from irstd.runtime.kernels.cuda.bindings import Binding, Properties, find_binding
from irstd.runtime.kernels.cuda.graphs import Graph
from irstd.runtime.kernels.cuda.images import Image, image_for
from irstd.runtime.kernels.cuda.launch import Launch, Pointer, pack_arguments
from irstd.runtime.kernels.cuda.page_locked import HostArray

SHARED_BYTES = 48 << 10  # what a block may have without asking
Images = Callable[[str, int, int], Image]


def open_device(
    index: int = 0, binding: Binding | None = None, images: Images = image_for
) -> "Device":
    """Open a GPU.

    Args:
        index: As NVIDIA's driver numbers them.
        binding: What reaches the driver; None takes cuda-python, or pycuda where that is absent.
        images: Compiled form of an operator for an architecture and a driver's version.

    Raises:
        MissingDependency: Neither package is installed.
        DeviceError: No driver, or no such device.
    """
    return Device(binding or find_binding(), index, images)


class Device:
    """A GPU by its primary context; `open_device` makes it.

    Attributes:
        properties: Name, architecture, multiprocessors, sizes of memory and cache.
        driver_version: 13000 for CUDA 13.0.
        stream: The driver's handle of the stream that kernels go to; 0 is the default stream.
    """

    def __init__(self, binding: Binding, index: int, images: Images) -> None:
        self._binding, self._images = binding, images
        self._context = binding.open(index)
        # Also at the end of the program, while the packages underneath are still there.
        self._close = weakref.finalize(self, binding.close, self._context)
        self._thread = threading.get_ident()
        self._modules: dict[str, tuple[Image, object]] = {}
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._owned: weakref.WeakSet[DeviceArray | HostArray | Graph] = weakref.WeakSet()
        self._streams: list[int] = []
        self.properties: Properties = binding.properties(index)
        self.driver_version = binding.driver_version()
        self.stream = 0

    @property
    def binding(self) -> Binding:
        """What reaches the driver.

        Raises:
            UsageError: The device is closed, or another thread's.
        """
        if not self._close.alive:
            raise UsageError("the device is closed; open it again")
        if threading.get_ident() != self._thread:
            raise UsageError(
                "a Device belongs to the thread that opened it; open one in this thread"
            )
        return self._binding

    def close(self) -> None:
        """Free arrays, graphs and streams, and give the context back.

        Twice is fine; another thread may.
        """
        if not self._close.alive:
            return
        # After a fault in a kernel the driver refuses all of this; what there was goes with the
        # process.
        with contextlib.suppress(DeviceError), self.current():
            for owned in list(self._owned):
                owned.free()
            for stream in self._streams:
                self._binding.free_stream(stream)
            self._kernels.clear()
            self._modules.clear()
        with contextlib.suppress(DeviceError):
            self._close()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context current in this thread, whichever that is, for a while."""
        with self._binding.current(self._context):
            yield

    def __enter__(self) -> "Device":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def array(self, array: NDArray[Any]) -> "DeviceArray":
        """Copy an array to the device; it is made contiguous on the way."""
        contiguous = np.ascontiguousarray(array)
        copy = self.empty(contiguous.shape, contiguous.dtype)
        self.binding.copy_in(copy.address, contiguous)
        return copy

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> "DeviceArray":
        """Make an array, aligned to 256 bytes, of whatever the memory holds.

        Raises:
            InputError: It has no element.
            DeviceError: Out of memory.
        """
        array = DeviceArray(self, tuple(shape), np.dtype(dtype))
        self._owned.add(array)
        return array

    def host_array(self, shape: Sequence[int], dtype: DTypeLike) -> HostArray:
        """Make an array in page-locked memory of the host.

        Raises:
            InputError: It has no element.
            DeviceError: Out of memory.
        """
        array = HostArray(self, shape, dtype)
        self._owned.add(array)
        return array

    def capture(self, put: Callable[[], None]) -> Graph:
        """Record what a function puts into the device's stream, without running it.

        Raises:
            DeviceError: The driver cannot record, or something in it cannot be recorded.
        """
        graph = Graph(self, put)
        self._owned.add(graph)
        return graph

    @property
    def free_bytes(self) -> int:
        """How much of the device's memory is free."""
        return self.binding.free_bytes()

    def kernel(self, op: str, name: str) -> "Kernel":
        """Return a kernel of an operator, compiled and loaded when it is first asked for.

        Raises:
            DeviceError: Nothing that is compiled fits the device, or there is no such kernel.
            MissingDependency: No compiler.
            BuildError: It refuses the source.
        """
        if (op, name) not in self._kernels:
            _, module = self._module(op)
            self._kernels[op, name] = Kernel(self, self.binding.function(module, name))
        return self._kernels[op, name]

    def form_of(self, op: str) -> str:
        """Return which compiled form of an operator this device takes: "sm_87 by CUDA 12"."""
        return self._module(op)[0].form

    def _module(self, op: str) -> tuple[Image, object]:
        if op not in self._modules:
            image = self._images(op, self.properties.architecture, self.driver_version)
            self._modules[op] = image, self.binding.load(image.data)
        return self._modules[op]

    def new_stream(self, *, is_apart: bool = False) -> int:
        """Make a stream and return its handle, for `Device.stream`; `close` destroys it.

        Args:
            is_apart: The default stream and this one do not wait for each other, so that what other
                libraries put there disturbs no recording. `DeviceArray.numpy` and `Device.array`
                use the default stream.
        """
        self._streams.append(stream := self.binding.stream(is_apart=is_apart))
        return stream

    def synchronize(self) -> None:
        """Wait for everything in the stream, and raise what went wrong there as DeviceError."""
        self.binding.synchronize(self.stream)

    def time_ms(self, run: Callable[[], None], calls: int = 1) -> float:
        """Return the device's time from before the first to after the last of `calls` runs."""
        start, stop = self.binding.event(), self.binding.event()
        self.binding.record(start, self.stream)
        for _ in range(calls):
            run()
        self.binding.record(stop, self.stream)
        return self.binding.elapsed_ms(start, stop)


class DeviceArray:
    """A C-contiguous array in the memory of a device, freed with its last reference.

    Attributes:
        shape: Of the array.
        dtype: Likewise.
        nbytes: Its size.
        address: Of the first element.
        free: Call it to free the memory now; twice is fine.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self.nbytes <= 0:
            raise InputError(f"an array {shape} {dtype} on a device: wanted at least one element")
        self._device = device
        self.address = device.binding.allocate(self.nbytes)
        self.free = weakref.finalize(self, device.binding.free, self.address)
        self.free.atexit = False  # the context goes, and all its memory

    def numpy(self) -> NDArray[Any]:
        """Wait for the device's stream and return a copy in the memory of the host."""
        result = np.empty(self.shape, self.dtype)
        self._device.synchronize()
        self._device.binding.copy_out(result, self.address)
        return result

    def fill_bytes(self, byte: int) -> None:
        """Set every byte, in the device's stream: 0 is zero, 255 is NaN in float and half."""
        self._device.binding.fill(self.address, byte, self.nbytes, self._device.stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "stream": self._device.stream or 1,  # 1 names the default stream
        }


class Kernel:
    """A function of a loaded module; `Device.kernel` makes it."""

    def __init__(self, device: Device, function: object) -> None:
        self._device, self._function = weakref.ref(device), function
        self._shared_bytes = SHARED_BYTES

    def __call__(self, launch: Launch, *arguments: object) -> None:
        """Put the kernel into the device's stream.

        Raises:
            UsageError: An argument is no array on the device, numpy scalar or None.
            DeviceError: The driver refuses the launch.
        """
        device = self._device()
        if device is None:
            raise UsageError("the device is closed; open it again")
        parameters = pack_arguments([_pointer(argument) for argument in arguments])
        if launch.shared_bytes > self._shared_bytes:
            device.binding.allow_shared(self._function, launch.shared_bytes)
            self._shared_bytes = launch.shared_bytes
        device.binding.launch(self._function, launch, parameters, device.stream)


def _pointer(argument: object) -> object:
    """Return the address of an array, ours or any library's, and anything else as it is."""
    interface = getattr(argument, "__cuda_array_interface__", None)
    if interface is None:
        return argument
    if interface.get("strides") is not None:
        raise InputError(f"an array {interface['shape']} on the device: not contiguous")
    return Pointer(interface["data"][0])
