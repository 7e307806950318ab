"""What was put into a stream once, to be put there again with one call."""

import contextlib
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from irstd.errors import DeviceError

if TYPE_CHECKING:
    from irstd.runtime.kernels.cuda.driver import Device


class Graph:
    """A CUDA graph of fixed addresses and shapes; `Device.capture` makes it.

    Attributes:
        free: Call it to destroy the graph now; twice is fine.
    """

    def __init__(self, device: "Device", put: Callable[[], None]) -> None:
        """Record what `put` puts into the device's stream; nothing of it runs.

        Raises:
            DeviceError: Something in it cannot be recorded, such as an allocation.
        """
        binding, stream = device.binding, device.stream
        binding.begin_capture(stream)
        try:
            put()
        except BaseException:
            # A stream left in recording would refuse everything that comes after.
            with contextlib.suppress(DeviceError):
                binding.free_graph(binding.end_capture(stream))
            raise
        self._graph = binding.end_capture(stream)
        self._device = weakref.ref(device)
        self.free = weakref.finalize(self, binding.free_graph, self._graph)
        self.free.atexit = False  # the context goes, and all that is of it

    def launch(self) -> None:
        """Put all of it into the device's stream."""
        if device := self._device():
            device.binding.launch_graph(self._graph, device.stream)
