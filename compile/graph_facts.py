"""What can be read off an ONNX graph: its cost, its reach, its result. Needs onnx."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from irstd.compile.onnx_graph import attributes, checked, constants, known_shapes
from irstd.errors import ExportError, MissingDependency, one_line

Shapes = dict[str, tuple[int | None, ...]]

_POOLS_WHOLE_MAP = (
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalLpPool",
    "InstanceNormalization",
    "GroupNormalization",
    "SpectralSplit",
)
_SPATIAL_AXES = {2, 3, -1, -2}


def value_shapes(model: ModelProto) -> Shapes:
    """Return the shape of every input, constant and value, by name; None for a symbolic side.

    Values whose rank is unknown are absent.

    Raises:
        ExportError: The graph is not sound ONNX.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    return known_shapes(checked(copy, "shape inference"))


def count_macs(model: ModelProto) -> int:
    """Return the multiply-accumulates of convolutions and matrix products, for one image.

    Args:
        model: A graph of fixed shape, as `fix_shape` returns it. Biases, normalisations, resizes
            and pointwise operations are not counted.

    Raises:
        ExportError: A convolution or matrix product has a symbolic or unknown shape.
    """
    shapes = value_shapes(model)
    return sum(node_macs(node, shapes) for node in model.graph.node)


def pools_globally(model: ModelProto) -> bool:
    """Whether a value depends on the whole image at once, so that padding and tiling change it.

    True for pooling, normalisation, flattening or reduction over the height or width, and for
    products of two maps (attention). Convolutions reach far too, but not everywhere.
    """
    values = constants(model)
    return any(_pools(node, values) for node in model.graph.node)


def run_graph(model: ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the only output for one image, computed by ONNX Runtime on one CPU thread.

    The definition that rewrites are compared with; for frames in quantity use a runtime session.

    Args:
        model: A graph with one image input.
        image: (1, C, H, W) float32.

    Raises:
        MissingDependency: onnxruntime is not installed.
        ExportError: ONNX Runtime refuses the graph, or the image does not fit it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "checking a graph needs onnxruntime: pip install 'irstd-sdk[compile]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its findings arrive as the exception below
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs = session.run(None, {session.get_inputs()[0].name: image})
    except Exception as error:  # its exceptions share no base class
        raise ExportError(f"ONNX Runtime cannot run the graph ({one_line(error)})") from error
    result: NDArray[np.float32] = outputs[0]
    return result


def node_macs(node: NodeProto, shapes: Shapes) -> int:
    """Return the multiply-accumulates of one node; 0 for what is not a product.

    Raises:
        ExportError: A convolution or matrix product has a symbolic or unknown shape.
    """
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    left, right = (_known(node, name, shapes) for name in node.input[:2])
    result = _known(node, node.output[0], shapes)
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    transposed = node.op_type == "Gemm" and attributes(node).get("transA", 0)
    return math.prod(result) * left[0 if transposed else -1]


def _known(node: NodeProto, name: str, shapes: Shapes) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or None in shape:
        raise ExportError(
            f"{node.op_type} {node.name!r}: shape {shape} is not fixed; apply fix_shape first"
        )
    return tuple(side for side in shape if side is not None)


def _pools(node: NodeProto, values: dict[str, NDArray[Any]]) -> bool:
    if node.op_type in _POOLS_WHOLE_MAP:
        return True
    if node.op_type.startswith("Reduce"):
        axes = attributes(node).get("axes")
        if axes is None and len(node.input) > 1 and node.input[1]:
            axes = values.get(node.input[1])
        return axes is None or not _SPATIAL_AXES.isdisjoint(int(axis) for axis in axes)
    if node.op_type in ("MatMul", "Gemm", "Einsum"):
        return not any(name in values for name in node.input[:2])
    return node.op_type == "Flatten"
