"""Put a plain graph into the form that a target's engines run fastest, without changing it.

The plugin-free graph is always kept beside the result.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from irstd.targets import Target


def legalise(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Return the graph for one target.

    Args:
        model: Static plain graph.
        target: Where it will run.

    Returns:
        For a CPU: enlargements of one-channel maps as two matrix products, which CPU engines
        compute several times faster than Resize. For others: the graph itself.
    """
    return resize_as_matmul(model) if target.compute_capability is None else model


def resize_as_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite each static bilinear Resize of a one-channel map as `rows @ map @ columns`.

    Bilinear interpolation is linear and separable, so this is exact up to rounding. With more
    channels the products would cost more than the convolutions around them.
    """
    out = onnx.ModelProto()
    out.CopyFrom(onnx.shape_inference.infer_shapes(model))
    graph = out.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in values
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source, result = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        mode = _coordinate_mode(node)
        if mode is None or len(source) != 4 or source[1] != 1 or 0 in (*source, *result):
            nodes.append(node)
            continue
        rows = _interpolation(source[2], result[2], mode)
        columns = _interpolation(source[3], result[3], mode).T
        names = [f"{node.output[0]}_rows", f"{node.output[0]}_columns"]
        for name, matrix in zip(names, (rows, columns), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(matrix), name))
        middle = f"{node.output[0]}_tall"
        nodes.append(
            helper.make_node("MatMul", [names[0], node.input[0]], [middle], name=f"{middle}_matmul")
        )
        nodes.append(
            helper.make_node("MatMul", [middle, names[1]], [node.output[0]], name=node.name)
        )
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    return out


def _coordinate_mode(node: onnx.NodeProto) -> str | None:
    """Return the coordinate mode of a plain bilinear Resize, None for anything else."""
    if node.op_type != "Resize":
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    mode = attributes.get("coordinate_transformation_mode", b"half_pixel")
    plain = attributes.get("mode", b"nearest") == b"linear" and not attributes.get("antialias", 0)
    known = (b"half_pixel", b"pytorch_half_pixel", b"align_corners")
    return mode.decode() if plain and mode in known and not attributes.get("axes") else None


def _interpolation(size: int, new_size: int, mode: str) -> NDArray[np.float32]:
    """Return the (new_size, size) matrix of linear interpolation with clamped borders."""
    index = np.arange(new_size, dtype=np.float64)
    if mode == "align_corners":
        position = index * (size - 1) / max(new_size - 1, 1)
    else:
        position = (index + 0.5) * size / new_size - 0.5
    lower = np.floor(position)
    weight = position - lower
    matrix = np.zeros((new_size, size))
    rows = np.arange(new_size)
    for offset, share in ((0, 1 - weight), (1, weight)):
        column = np.clip(lower + offset, 0, size - 1).astype(int)
        np.add.at(matrix, (rows, column), share)
    return matrix.astype(np.float32)
