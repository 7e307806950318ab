"""A plan, loaded: the engine that execution contexts are made of, and what it takes and gives."""

import re
import threading
import weakref
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from irstd.errors import BuildError, BundleMismatch, DeviceError, IrstdError, one_line
from irstd.files import sha256_hex
from irstd.runtime.sessions.shapes import image_shape
from irstd.runtime.tensorrt.api import LOG, OUT_OF_MEMORY, tensorrt_logger
from irstd.runtime.tensorrt.refit import refit
from irstd.runtime.tensorrt.rtx import is_rtx

_REBUILD = "build it again on this device: irstd-compile finish BUNDLE --rebuild"
_MEMORY = "free some (see irstd-compile doctor), or build for a smaller --imgsz"
# The first byte of an ONNX file: its field ir_version comes first. A plan starts otherwise.
_ONNX_START = b"\x08"
# Before 10.16 TensorRT does not tell whether weights are in a plan that can be refitted, and runs
# one without them as if they were: what comes out is rubbish.
_NO_WEIGHTS = (
    "the plan can be refitted, so it may hold no weights: open its bundle, which has them, or give "
    "the graph that it was built from"
)
# What TensorRT's log says, and what it means to whoever reads the error.
_CAUSES = (
    (r"Version tag does not match|kSERIALIZATION_VERSION", "another TensorRT built it"),
    (r"incompatible device|expecting compute", "it was built on another GPU"),
    (
        r"Cannot find plugin|IPluginCreator not found|could not find plugin|Plugin not found",
        "it needs a plugin library that is not loaded",
    ),
    (r"[Mm]agic ?[Tt]ag|blobSize|minBufferSize", "these bytes are no engine, or a damaged one"),
)
_NO_DRIVER = re.compile(
    r"CUDA driver version is insufficient|CUDA initialization failure|no CUDA-capable device"
)


@dataclass(frozen=True)
class Tensor:
    """One input or output of an engine: float32, C-contiguous, on the device."""

    name: str
    shape: tuple[int, ...]


class Engine:
    """An engine, and what must live as long as it: logger and runtime.

    Reading it and making contexts of it is for any thread.

    Args:
        trt: The module of its TensorRT.
        plan: What that built.
        weights: The serialized ONNX graph that a plan without weights was built from.
        dla_core: Of the Deep Learning Accelerator, for a plan that was built for one.

    Attributes:
        trt: The module of its TensorRT.
        cuda_engine: `tensorrt.ICudaEngine`.
        input: The one image, (1, C, H, W).
        outputs: In the engine's order.

    Raises:
        BundleMismatch: TensorRT makes no engine of the plan; says why and what its log says. Or the
            plan holds no weights, and there is no graph that gives them.
        DeviceError: There is no memory for it, or no runtime.
        BuildError: It does not take one static float32 image and give static float32 outputs.
    """

    def __init__(
        self,
        trt: ModuleType,
        plan: bytes,
        weights: bytes | None = None,
        dla_core: int | None = None,
    ) -> None:
        LOG.clear()
        self.trt = trt
        self._logger = tensorrt_logger(trt)
        try:
            self._runtime: Any = trt.Runtime(self._logger)
        except TypeError as error:  # how the bindings say that the library returned null
            raise DeviceError(
                LOG.explain(
                    f"{_name(trt)} does not start ({one_line(error)}): irstd-compile doctor"
                )
            ) from error
        # A plan for later versions carries a runtime of the host; any plan is code.
        self._runtime.engine_host_code_allowed = True
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        self.cuda_engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self.cuda_engine is None:
            raise _not_loaded(trt, plan)
        if weights is not None:
            refit(trt, self.cuda_engine, weights)
        elif self.cuda_engine.refittable:
            raise BundleMismatch(_NO_WEIGHTS)
        tensors = [
            self.cuda_engine.get_tensor_name(index)
            for index in range(self.cuda_engine.num_io_tensors)
        ]
        mode = self.cuda_engine.get_tensor_mode
        inputs = [name for name in tensors if mode(name) == trt.TensorIOMode.INPUT]
        shape = image_shape([self._sizes(name) for name in inputs])
        self.input = Tensor(inputs[0], shape)
        self.outputs = tuple(
            Tensor(name, self._static_shape(name)) for name in tensors if name not in inputs
        )
        for name in tensors:
            self._check_kind(name)
        if not self.outputs:
            raise BuildError("the engine has no output")

    def __del__(self) -> None:
        for name in ("cuda_engine", "_runtime"):  # in this order, which nothing else promises
            self.__dict__.pop(name, None)

    def memory_bytes(self) -> int:
        """Return what one context needs of the device's memory."""
        # TensorRT 11 knows the second alone, 8.6 the first.
        for name in ("device_memory_size_v2", "device_memory_size"):
            if hasattr(self.cuda_engine, name):
                return int(getattr(self.cuda_engine, name))
        return 0

    def _sizes(self, name: str) -> list[int | str]:
        """Return a shape; sizes that are open are strings."""
        shape = self.cuda_engine.get_tensor_shape(name)
        return [int(size) if size >= 0 else "?" for size in shape]

    def _static_shape(self, name: str) -> tuple[int, ...]:
        sizes = self._sizes(name)
        static = tuple(size for size in sizes if isinstance(size, int))
        if len(static) != len(sizes):
            got = ", ".join(map(str, sizes))
            raise BuildError(f"the engine's output {name} is ({got}); wanted a static shape")
        return static

    def _check_kind(self, name: str) -> None:
        """Refuse a tensor that is no plain array of float32 in the device's memory."""
        kind = self.cuda_engine.get_tensor_dtype(name)
        layout = self.cuda_engine.get_tensor_format(name)
        place = self.cuda_engine.get_tensor_location(name)
        wanted = (self.trt.DataType.FLOAT, self.trt.TensorFormat.LINEAR)
        if (kind, layout) != wanted or place != self.trt.TensorLocation.DEVICE:
            raise BuildError(
                f"the engine's tensor {name} is {kind.name}, {layout.name}, on the {place.name}; "
                "wanted FLOAT, LINEAR, on the DEVICE: build it from a graph with float32 inputs "
                "and outputs"
            )


