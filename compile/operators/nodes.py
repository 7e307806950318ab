"""Fused operators as nodes of a graph: what their attributes and inputs must be. Needs onnx.

A node of the domain `irstd` is always accompanied by the local function that says what it means
(docs/adr/0009-fused-nodes.md). `attach_bodies` supplies it, so a pass may drop functions.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import FunctionProto, ModelProto, NodeProto

from irstd.compile.operators.bodies import (
    Attention,
    haar_gate_body,
    ms_deform_attn_body,
    spectral_split_body,
)
from irstd.errors import ExportError
from irstd.runtime.kernels.openvino_extension import DOMAIN

DOMAIN_VERSION = 1
OVERLOADS_IR_VERSION = 10  # the first that tells bodies of one operator apart
Shapes = Mapping[str, tuple[int | None, ...]]

# Axes of the inputs; a letter stands for one size, the same in all inputs of a node.
_INPUTS: dict[str, dict[str, str]] = {
    "HaarGate": {"x": "N C H W", "weight": "4 2 7 7", "bias": "4"},
    "SpectralSplit": {
        "x": "N C H W",
        "cutoff": "C",
        "gate_weight": "2 2 7 7",
        "gate_bias": "2",
        "gamma": "2 C",
    },
    "MSDeformAttn": {
        "value": "N S M D",
        "offsets": "N Lq M L P 2",
        "logits": "N Lq M L P",
        "reference_points": "N Lq 2",
    },
}
OPERATORS = tuple(_INPUTS)


def is_fused(node: NodeProto) -> bool:
    """Return whether a node is one of OPERATORS."""
    return node.domain == DOMAIN and node.op_type in _INPUTS


def fused_nodes(model: ModelProto) -> list[NodeProto]:
    """Return the nodes of a graph that are fused operators."""
    return [node for node in model.graph.node if is_fused(node)]


def attach_bodies(model: ModelProto) -> None:
    """Give every fused node of a graph its body, in place; other functions are left alone.

    Raises:
        ExportError: A node has too few or too many inputs, or attributes that are missing or wrong.
    """
    nodes = fused_nodes(model)
    foreign = [item for item in model.functions if item.domain != DOMAIN]
    if not nodes and len(foreign) == len(model.functions):
        return
    opset = max((item.version for item in model.opset_import if not item.domain), default=0)
    bodies: dict[tuple[str, str], FunctionProto] = {}
    for node in nodes:
        body = body_of(node, opset)
        node.overload = body.overload
        bodies[body.name, body.overload] = body
    del model.functions[:]
    model.functions.extend([*foreign, *bodies.values()])
    if nodes and not any(item.domain == DOMAIN for item in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    if nodes:
        model.ir_version = max(model.ir_version, OVERLOADS_IR_VERSION)


def body_of(node: NodeProto, opset: int) -> FunctionProto:
    """Return what a fused node means, in standard operators of an opset from 17 on.

    Raises:
        ExportError: It has too few or too many inputs, or attributes that are missing or wrong.
    """
    names = list(_INPUTS[node.op_type])
    optional = node.op_type == "MSDeformAttn"
    given = [name for name in node.input if name]
    if not len(names) - optional <= len(given) == len(node.input) <= len(names):
        raise _error(node, f"{len(given)} inputs; wanted {', '.join(names)}")
    if node.op_type == "HaarGate":
        return haar_gate_body(opset)
    if node.op_type == "SpectralSplit":
        return spectral_split_body(opset)
    return _attention_body(attention_of(node), opset)


def attention_of(node: NodeProto) -> Attention:
    """Return the attributes of a MSDeformAttn node.

    Raises:
        ExportError: `level_hw` or `query_hw` is missing, or not made of heights and widths.
    """
    has_points = len(node.input) == 4
    levels = _sides(node, "level_hw")
    queries = _sides(node, "query_hw", optional=has_points)
    if not levels or len(queries) != (0 if has_points else 1):
        raise _error(
            node,
            f"{len(levels)} levels, {len(queries)} grids of queries and "
            f"{'' if has_points else 'no '}reference_points; wanted levels, and either query_hw "
            "= [Hq, Wq] or reference_points",
        )
    return Attention(tuple(levels), None if has_points else queries[0])


def check_inputs(model: ModelProto, shapes: Shapes) -> None:
    """Check the shapes of the inputs of every fused node, as far as they are known.

    Raises:
        ExportError: One does not fit the operator, its attributes, or the other inputs.
    """
    for node in fused_nodes(model):
        sizes: dict[str, int] = {}
        if node.op_type == "MSDeformAttn":
            attention = attention_of(node)
            sizes["L"] = len(attention.level_hw)
            sizes["S"] = sum(height * width for height, width in attention.level_hw)
            if attention.query_hw is not None:
                sizes["Lq"] = math.prod(attention.query_hw)
        for (name, axes), value in zip(_INPUTS[node.op_type].items(), node.input, strict=False):
            shape = shapes.get(value)
            if shape is not None and not _fits(shape, axes.split(), sizes):
                wanted = ", ".join(_told(axis, sizes) for axis in axes.split())
                raise _error(node, f"{name} is {_text(shape)}; wanted ({wanted})")


@functools.lru_cache(maxsize=64)
def _attention_body(attention: Attention, opset: int) -> FunctionProto:
    return ms_deform_attn_body(attention, opset)


def _sides(node: NodeProto, name: str, *, optional: bool = False) -> list[tuple[int, int]]:
    """Return an attribute of heights and widths as pairs."""
    found = [item for item in node.attribute if item.name == name]
    if optional and not found:
        return []
    if not found:
        raise _error(node, f"no attribute {name}; wanted [H0, W0, H1, W1, ...], px")
    values = list(found[0].ints)
    if found[0].type != onnx.AttributeProto.INTS or len(values) % 2 or min(values, default=1) < 1:
        raise _error(node, f"{name} is {values}; wanted [H0, W0, H1, W1, ...], px, all above 0")
    return list(zip(values[::2], values[1::2], strict=True))


def _fits(shape: Sequence[int | None], axes: Sequence[str], sizes: dict[str, int]) -> bool:
    """Compare a shape with named axes, and note the sizes of the names that are new."""
    if len(shape) != len(axes):
        return False
    known = [(int(axis) if axis.isdigit() else sizes.get(axis), side)
             for axis, side in zip(axes, shape, strict=True)]  # fmt: skip
    if any(None not in pair and pair[0] != pair[1] for pair in known):
        return False
    for axis, side in zip(axes, shape, strict=True):
        if side is not None and not axis.isdigit():
            sizes.setdefault(axis, side)
    return True


def _told(axis: str, sizes: Mapping[str, int]) -> str:
    return f"{axis} = {sizes[axis]}" if axis in sizes else axis


def _text(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"


def _error(node: NodeProto, finding: str) -> ExportError:
    name = node.name or (node.output[0] if node.output else "")
    return ExportError(f"{node.op_type} {name!r}: {finding}")
