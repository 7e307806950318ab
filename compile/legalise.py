"""Put a plain graph into the form that a target's engines run fastest, without changing it.

The plugin-free graph is always kept beside the result.
"""

import dataclasses

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from irstd.compile.graph_facts import value_shapes
from irstd.compile.onnx_graph import add_constant, attributes, checked, constants, copy_of
from irstd.targets import Target

# Multiply-adds a pixel of the result up to which two products beat Resize. Measured on one thread:
# 64 to 256 px costs 80 and saves an OpenVINO INT8 graph 5 of 10 ms; 512 to 1024 px would cost 770
# and is eight times slower than Resize.
MAX_MACS_PER_PIXEL = 256
_MODES = ("half_pixel", "pytorch_half_pixel", "align_corners")


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis of a Resize: sizes before and after, and how many pixels one becomes."""

    size: int
    new_size: int
    scale: float


def legalise(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Return the graph for one target.

    Args:
        model: Static plain graph, checked.
        target: Where it will run.

    Returns:
        For a CPU: enlargements of one-channel maps as two matrix products, which CPU engines
        compute faster than Resize. For others: the graph itself.
    """
    return resize_as_matmul(model) if target.compute_capability is None else model


def resize_as_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite each static bilinear Resize of a one-channel map as `rows @ map @ columns`.

    Bilinear interpolation is linear and separable, so this is exact up to rounding. With more
    channels, or on large maps, the products would cost more than the Resize.
    """
    out = copy_of(model)
    shapes = value_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        axes = _axes(node, shapes, out)
        if axes is None or _macs_per_pixel(*axes) > MAX_MACS_PER_PIXEL:
            nodes.append(node)
        else:
            nodes += _products(node, *axes, out)
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return checked(out, "resize as matrix products")


def _products(
    node: onnx.NodeProto, vertical: _Axis, horizontal: _Axis, out: onnx.ModelProto
) -> list[onnx.NodeProto]:
    result, mode = node.output[0], _mode(node)
    rows = add_constant(out, f"{result}_rows", _interpolation(vertical, mode))
    columns = add_constant(out, f"{result}_columns", _interpolation(horizontal, mode).T)
    tall = f"{result}_tall"
    return [
        helper.make_node("MatMul", [rows, node.input[0]], [tall], name=f"{node.name}_rows"),
        helper.make_node("MatMul", [tall, columns], [result], name=f"{node.name}_columns"),
    ]


def _axes(
    node: onnx.NodeProto, shapes: dict[str, tuple[int | None, ...]], model: onnx.ModelProto
) -> tuple[_Axis, _Axis] | None:
    """Return the height and width of a Resize that can be two products, None for anything else."""
    if node.op_type != "Resize" or not _is_plain(node):
        return None
    before, after = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
    if len(before) != 4 or len(after) != 4 or before[:2] != (1, 1) or after[:2] != (1, 1):
        return None
    sizes = [side for side in (*before[2:], *after[2:]) if side is not None]
    if len(sizes) != 4:
        return None
    height, width, new_height, new_width = sizes
    scales = [new_height / height, new_width / width]
    if len(node.input) > 2 and node.input[2]:
        # Given scales hold, also where the size they lead to was rounded down.
        given = constants(model).get(node.input[2])
        if given is None or given.shape not in ((0,), (4,)):
            return None
        scales = [float(scale) for scale in given[2:]] or scales
    return _Axis(height, new_height, scales[0]), _Axis(width, new_width, scales[1])


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a Resize is bilinear, over the whole map, with borders clamped."""
    found = attributes(node)
    return (
        found.get("mode", b"nearest") == b"linear"
        and _mode(node) in _MODES
        and not found.get("antialias", 0)
        and not found.get("axes")
        and found.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    )


def _mode(node: onnx.NodeProto) -> str:
    mode: bytes = attributes(node).get("coordinate_transformation_mode", b"half_pixel")
    return mode.decode()


def _macs_per_pixel(vertical: _Axis, horizontal: _Axis) -> float:
    rows = vertical.size * vertical.new_size * horizontal.size
    columns = vertical.new_size * horizontal.size * horizontal.new_size
    return (rows + columns) / (vertical.new_size * horizontal.new_size)


def _interpolation(axis: _Axis, mode: str) -> NDArray[np.float32]:
    """Return the (new_size, size) matrix of linear interpolation with clamped borders."""
    index = np.arange(axis.new_size, dtype=np.float64)
    if mode == "align_corners":
        position = index * (axis.size - 1) / max(axis.new_size - 1, 1)
    elif mode == "pytorch_half_pixel" and axis.new_size == 1:
        position = np.zeros(1)
    else:
        position = (index + 0.5) / axis.scale - 0.5
    position = np.clip(position, 0, axis.size - 1)
    lower = np.floor(position).astype(int)
    weight = position - lower
    matrix = np.zeros((axis.new_size, axis.size))
    rows = np.arange(axis.new_size)
    matrix[rows, lower] = 1 - weight
    matrix[rows, np.minimum(lower + 1, axis.size - 1)] += weight
    return matrix.astype(np.float32)
