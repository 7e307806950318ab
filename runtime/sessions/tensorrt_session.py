"""TensorRT and TensorRT for RTX: a plan in the GPU, one context a thread, nothing made per frame.

Imports neither, nor what reaches the driver, until a plan is opened.
"""

import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from irstd.runtime.kernels.cuda.driver import Device
    from irstd.runtime.tensorrt.execution import Execution


class TensorRTSession:
    """An engine with a context of its own, for the thread that opened it.

    Outputs are the same page-locked arrays every time. After `close` they are freed memory: copy
    what must outlive the session.
    """

    def __init__(self, execution: "Execution", description: str) -> None:
        self.input_shape: tuple[int, int, int, int] = execution.input.shape
        self.description = description
        self._execution: Execution | None = execution
        self._thread = threading.get_ident()
        # Also where nobody closes it, and before the device's own end at that of the program.
        self._release = weakref.finalize(self, execution.release)

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Infer once; see Session.run.

        Raises:
            BuildError: It is closed, or `x` has another shape or dtype.
            UsageError: It is another thread's.
            DeviceError: Something went wrong on the device.
        """
        execution = self._execution
        if execution is None:
            raise BuildError("the session is closed; open another")
        if threading.get_ident() != self._thread:
            raise UsageError(
                "the session belongs to the thread that opened it; open one in this thread"
            )
        if x.shape != self.input_shape or x.dtype != np.float32:
            raise BuildError(
                f"tensorrt cannot run the graph: got {x.shape} {x.dtype}; wanted "
                f"{self.input_shape} float32"
            )
        np.copyto(execution.input, x)
        execution.run()
        return execution.outputs

    def close(self) -> None:
        """Free the engine. Calling it again does nothing; any thread may."""
        self._execution = None
        self._release()


def open_tensorrt(
    plan: bytes,
    threads: int | None,
    weights: bytes | None = None,
    dla_core: int | None = None,
) -> TensorRTSession:
    """Load an engine of TensorRT; see irstd.runtime.sessions.open_session.

    The libraries of the plugins that it needs are loaded before (irstd.runtime.finished).

    Args:
        plan: What TensorRT built on this device. It is code: who made it is trusted.
        threads: The GPU has its own; this changes nothing.
        weights: The serialized ONNX graph, for a plan that holds no weights.
        dla_core: Of the Deep Learning Accelerator, for a plan that was built for one.

    Raises:
        MissingDependency: No TensorRT that works, or neither cuda-python nor pycuda.
        BundleMismatch: Another TensorRT or GPU built it, it is damaged, or the graph does not give
            the weights that it lacks; with the log's last lines.
        DeviceError: No GPU, no memory, or the engine does not run; likewise.
        BuildError: It does not take one static float32 image and give static float32 outputs.
        UsageError: TensorRT for RTX is loaded in this process.
    """
    del threads
    return open_plan(import_tensorrt(), plan, weights=weights, dla_core=dla_core)


def open_tensorrt_rtx(plan: bytes, threads: int | None) -> TensorRTSession:
    """Load an engine of TensorRT for RTX; arguments and errors as of open_tensorrt.

    The first time on a GPU this compiles kernels, which takes seconds; they are kept in the cache.
    """
    del threads
    return open_plan(import_tensorrt_rtx(), plan)


def import_tensorrt() -> "ModuleType":
    """Import the library of `open_tensorrt`.

    Raises:
        MissingDependency: See irstd.runtime.tensorrt.api.load_tensorrt.
        UsageError: TensorRT for RTX is loaded in this process.
    """
    from irstd.runtime.tensorrt.api import load_tensorrt
    from irstd.runtime.tensorrt.rtx import refuse_beside

    refuse_beside("TensorRT", "tensorrt_rtx")
    return load_tensorrt()


def import_tensorrt_rtx() -> "ModuleType":
    """Import the library of `open_tensorrt_rtx`.

    Raises:
        MissingDependency: It is not installed, or its libraries do not load.
        UsageError: TensorRT is loaded in this process.
    """
    from irstd.runtime.tensorrt.rtx import load_tensorrt_rtx

    return load_tensorrt_rtx()


def open_plan(
    trt: "ModuleType",
    plan: bytes,
    device: "Device | None" = None,
    *,
    weights: bytes | None = None,
    dla_core: int | None = None,
) -> TensorRTSession:
    """Load a plan into a TensorRT that is imported.

    Args:
        trt: `tensorrt` or `tensorrt_rtx`.
        plan: What it built.
        device: Opened in this thread, closed with the session; None opens the first GPU.
        weights: The serialized ONNX graph, for a plan that holds no weights.
        dla_core: Of the Deep Learning Accelerator, for a plan that was built for one.

    Raises:
        As of open_tensorrt.
    """
    from irstd.runtime.kernels.cuda.driver import open_device
    from irstd.runtime.tensorrt.engine import load_engine
    from irstd.runtime.tensorrt.execution import Execution
    from irstd.runtime.tensorrt.rtx import is_rtx
    from irstd.runtime.tensorrt.runtime_cache import RuntimeCache

    device = device or open_device()
    try:
        engine = load_engine(trt, plan, weights, dla_core)
        facts = device.properties
        cache = RuntimeCache(engine, plan, facts.name) if is_rtx(trt) else None
        execution = Execution(engine, device, cache)
    except BaseException:
        device.close()
        raise
    library = "tensorrt_rtx" if is_rtx(trt) else "tensorrt"
    return TensorRTSession(
        execution,
        f"{library} {trt.__version__}, {facts.name} (sm_{facts.architecture}), "
        f"{execution.memory}, {execution.launch}",
    )
