"""OpenVINO on the CPU: the other half of the CPU default, usually the faster at INT8."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError, MissingDependency, one_line
from irstd.runtime.kernels.openvino_extension import (
    KernelFaults,
    build_openvino_extension,
    has_fused_nodes,
    said_by_kernel,
)
from irstd.runtime.sessions.shapes import image_shape

if TYPE_CHECKING:
    import openvino


class OpenVinoSession:
    """A graph in OpenVINO's CPU plugin. Outputs are the request's own buffers, reused."""

    def __init__(
        self,
        compiled: "openvino.CompiledModel",
        description: str,
        faults: KernelFaults | None = None,
    ) -> None:
        if any(port.element_type.to_dtype() != np.float32 for port in compiled.inputs):
            got = compiled.inputs[0].element_type.get_type_name()
            raise BuildError(f"the graph's input is {got}; wanted f32")
        self.input_shape = image_shape([_static_shape(port) for port in compiled.inputs])
        self.description = description
        self._faults = faults
        self._outputs = range(len(compiled.outputs))
        self._request: openvino.InferRequest | None = compiled.create_infer_request()
        self._bound: NDArray[np.float32] | None = None

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Infer once; see Session.run."""
        request = self._request
        if request is None:
            raise BuildError("the session is closed; open another")
        try:
            if x is not self._bound:
                import openvino

                request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
                self._bound = x  # keeps the shared memory alive
            request.infer()
        except Exception as error:  # plain RuntimeError today, its own classes in other versions
            raise BuildError(f"openvino cannot run the graph: {one_line(error)}") from error
        if self._faults and (fault := self._faults.take()):
            raise BuildError(f"openvino cannot run the graph: {fault}")
        return tuple(request.get_output_tensor(index).data for index in self._outputs)

    def close(self) -> None:
        """Free the engine. Output arrays of earlier calls must not be read afterwards."""
        self._request = None
        self._bound = None


@functools.cache
def openvino_core() -> "openvino.Core":
    """Return the process's one Core.

    The CPU plugin of a Core gives the thread a stack for signals and takes it back when it goes. Of
    two that do not go in the opposite order of their coming, the second puts back the stack of the
    first, which is freed: from then on every signal that Python handles, Ctrl-C among them, ends
    the process (seen in 2026.4.1). One that stays takes nothing back.
    """
    import openvino

    return openvino.Core()


@functools.cache
def add_kernels(extension: Path) -> None:
    """Add the extension library to the Core, once."""
    openvino_core().add_extension(str(extension))


def open_openvino(model: bytes, threads: int | None) -> OpenVinoSession:
    """Load a serialized ONNX graph; see irstd.runtime.sessions.open_session.

    Nodes of the domain `irstd` run in the kernels of irstd.runtime.kernels, whose extension library
    is compiled first where this machine has not yet.

    Raises:
        MissingDependency: It cannot be compiled, or does not load.
        BuildError: OpenVINO refuses the graph.
    """
    import openvino

    extension = faults = None
    if has_fused_nodes(model):
        try:
            extension = build_openvino_extension()
            faults = KernelFaults(extension)
        except BuildError as error:  # a bundle's other engine runs these nodes without it
            raise MissingDependency(
                f"the kernels of this graph cannot be compiled here: {error}"
            ) from error
    settings: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Without it float32 graphs silently run in bf16 on CPUs that have it.
        "INFERENCE_PRECISION_HINT": "f32",
        # Pinned, every one-thread engine of the machine lands on the same first core.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino_core()
        if extension:
            add_kernels(extension)
        graph = core.read_model(model)
        if faults:
            faults.watch(graph)
        compiled = core.compile_model(graph, "CPU", settings)
    except Exception as error:  # plain RuntimeError today, its own classes in other versions
        said = said_by_kernel(error) or one_line(error)
        raise BuildError(f"openvino refuses the graph: {said}") from error
    used = "its own choice of" if threads is None else threads
    version = openvino.__version__.split("-")[0]
    form = ", fused kernels" if extension else ""
    return OpenVinoSession(compiled, f"openvino {version}, CPU{form}, {used} threads", faults)


def _static_shape(port: "openvino.ConstOutput") -> list[int | str]:
    return [d.get_length() if d.is_static else str(d) for d in port.partial_shape]
