"""Engines of the double that run: contexts that compute the plan's graph where addresses say.

    driver = HostDriver()
    trt = tensorrt_double(genuine, Script(), runnable(driver))
    session = open_plan(trt, make_plan(genuine, onnx_bytes), Device(driver, 0, no_images))
    session.run(x)                    # what ONNX Runtime computes of the graph

What is computed goes by the addresses that were set and by the driver's stream, so that a wrong
address, a forgotten copy or a graph that was recorded too early shows in the numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from tests.contract.double import Double, Engine, HostMemory, Plan
from tests.contract.double_network import describe
from tests.contract.host_driver import ALIGNMENT, HostDriver, view
from tests.contract.recorded import Lines
from tests.contract.recorded_runtime import NO_MEMORY, NOT_WHILE_RECORDING

WORKSPACE_BYTES = 1 << 20


@dataclasses.dataclass
class Run:
    """How an engine behaves once it is loaded; the default is that everything works.

    Attributes:
        kinds: Data type of a tensor by name, where it is not the graph's.
        layouts: Format of a tensor by name, where it is not linear.
        places: Location of a tensor by name, where it is not the device.
        extra_tensors: Whether there is an input more.
        makes_context: Else there is no memory for one.
        takes_addresses: Else the context refuses every address.
        loses_addresses: The context takes them and forgets.
        executes: Whether the n-th execution (from 0) works.
        execute_log: Said where one does not.
        records: Else execution fails while its stream records, as that of some layers does.
        capturable: What TensorRT for RTX says of its stream.
        makes_config: Whether an engine of TensorRT for RTX gives a runtime configuration.
        takes_cache: Whether a runtime cache of it takes what it is given.
    """

    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra_tensors: Sequence[str] = ()
    makes_context: bool = True
    takes_addresses: bool = True
    loses_addresses: bool = False
    executes: Callable[[int], bool] = lambda count: True
    execute_log: Lines = ()
    records: bool = True
    capturable: bool = True
    makes_config: bool = True
    takes_cache: bool = True


def runnable(driver: HostDriver, run: Run | None = None) -> type[Engine]:
    """Return the class of engines that run on a driver, for `tensorrt_double`."""

    class Made(RunnableEngine):
        _driver, _run = driver, run or Run()

    return Made


def make_plan(trt: ModuleType, model: bytes) -> bytes:
    """Return a plan as the double's builder makes it of a graph."""
    import onnx

    facts = {**describe(onnx.load_from_string(model)), "version": trt.__version__}
    return Plan(facts, model).to_bytes()


def with_bodies(model: bytes) -> bytes:
    """Give plugin nodes what they mean, so that ONNX Runtime computes it, too."""
    import onnx

    from irstd.compile.operators.nodes import attach_bodies
    from irstd.runtime.kernels.tensorrt.plugin_library import NODE_ATTRIBUTES

    graph = onnx.load_model_from_string(model)
    for node in graph.graph.node:
        kept = [one for one in node.attribute if one.name not in NODE_ATTRIBUTES]
        del node.attribute[:]
        node.attribute.extend(kept)
    attach_bodies(graph)
    return bytes(graph.SerializeToString())


class RunnableEngine(Engine):
    """ICudaEngine."""

    _driver: HostDriver
    _run: Run

    def __init__(self, double: Double, plan: Plan) -> None:
        super().__init__(double, plan)
        self._tensors = {**plan.facts["inputs"], **plan.facts["outputs"]}
        self._tensors |= {name: {"shape": [1], "type": "FLOAT"} for name in self._run.extra_tensors}
        self._inputs = [*plan.facts["inputs"], *self._run.extra_tensors]
        self.num_io_tensors = len(self._tensors)
        # Only what the version has: 11 dropped the first, 10.3 has both.
        for name in ("device_memory_size", "device_memory_size_v2"):
            if hasattr(double.trt.ICudaEngine, name):
                setattr(self, name, WORKSPACE_BYTES)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self._double.trt.TensorIOMode
        return mode.INPUT if name in self._inputs else mode.OUTPUT

    def get_tensor_shape(self, name: str) -> Any:
        return self._double.trt.Dims([size or -1 for size in self._tensors[name]["shape"]])

    def get_tensor_dtype(self, name: str) -> Any:
        kind = self._run.kinds.get(name, self._tensors[name]["type"])
        return self._double.trt.DataType.__members__[kind]

    def get_tensor_format(self, name: str) -> Any:
        layout = self._run.layouts.get(name, "LINEAR")
        return self._double.trt.TensorFormat.__members__[layout]

    def get_tensor_location(self, name: str) -> Any:
        place = self._run.places.get(name, "DEVICE")
        return self._double.trt.TensorLocation.__members__[place]

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        if not self._run.makes_context:
            self._double.say(self._logger(), NO_MEMORY)
            return None
        return self._double.of(self._double.trt.IExecutionContext, self._context(runtime_config))

    def _context(self, runtime_config: Any) -> "Context":
        return Context(self)

    def _logger(self) -> Any:
        return self._double.record["Runtime"][-1]._logger


