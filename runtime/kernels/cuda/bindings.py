"""The two packages that reach NVIDIA's driver from Python, behind one narrow interface.

Streams are the driver's handles as numbers (0 is the default stream), so that torch and others can
be given ours and we theirs; what else is opaque here belongs to the binding. Every failure of the
driver is a DeviceError.
"""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from irstd.errors import DeviceError, MissingDependency
from irstd.runtime.kernels.cuda.launch import Launch


class Properties(NamedTuple):
    """Facts of a GPU."""

    name: str
    architecture: int  # ten times the compute capability
    multiprocessors: int
    memory_bytes: int
    cache_bytes: int  # level 2
    shares_memory: bool  # integrated: the host's memory is its own, as on a Jetson


class Binding(Protocol):
    """What the launch layer needs of the driver, for the device whose context is current."""

    name: str

    def driver_version(self) -> int:
        """Return 13000 for CUDA 13.0."""
        ...

    def open(self, index: int) -> object:
        """Retain the primary context of a device and make it current."""
        ...

    def close(self, context: Any) -> None:
        """Give a context back."""
        ...

    def current(self, context: Any) -> AbstractContextManager[None]:
        """Make a context current in this thread, whichever that is, until the block ends."""
        ...

    def properties(self, index: int) -> Properties:
        """Return the facts of a device."""
        ...

    def free_bytes(self) -> int:
        """Return how much of the device's memory is free."""
        ...

    def load(self, image: bytes) -> object:
        """Load a fat binary or cubin."""
        ...

    def function(self, module: Any, kernel: str) -> object:
        """Find a kernel."""
        ...

    def allow_shared(self, function: Any, nbytes: int) -> None:
        """Raise the limit of dynamic shared memory, which is 48 KiB."""
        ...

    def launch(self, function: Any, launch: Launch, parameters: bytes, stream: int) -> None:
        """Put a kernel into a stream."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Return the address of so much memory, aligned to 256 bytes."""
        ...

    def free(self, address: int) -> None:
        """Give memory back."""
        ...

    def allocate_host(self, nbytes: int) -> int:
        """Return the address of so much page-locked memory, which the device reaches too."""
        ...

    def free_host(self, address: int) -> None:
        """Give page-locked memory back."""
        ...

    def device_address(self, host: int) -> int:
        """Return by which address the device reaches page-locked memory."""
        ...

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """Copy an array to the device, after what is in the default stream."""
        ...

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device into an array, after what is in the default stream."""
        ...

    def copy_in_async(self, address: int, host: int, nbytes: int, stream: int) -> None:
        """Copy page-locked memory to the device, in a stream."""
        ...

    def copy_out_async(self, host: int, address: int, nbytes: int, stream: int) -> None:
        """Copy from the device into page-locked memory, in a stream."""
        ...

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        """Set bytes, in a stream."""
        ...

    def stream(self, *, is_apart: bool = False) -> int:
        """Make a stream; it and the default stream wait for each other unless it is apart."""
        ...

    def free_stream(self, stream: int) -> None:
        """Destroy a stream."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until a stream is empty."""
        ...

    def event(self) -> object:
        """Make an event that takes times."""
        ...

    def record(self, event: Any, stream: int) -> None:
        """Put an event into a stream."""
        ...

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        """Wait for two events and return the time between them."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record what this thread puts into a stream from now on, instead of running it."""
        ...

    def end_capture(self, stream: int) -> object:
        """Stop recording and return a graph that can be launched."""
        ...

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Put a graph into a stream."""
        ...

    def free_graph(self, graph: Any) -> None:
        """Destroy a graph."""
        ...


def find_binding() -> Binding:
    """Return cuda-python, or pycuda where cuda-python is absent or does not load.

    pycuda comes second because it ties a context to the thread that opened it.

    Raises:
        MissingDependency: Neither package is installed.
        DeviceError: There is no driver.
    """
    from irstd.runtime.kernels.cuda.cuda_python import CudaPython
    from irstd.runtime.kernels.cuda.pycuda_binding import Pycuda

    reasons = []
    for make in (CudaPython, Pycuda):
        try:
            return make()
        except ModuleNotFoundError:
            continue
        except DeviceError as error:
            reasons.append(str(error))
    if reasons:
        raise DeviceError("; ".join(reasons))
    raise MissingDependency(
        'neither pycuda nor cuda-python is installed: pip install "irstd-sdk[cuda]", '
        "or pip install cuda-python alone, which needs no compiler"
    )


def check_index(index: int, count: int) -> None:
    """Refuse a device that is not there.

    Raises:
        DeviceError: Names how many there are.
    """
    if not 0 <= index < count:
        raise DeviceError(f"device {index}: this machine has {count} (numbered from 0)")
