"""ONNX Runtime on the CPU: the golden reference, and half of the CPU default."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError, one_line
from irstd.runtime.sessions.shapes import image_shape

if TYPE_CHECKING:
    import onnxruntime

_LOG_ERRORS_ONLY = 3


class OnnxRuntimeSession:
    """A graph in ONNX Runtime's CPU provider. Outputs are fresh arrays.

    Binding inputs and outputs to fixed buffers saves 5 us of 5 ms and needs every output's shape in
    advance, so it is not done.
    """

    def __init__(self, session: "onnxruntime.InferenceSession", description: str) -> None:
        inputs = session.get_inputs()
        if any(item.type != "tensor(float)" for item in inputs):
            raise BuildError(f"the graph's input is {inputs[0].type}; wanted tensor(float)")
        self.input_shape = image_shape([item.shape for item in inputs])
        self.description = description
        self._name: str = inputs[0].name
        self._session: onnxruntime.InferenceSession | None = session

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Infer once; see Session.run."""
        if self._session is None:
            raise BuildError("the session is closed; open another")
        try:
            return tuple(self._session.run(None, {self._name: x}))
        except Exception as error:  # its exception classes are private
            raise BuildError(f"onnxruntime cannot run the graph: {one_line(error)}") from error

    def close(self) -> None:
        """Free the engine."""
        self._session = None


def open_onnxruntime(model: bytes, threads: int | None) -> OnnxRuntimeSession:
    """Load a serialized ONNX graph; see irstd.runtime.sessions.open_session."""
    return _open(model, threads, optimised=True)


def open_reference(model: bytes, threads: int | None) -> OnnxRuntimeSession:
    """Load a graph to be computed node by node in float32, with nothing fused.

    This is what a Q/DQ graph means. An engine that fuses it into integer operations is held against
    this, because integer instructions may saturate.
    """
    return _open(model, threads, optimised=False)


def _open(model: bytes, threads: int | None, *, optimised: bool) -> OnnxRuntimeSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # Between frames a paced stream is idle; idle workers would spin on the cores that the rest of
    # the application needs. During a run they still spin, which is where it pays.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes are private, and differ between versions
        raise BuildError(f"onnxruntime refuses the graph: {one_line(error)}") from error
    used = "its own choice of" if threads is None else threads
    version = onnxruntime.__version__
    form = "" if optimised else ", node by node"
    return OnnxRuntimeSession(session, f"onnxruntime {version}, CPU{form}, {used} threads")
