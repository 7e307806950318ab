"""onnxsim: constant folding and the usual fusions. Needs onnx; onnxsim when it is called."""

from onnx import ModelProto

from irstd.compile.onnx_graph import (
    CONTROL_FLOW,
    STANDARD_DOMAINS,
    checked,
    copy_of,
)
from irstd.compile.operators.nodes import is_fused
from irstd.errors import ExportError, MissingDependency, one_line


def simplify(model: ModelProto) -> ModelProto:
    """Fold constants, fuse BatchNorm into convolutions, drop no-ops.

    Pre: a checked graph, best of fixed shape, so that shape arithmetic folds too.
    Post: same result up to rounding; same input, output and opset; standard operators
    only, beside fused ones; no control flow left.

    Raises:
        MissingDependency: onnxsim is not installed.
        ExportError: onnxsim fails, or a loop or branch depends on the image.
    """
    try:
        import onnxsim
    except ImportError as error:
        raise MissingDependency(
            "rewriting a graph needs onnxsim: pip install 'irstd-sdk[compile]'"
        ) from error
    try:
        simplified, ok = onnxsim.simplify(copy_of(model))
    except Exception as error:  # it reports through several exception types
        raise ExportError(f"onnxsim cannot simplify the graph ({one_line(error)})") from error
    if not ok:
        raise ExportError("onnxsim changed what the graph computes; wanted the same result")
    result = checked(simplified, "onnxsim")
    for node in result.graph.node:
        if node.op_type in CONTROL_FLOW:
            raise ExportError(
                f"{node.op_type} {node.name!r} depends on the image; "
                "wanted a graph without loops and branches, export it by tracing"
            )
        if node.domain not in STANDARD_DOMAINS and not is_fused(node):
            raise ExportError(
                f"onnxsim left {node.domain}.{node.op_type}; wanted standard operators only"
            )
    return result
