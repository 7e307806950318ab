"""The two packages that reach NVIDIA's driver from Python, behind one narrow interface.

Streams are the driver's handles as numbers (0 is the default stream), so that torch and others can
be given ours and we theirs; what else is opaque here belongs to the binding. Every failure of the
driver is a DeviceError.
"""

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

    def properties(self, index: int) -> Properties:
        """Return the facts of a device."""
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

    def copy_in(self, address: int, array: NDArray[Any]) -> None:
        """Copy an array to the device, after what is in the default stream."""
        ...

    def copy_out(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device into an array, after what is in the default stream."""
        ...

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        """Set bytes, in a stream."""
        ...

    def stream(self) -> int:
        """Make a stream, which the default stream waits for."""
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


def find_binding() -> Binding:
    """Return pycuda, or cuda-python where pycuda is absent or does not load.

    Raises:
        MissingDependency: Neither package is installed.
        DeviceError: There is no driver.
    """
    from irstd.runtime.kernels.cuda.cuda_python import CudaPython
    from irstd.runtime.kernels.cuda.pycuda_binding import Pycuda

    reasons = []
    for make in (Pycuda, CudaPython):
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
