"""The FP16 form of a graph: precision written into it by Casts. Needs onnx."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from irstd.compile.onnx_graph import (
    CONTROL_FLOW,
    add_constant,
    checked,
    constants,
    consumers,
    copy_of,
    dimensions,
    fresh_name,
    output_names,
    producers,
    rename_value,
)
from irstd.compile.operators.nodes import is_fused
from irstd.compile.opset import to_opset19
from irstd.compile.rewrites.dead_code import remove_dead_code
from irstd.errors import ExportError

MAX_FLOAT16 = 65504.0
# Activations seen in calibration may be exceeded later; half the range is left free.
ACTIVATION_LIMIT = MAX_FLOAT16 / 2
# They sum or square whole maps, which leaves the range long before their result does.
SUMS_OF_MAPS = (
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSum",
    "ReduceSumSquare",
)
# These make floats from something else, in the type that an attribute says.
_TYPED_BY_ATTRIBUTE = ("Cast", "ConstantOfShape", "EyeLike", "RandomNormal")
# Coordinates are followed back to these, whose results are features and not places.
_MAKE_FEATURES = (
    "AveragePool",
    "Conv",
    "ConvTranspose",
    "DequantizeLinear",
    "Einsum",
    "Gemm",
    "GlobalAveragePool",
    "GridSample",
    "MatMul",
    "MaxPool",
    "Resize",
)
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_ROUND_PLACES = ("Ceil", "Floor", "Round")
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)
# Inputs that are float32 whatever the data's type.
_ALWAYS_FLOAT32 = {"Resize": {2}}


def to_float16(
    model: ModelProto,
    maxima: Mapping[str, float] | None = None,
    float_nodes: Collection[str] = (),
) -> tuple[ModelProto, dict[str, str]]:
    """Write float16 into a graph: half-precision weights, Casts where the precision changes.

    Args:
        model: A float32 graph of fixed shape, as `rewrite` returns it.
        maxima: Largest absolute value seen of each activation, by the name of the value. An
            operator that reads or makes one beyond half the range of float16 stays in float32.
        float_nodes: Names of further nodes that stay in float32.

    Returns:
        The typed graph (opset 19 or later, float32 at input and output, float16 inside), and the
        reason for each operator that stays in float32, by node name: weights or activations
        that leave the range, sums over whole maps, coordinates, floats made from something else,
        fused operators. `float_nodes` are not among them. A DequantizeLinear is as wide as what
        reads it, a QuantizeLinear as what it reads; their scales have to be values of float16
        (`quantize` with that scale type).

    Raises:
        ExportError: Control flow in the graph, or a result that is not sound ONNX.
    """
    typed = checked(to_opset19(model), "FP16")
    if any(node.op_type in CONTROL_FLOW for node in typed.graph.node):
        raise ExportError("FP16 needs a graph without loops and branches; apply simplify first")
    floats = _float_values(typed)
    values = constants(typed)
    kept: set[str] = set()
    reasons: dict[str, str] = {}
    places = coordinate_nodes(typed)
    for node in typed.graph.node:
        reason = _reason(node, values, floats, maxima or {}) or places.get(node.output[0])
        if node.name in float_nodes:
            kept.update(node.output)
        elif reason is not None:
            kept.add(node.output[0])
            reasons[node.name or node.output[0]] = reason
    kept |= _read_in_float32(typed, kept)
    return checked(remove_dead_code(_cast(typed, floats, kept)), "FP16"), reasons


def coordinate_nodes(model: ModelProto) -> dict[str, str]:
    """Return the nodes that compute with coordinates, by their first output, each with the reason.

    Those are what samples a map at given places, what rounds places to indices, and what these
    places are computed by, back to the layer whose features they come from.
    """
    makers = producers(model)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.output)
    }
    floating = (TensorProto.FLOAT, TensorProto.FLOAT16)
    image = dimensions(model.graph.input[0]) or ()
    side = max((side or 0 for side in image[2:]), default=0)
    reason = f"coordinates: on {side} px a step of float16 is up to {side / 2 * 2**-11:.2g} px"
    found: dict[str, str] = {}
    pending: list[str] = []
    for node in model.graph.node:
        to = next((item.i for item in node.attribute if item.name == "to"), None)
        if node.op_type == "GridSample":
            found[node.output[0]] = reason
            pending.append(node.input[1])
        elif node.op_type in _ROUND_PLACES or (node.op_type == "Cast" and to in _INTEGERS):
            pending.append(node.output[0])
    while pending:
        node = makers.get(pending.pop())
        if node is None or node.output[0] in found or node.op_type in _MAKE_FEATURES:
            continue
        values = [*node.input, *node.output]
        if any(kinds.get(name) in floating for name in values):
            found[node.output[0]] = reason
        pending += [name for name in node.input if name]
    return found


def _read_in_float32(model: ModelProto, kept: set[str]) -> set[str]:
    """Return what DequantizeLinear makes for nodes of float32 only."""
    readers = consumers(model)
    outputs = output_names(model)
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.output[0] not in outputs
        and all(reader.output[0] in kept for reader in readers.get(node.output[0], ()))
    }


def _float_values(model: ModelProto) -> set[str]:
    graph = model.graph
    found = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            found.add(value.name)
    return found


def _reason(
    node: NodeProto,
    values: Mapping[str, NDArray[Any]],
    floats: set[str],
    maxima: Mapping[str, float],
) -> str | None:
    """Return why a node stays in float32, None if it need not."""
    if is_fused(node):
        return "its kernel computes in float32"
    if node.op_type in _TYPED_BY_ATTRIBUTE:
        return "its type is set by an attribute" if node.output[0] in floats else None
    if node.op_type in SUMS_OF_MAPS:
        return "sums a whole map"
    for name in node.input:
        if node.op_type in _QDQ and name in floats and name in values:
            with np.errstate(over="ignore"):
                same = (values[name].astype(np.float16) == values[name]) & (values[name] > 0)
            if not same.all():
                return f"scale {name!r} is no value of float16"
        elif name in floats and name in values:
            largest = float(np.abs(values[name]).max(initial=0.0))
            if not largest <= MAX_FLOAT16:
                return f"constant {name!r} reaches {largest:.6g}, float16 ends at {MAX_FLOAT16:g}"
    for name in (*node.input, *node.output):
        if maxima.get(name, 0.0) > ACTIVATION_LIMIT:
            return f"activation {name!r} reaches {maxima[name]:.6g}, the limit is half of float16"
    return None


def _cast(model: ModelProto, floats: set[str], kept: set[str]) -> ModelProto:
    copy = copy_of(model)
    values = constants(copy)
    is_half: dict[str, bool] = {copy.graph.input[0].name: False}
    other_form: dict[str, str] = {}  # of a value: its Cast, or a constant's float16 copy
    nodes: list[NodeProto] = []
    output = copy.graph.output[0].name
    inner = fresh_name(copy, f"{output}_f16")
    ends_half = output not in kept
    if ends_half:
        rename_value(copy, output, inner)
        copy.graph.output[0].name = output

    def form(name: str, *, half: bool) -> str:
        if is_half.get(name, False) == half:
            return name
        if name not in other_form:
            suffix = "f16" if half else "f32"
            if name in values:
                half_array = values[name].astype(np.float16)
                other_form[name] = add_constant(copy, f"{name}_{suffix}", half_array)
            else:
                other_form[name] = fresh_name(copy, f"{name}_{suffix}")
                nodes.append(_cast_node(name, other_form[name], half=half))
        return other_form[name]

    for node in copy.graph.node:
        half = node.output[0] not in kept
        if node.op_type == "QuantizeLinear":
            half = half and is_half.get(node.input[0], False)
        fixed = _ALWAYS_FLOAT32.get(node.op_type, set())
        for index, name in enumerate(node.input):
            if name in floats or name == inner:
                node.input[index] = form(name, half=half and index not in fixed)
        nodes.append(node)
        is_half.update({name: half for name in node.output if name in {*floats, inner}})
    if ends_half:
        nodes.append(_cast_node(inner, output, half=False))
    ordered = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(ordered)
    return copy


def _cast_node(source: str, target: str, *, half: bool) -> NodeProto:
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], f"cast_{target}", to=kind)