class Context:
    """IExecutionContext that computes the graph with ONNX Runtime."""

    def __init__(self, engine: RunnableEngine) -> None:
        self._engine, self._run = engine, engine._run
        self._driver = engine._driver
        self._addresses: dict[str, int] = {}
        self._executions = 0
        self._session: Any = None

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory > 0, f"{name}: no address"
        assert memory % ALIGNMENT == 0, f"{name}: address {memory:#x}"
        if self._run.takes_addresses and not self._run.loses_addresses:
            self._addresses[name] = memory
        return self._run.takes_addresses

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        double, count = self._engine._double, self._executions
        assert self._driver.held.get(stream_handle) == "stream", "the default stream, or no stream"
        assert set(self._addresses) == set(self._engine._tensors), "an address is not set"
        if not self._run.executes(count):
            double.say(self._engine._logger(), self._run.execute_log)
            return False
        if self._driver.is_recording(stream_handle) and not (self._run.records and count):
            # Also the first run of all, which has still to allocate.
            self._driver.break_recording(stream_handle)
            double.say(self._engine._logger(), NOT_WHILE_RECORDING)
            return False
        self._executions += 1
        self._driver.put(self._compute, stream_handle)
        return True

    def _compute(self) -> None:
        import onnxruntime

        plan = self._engine._plan
        if self._session is None:
            assert self._engine._graph, "an engine without weights computes rubbish"
            self._session = onnxruntime.InferenceSession(
                with_bodies(self._engine._graph), providers=["CPUExecutionProvider"]
            )
        feeds = {name: self._array(name) for name in plan.facts["inputs"]}
        outputs = list(plan.facts["outputs"])
        for name, result in zip(outputs, self._session.run(outputs, feeds), strict=True):
            np.copyto(self._array(name), result)

    def _array(self, name: str) -> np.ndarray:
        """Return a tensor where its address says that it lies."""
        shape = self._engine._tensors[name]["shape"]
        nbytes = 4 * int(np.prod(shape))
        return view(self._addresses[name], nbytes).view(np.float32).reshape(shape)


class RtxEngine(RunnableEngine):
    """ICudaEngine of TensorRT for RTX."""

    def create_runtime_config(self) -> Any:
        if not self._run.makes_config:
            return None
        return self._double.of(self._double.trt.IRuntimeConfig, RuntimeConfig(self))

    def _context(self, runtime_config: Any) -> Context:
        assert self._double.behind(runtime_config)._cache is not None, "no runtime cache"
        return RtxContext(self)


def runnable_rtx(driver: HostDriver, run: Run | None = None) -> type[Engine]:
    """Return the class of engines of TensorRT for RTX that run on a driver."""

    class Made(RtxEngine):
        _driver, _run = driver, run or Run()

    return Made


class RuntimeConfig:
    """IRuntimeConfig of TensorRT for RTX."""

    def __init__(self, engine: RtxEngine) -> None:
        self._engine, self._cache = engine, None

    def create_runtime_cache(self) -> Any:
        double = self._engine._double
        return double.of(double.trt.IRuntimeCache, RuntimeCache(self._engine))

    def set_runtime_cache(self, cache: Any = None) -> bool:
        self._cache = cache
        return True


class RuntimeCache:
    """IRuntimeCache: what was compiled, which is nothing before the first run."""

    def __init__(self, engine: RtxEngine) -> None:
        self._engine, self._data = engine, b""

    def deserialize(self, blob: bytes) -> bool:
        if self._engine._run.takes_cache:
            self._data = bytes(blob)
        return self._engine._run.takes_cache

    def serialize(self) -> Any:
        double = self._engine._double
        contexts = double.record.get("IExecutionContext", [])
        compiled = b"compiled" if any(one._executions for one in contexts) else b""
        return double.of(double.trt.IHostMemory, HostMemory(self._data or compiled))


class RtxContext(Context):
    """IExecutionContext of TensorRT for RTX."""

    def is_stream_capturable(self, stream: int) -> bool:
        assert self._driver.held[stream] == "stream"
        return self._run.capturable
