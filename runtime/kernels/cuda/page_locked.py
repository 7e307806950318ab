"""Arrays in memory of the host that the device reads and writes by itself."""

import ctypes
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from irstd.errors import InputError

if TYPE_CHECKING:
    from irstd.runtime.kernels.cuda.driver import Device, DeviceArray


class HostArray:
    """A C-contiguous array in page-locked memory of the host; `Device.host_array` makes it.

    Copies between it and the device need no staging and run in a stream. Where the device has no
    memory of its own (a Jetson), kernels use it as it is, by `device_address`.

    Attributes:
        array: What the host sees. Reading it after `free`, or after the device is closed, is like
            reading any freed memory.
        nbytes: Its size.
        device_address: Of the first element, for the device.
        free: Call it to free the memory now; twice is fine.
    """

    def __init__(self, device: "Device", shape: Sequence[int], dtype: DTypeLike) -> None:
        wanted = np.dtype(dtype)
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
        if self.nbytes <= 0:
            raise InputError(
                f"a page-locked array {tuple(shape)} {wanted}: wanted at least one element"
            )
        self._device = weakref.ref(device)
        self._address = device.binding.allocate_host(self.nbytes)
        self.free = weakref.finalize(self, device.binding.free_host, self._address)
        self.free.atexit = False  # the context goes, and all its memory
        self.device_address = device.binding.device_address(self._address)
        memory = (ctypes.c_ubyte * self.nbytes).from_address(self._address)
        self.array: NDArray[Any] = np.frombuffer(memoryview(memory), wanted).reshape(tuple(shape))

    def copy_to(self, array: "DeviceArray") -> None:
        """Copy all of it into an array of its size on the device, in the device's stream."""
        if device := self._device():
            device.binding.copy_in_async(array.address, self._address, self.nbytes, device.stream)

    def copy_from(self, array: "DeviceArray") -> None:
        """Fill all of it from an array of its size on the device, in the device's stream."""
        if device := self._device():
            device.binding.copy_out_async(self._address, array.address, self.nbytes, device.stream)
