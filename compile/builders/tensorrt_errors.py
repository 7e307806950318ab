"""Why TensorRT built nothing, from what its parser and its log say."""

import re
from types import ModuleType
from typing import Any

from irstd.errors import BuildError, DeviceError, IrstdError, MissingDependency, one_line
from irstd.runtime.tensorrt.api import LOG, OUT_OF_MEMORY, Version

MIB = 1 << 20
_TOLD_ERRORS = 3
# Operators of this SDK, as a plugin library or as the kernels that a plan carries name them.
_OURS = ("HaarGate", "SpectralSplit", "MSDeformAttn")

_LACKING = "use a later TensorRT, or write it in operators that it has"
# What to do, by the code of a parser error, as TensorRT's enumeration ErrorCode names it.
_ADVICE = {
    "MODEL_DESERIALIZE_FAILED": "the graph is damaged: irstd-compile verify BUNDLE checks it",
    "MEM_ALLOC_FAILED": "memory is short: close other programs or add swap",
    "UNSUPPORTED_NODE": f"this version does not have the operator: {_LACKING}",
    "UNSUPPORTED_NODE_ATTR": "this version does not have that form of the operator: use a later "
    "TensorRT, or replace it in the source",
    "UNSUPPORTED_NODE_INPUT": "this version wants that input to be a constant or of another kind: "
    "use a later TensorRT, or replace the operator in the source",
    "UNSUPPORTED_NODE_DATATYPE": "this version does not compute the operator in that type: build "
    "the bundle with --precision fp16 or fp32",
    "UNSUPPORTED_NODE_DYNAMIC": "a shape is not fixed: build the bundle with --imgsz HxW",
    "UNSUPPORTED_NODE_SHAPE": "this version does not take that shape: build the bundle with "
    "another --imgsz HxW",
    "INVALID_NODE": "the graph is not sound, or of types that the operator does not take together: "
    "irstd-compile verify BUNDLE checks it",
}
_OTHER_ADVICE = "build the bundle with --precision fp32 to see whether the precision is refused"

_NO_KERNEL = re.compile(r"Could not find any implementation for node (.+?)\.?\)?$", re.MULTILINE)
_NO_LIBRARY = re.compile(r"Unable to load library: ([^\s:]+)")
_NO_CUDA = re.compile(r"(?:CUDA initialization failure with error: |\(cudaError )(\d+)")
_CUDA = {
    "35": "the driver is older than the CUDA that this TensorRT is for, or absent: update the "
    "driver, or install a TensorRT for its CUDA",
    "100": "there is no NVIDIA GPU here; build on the device",
}


def parser_failure(trt: ModuleType, parser: Any) -> str:
    """Return what the ONNX parser refused: node, operator, reason, and what to do.

    Args:
        trt: The module `tensorrt`.
        parser: One whose `parse` returned False.
    """
    count = parser.num_errors
    errors = [parser.get_error(index) for index in range(min(count, _TOLD_ERRORS))]
    if not errors:
        return LOG.explain("TensorRT refuses the graph and gives no reason")
    told = "; then ".join(_one(error) for error in errors)
    more = f"; and {count - len(errors)} more" if count > len(errors) else ""
    return LOG.explain(f"TensorRT {trt.__version__} refuses the graph: {told}{more}")


def build_failure(
    version: Version, workspace_bytes: int | None, memory_bytes: int | None
) -> IrstdError:
    """Return the error of a build that gave no plan; the log says why.

    Args:
        version: Of TensorRT.
        workspace_bytes: The limit it was built under, None for none.
        memory_bytes: Of the device, None if not known.
    """
    said = "\n".join(LOG.lines)
    node = _NO_KERNEL.search(said)
    where = f" for node {one_line(node[1], 120)}" if node else ""
    if OUT_OF_MEMORY.search(said):
        limit = "no limit" if workspace_bytes is None else f"{workspace_bytes // MIB} MiB"
        size = "" if memory_bytes is None else f" of {memory_bytes // MIB} MiB"
        return BuildError(
            LOG.explain(
                f"TensorRT ran out of device memory{size} while building{where}; its workspace had "
                f"{limit}: stop the desktop (sudo systemctl isolate multi-user) and other "
                "programs, add swap, or allow less workspace"
            )
        )
    if node:
        return BuildError(
            LOG.explain(
                f"TensorRT has no kernel{where}: allow more workspace, use a later TensorRT, or "
                "build the bundle in another precision"
            )
        )
    return environment_failure(version) or BuildError(LOG.explain("TensorRT gives no engine"))


def environment_failure(version: Version) -> IrstdError | None:
    """Return what the log says is wrong with this machine; None if it names nothing of the kind."""
    said = "\n".join(LOG.lines)
    library = _NO_LIBRARY.search(said)
    if library and "nvinfer_lean" in library[1]:
        return MissingDependency(
            LOG.explain(
                f"TensorRT {version} does not find {library[1]}, the lean runtime that goes into a "
                f"plan for later versions: sudo apt install libnvinfer-lean{version.major}, or pip "
                "install tensorrt-lean of the same version and its folder in LD_LIBRARY_PATH; or "
                "finish without --version-compatible"
            )
        )
    if library:
        return MissingDependency(
            LOG.explain(
                f"TensorRT {version} does not find {library[1]}: its packages are of different "
                "versions or not all there, or the folder is not in LD_LIBRARY_PATH; Jetson: sudo "
                "apt install --reinstall nvidia-jetpack, elsewhere: pip install --force-reinstall "
                "tensorrt"
            )
        )
    if OUT_OF_MEMORY.search(said):
        return DeviceError(
            LOG.explain("the device's memory is full: stop what uses it, and try again")
        )
    if cuda := _NO_CUDA.search(said):
        reason = _CUDA.get(cuda[1], f"CUDA's error {cuda[1]}; irstd-compile doctor says more")
        return DeviceError(LOG.explain(f"TensorRT {version} cannot use CUDA: {reason}"))
    return None


def plan_failure(version: Version) -> IrstdError:
    """Return the error for a plan that gave no engine."""
    return environment_failure(version) or BuildError(
        LOG.explain("the plan does not deserialize: build it anew")
    )


def no_object(version: Version, what: str) -> IrstdError:
    """Return the error for a builder, runtime or other object that TensorRT does not make."""
    if error := environment_failure(version):
        return error
    return DeviceError(
        LOG.explain(f"TensorRT {version} makes no {what}: irstd-compile doctor says more")
    )


def _one(error: Any) -> str:
    """Return one parser error as a phrase."""
    # Up to 10.16, `name` of this one enumeration is not its name: the bindings hide it.
    code, text = str(error.code()).rpartition(".")[2], one_line(error.desc(), 200)
    # TensorRT 8.6 knows the node's number only.
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    number = f"number {error.node()}" if error.node() >= 0 else ""
    node = " ".join(filter(None, [operator, repr(name) if name else "", number]))
    return f"{f'node {node}: ' if node else ''}{text} ({code}): {_advice(code, text, operator)}"


def _advice(code: str, text: str, operator: str) -> str:
    """Return what to do. An operator that TensorRT lacks is one whose plugin it does not find."""
    if "plugin not found" not in text.lower():
        return _ADVICE.get(code, _OTHER_ADVICE)
    if operator.startswith(_OURS):
        return (
            f"the plugin of {operator} is not loaded or of another version: irstd-compile finish "
            "BUNDLE compiles and loads it"
        )
    return f"this version does not have {operator or 'the operator'}: {_LACKING}"