_loaded: "weakref.WeakValueDictionary[tuple[str, ...], Engine]" = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_engine(
    trt: ModuleType, plan: bytes, weights: bytes | None = None, dla_core: int | None = None
) -> Engine:
    """Load a plan, or return the engine that a session of this process has made of the same bytes.

    Sessions of several threads then hold the weights once.

    Args:
        trt: `load_tensorrt()` or `load_tensorrt_rtx()`.
        plan: What `build_serialized_network` gave. It is code: who made it is trusted.
        weights: The graph, for a plan that holds no weights.
        dla_core: Of the Deep Learning Accelerator, for a plan that was built for one.

    Raises:
        BundleMismatch, DeviceError, BuildError: See Engine.
    """
    graph = "" if weights is None else sha256_hex(weights)
    key = (trt.__name__, sha256_hex(plan), graph, str(dla_core))
    with _loading:
        engine = _loaded.get(key)
        if engine is None:
            engine = _loaded[key] = Engine(trt, plan, weights, dla_core)
        return engine


def memory_error(what: str, wanted_bytes: int, free_bytes: int) -> DeviceError:
    """Return the error of memory that was not to be had, with what TensorRT's log says."""
    sizes = f"{wanted_bytes / 2**20:.0f} MiB wanted, {free_bytes / 2**20:.0f} MiB free"
    return DeviceError(LOG.explain(f"no memory for {what} ({sizes}): {_MEMORY}"))


def run_error(what: str) -> DeviceError:
    """Return the error of an engine that does not run, with what TensorRT's log says."""
    hint = f": out of memory; {_MEMORY}" if _says(OUT_OF_MEMORY) else ""
    return DeviceError(LOG.explain(f"{what}{hint}"))


def _not_loaded(trt: ModuleType, plan: bytes) -> IrstdError:
    """Return the error of a plan that gave no engine."""
    if plan.startswith(_ONNX_START):
        return BundleMismatch(
            "got an ONNX graph; wanted an engine, which the device that runs it builds: "
            "irstd-compile finish BUNDLE"
        )
    if _says(OUT_OF_MEMORY):
        return DeviceError(LOG.explain(f"no memory to load the engine: {_MEMORY}"))
    found = next((cause for pattern, cause in _CAUSES if _says(re.compile(pattern))), "")
    if not found and _says(_NO_DRIVER):
        return DeviceError(
            LOG.explain(
                f"{_name(trt)} finds no GPU, or a driver older than its CUDA: irstd-compile doctor"
            )
        )
    reason = f" ({found})" if found else ""
    return BundleMismatch(LOG.explain(f"{_name(trt)} cannot load the engine{reason}; {_REBUILD}"))


def _says(pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(line) for line in LOG.lines)


def _name(trt: ModuleType) -> str:
    return f"TensorRT{' for RTX' if is_rtx(trt) else ''} {trt.__version__}"
