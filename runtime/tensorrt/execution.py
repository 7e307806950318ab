"""An engine at work: one context, its buffers, one stream, and the graph that puts all into it."""

import contextlib
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError, DeviceError, one_line
from irstd.runtime.kernels.cuda.driver import Device, DeviceArray
from irstd.runtime.kernels.cuda.graphs import Graph
from irstd.runtime.kernels.cuda.page_locked import HostArray
from irstd.runtime.tensorrt.api import LOG
from irstd.runtime.tensorrt.engine import Engine, Tensor, memory_error, run_error
from irstd.runtime.tensorrt.runtime_cache import RuntimeCache

_log = logging.getLogger(__name__)


class Execution:
    """A context with everything that a frame needs, made before the first one.

    The host writes and reads page-locked arrays. Where the device shares the host's memory the
    engine works on the very same; elsewhere each has a twin on the device, and copies run in the
    stream, before and after the engine. All of that is recorded as one CUDA graph, which a frame
    launches; where it cannot be recorded, a frame puts it into the stream piece by piece.

    Args:
        engine: What runs.
        device: Opened in this thread, and this execution's own.
        cache: Of kernels that the first run compiles; None for a TensorRT that has none.

    Attributes:
        input: Write the image there.
        outputs: Find the results there, in the engine's order; `run` overwrites them.
        memory: How host and device share it, for people.
        launch: How a frame reaches the device, for people, with the reason where it is no graph.

    Raises:
        DeviceError: No memory, or the engine does not run.
        BuildError: TensorRT does not take a buffer.
    """

    def __init__(self, engine: Engine, device: Device, cache: RuntimeCache | None = None) -> None:
        self._device, self._cache = device, cache
        self._engine: Engine | None = engine
        self._graph: Graph | None = None
        self._hosts: list[HostArray] = []
        self._to_device: list[tuple[HostArray, DeviceArray]] = []
        self._to_host: list[tuple[HostArray, DeviceArray]] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.release)
            LOG.clear()
            self._context: Any = self._make_context(engine)
            device.stream = device.new_stream(is_apart=True)
            self.memory = "mapped memory" if device.properties.shares_memory else "pinned memory"
            self.input = self._bind(engine.input, self._to_device)
            self.outputs = tuple(self._bind(tensor, self._to_host) for tensor in engine.outputs)
            self._check_addresses(engine)
            # Before anything is recorded: the first run allocates and, in places, compiles.
            self._put()
            device.synchronize()
            if cache:
                cache.store()
            self.launch = self._record()
            undo.pop_all()

    def run(self) -> None:
        """Turn `input` into `outputs`.

        Raises:
            DeviceError: Something went wrong on the device.
        """
        if self._graph:
            self._graph.launch()
        else:
            self._put()
        self._device.synchronize()

    def release(self) -> None:
        """Free everything, in the order in which it must go; any thread may. Twice is fine."""
        with contextlib.suppress(DeviceError), self._device.current():
            self._graph = self._context = self._cache = None
            self._engine = None  # the last: TensorRT wants an engine to outlive its contexts
        self._device.close()

    def _make_context(self, engine: Engine) -> Any:
        if self._cache:
            context = self._cache.make_context()
        else:
            context = engine.cuda_engine.create_execution_context()
        if context is None:
            free = self._device.free_bytes
            raise memory_error("the engine's activations", engine.memory_bytes(), free)
        return context

    def _bind(
        self, tensor: Tensor, copies: list[tuple[HostArray, DeviceArray]]
    ) -> NDArray[np.float32]:
        """Make the buffers of a tensor, tell the context, and return what the host sees."""
        try:
            self._hosts.append(host := self._device.host_array(tensor.shape, np.float32))
            address = host.device_address
            if not self._device.properties.shares_memory:
                twin = self._device.empty(tensor.shape, np.float32)
                copies.append((host, twin))
                address = twin.address
        except DeviceError as error:
            nbytes = 4 * int(np.prod(tensor.shape, dtype=np.int64))
            free = self._device.free_bytes
            raise memory_error(f"the tensor {tensor.name}", nbytes, free) from error
        if not self._context.set_tensor_address(tensor.name, address):
            raise BuildError(LOG.explain(f"TensorRT refuses the address of {tensor.name}"))
        host.array[...] = 0
        return host.array

    def _check_addresses(self, engine: Engine) -> None:
        """Refuse to run an engine that would write to nowhere."""
        tensors = (engine.input, *engine.outputs)
        lacking = [t.name for t in tensors if not self._context.get_tensor_address(t.name)]
        if lacking:
            raise BuildError(LOG.explain(f"no address for {', '.join(lacking)}"))

    def _put(self) -> None:
        """Put the work of one frame into the stream."""
        for host, twin in self._to_device:
            host.copy_to(twin)
        if not self._context.execute_async_v3(self._device.stream):
            raise run_error("TensorRT cannot run the engine")
        for host, twin in self._to_host:
            host.copy_from(twin)

    def _record(self) -> str:
        """Record the work of one frame; return how frames are launched from now on."""
        try:
            self._graph = self._device.capture(self._put_recordable)
        except DeviceError as error:
            reason = one_line(error)
            _log.warning("no CUDA graph, frames are launched piece by piece: %s", reason)
            # What recording left behind shows here, not in the first frame.
            self.run()
            return f"no CUDA graph: {reason}"
        self.run()
        return "CUDA graph"

    def _put_recordable(self) -> None:
        if self._cache and not self._context.is_stream_capturable(self._device.stream):
            raise DeviceError("TensorRT for RTX says that its work cannot be recorded")
        self._put()
