"""INT8 by explicit Q/DQ: the precision is in the graph, so every engine reads the same decision.

Two forms come from one scale table. `cpu` has unsigned activations, which CPU engines compute
fastest; `nvidia` is symmetric and signed, with both sides of residual additions quantized, which is
how TensorRT fuses them. Weights are symmetric int8, one scale an output channel; biases stay float.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.errors import CalibrationError

WEIGHT_LEVELS = 127
_SMALLEST_SCALE = 1e-8


@dataclasses.dataclass(frozen=True)
class Int8Form:
    """How activations are written.

    Attributes:
        lowest: Lowest quantized value.
        highest: Highest quantized value.
        dtype: Of the quantized tensor.
        symmetric: Whether the zero point is 0.
        residual_additions: Whether both inputs of an Add of two activations are quantized.
    """

    lowest: int
    highest: int
    dtype: type[np.uint8] | type[np.int8]
    symmetric: bool
    residual_additions: bool


FORMS: dict[str, Int8Form] = {
    "cpu": Int8Form(0, 255, np.uint8, symmetric=False, residual_additions=False),
    "nvidia": Int8Form(-127, 127, np.int8, symmetric=True, residual_additions=True),
}


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Which nodes compute in INT8.

    Attributes:
        form: Key of FORMS.
        int8_nodes: Names of the convolutions that do.
        float_nodes: Names of those that do not, each with the reason.
    """

    form: str
    int8_nodes: tuple[str, ...]
    float_nodes: Mapping[str, str]


def plan_int8(model: onnx.ModelProto, form: str, bit_depth: int) -> QuantizationPlan:
    """Decide which convolutions compute in INT8.

    Args:
        model: Static graph with named nodes.
        form: Key of FORMS.
        bit_depth: Of the frames. Above 8 the input does not fit in 8 bits without losing dim
            targets, so the convolution that reads the image stays in float.

    Returns:
        The plan: every convolution but those on pooled vectors, which cost nothing and feed gates.
    """
    shapes = _static_shapes(model)
    image = model.graph.input[0].name
    quantized, kept = [], {}
    for node in _convolutions(model):
        spatial = shapes.get(node.output[0], ())[2:]
        if spatial and all(side == 1 for side in spatial):
            kept[node.name] = "on a pooled vector: no gain, and its value feeds a gate"
        elif bit_depth > 8 and node.input[0] == image:
            kept[node.name] = f"reads {bit_depth}-bit grey levels, which 8 bits cannot hold"
        else:
            quantized.append(node.name)
    return QuantizationPlan(form, tuple(quantized), kept)


def tensors_to_calibrate(model: onnx.ModelProto, plan: QuantizationPlan) -> list[str]:
    """Return the activations that need a range, in graph order; the image is not among them."""
    image = model.graph.input[0].name
    groups = _quantized_activations(model, plan)
    return [name for name in dict.fromkeys(groups.values()) if name != image]


def quantize(
    model: onnx.ModelProto, scales: ScaleTable, plan: QuantizationPlan, image: TensorRange
) -> onnx.ModelProto:
    """Insert QuantizeLinear and DequantizeLinear as planned.

    Args:
        model: Static FP32 graph, opset 13 or later.
        scales: A range for each of `tensors_to_calibrate(model, plan)`.
        plan: From `plan_int8`.
        image: Range of the input tensor over all grey levels. It is exact, not observed: with it
            an 8-bit frame passes the input's quantization without loss.

    Returns:
        A new graph with the same input and output.

    Raises:
        CalibrationError: A range is missing.
    """
    form = FORMS[plan.form]
    groups = _quantized_activations(model, plan)
    ranges = {**scales.ranges, model.graph.input[0].name: image}
    if missing := [name for name in groups.values() if name not in ranges]:
        raise CalibrationError(f"no range for {missing[0]!r}: the scale table is of another graph")

    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []

    def insert_pair(name: str) -> None:
        scale, zero = _scale_and_zero(ranges[groups[name]], form)
        added.append(numpy_helper.from_array(scale, f"{name}_scale"))
        added.append(numpy_helper.from_array(zero, f"{name}_zero"))
        parameters = [f"{name}_scale", f"{name}_zero"]
        nodes.append(
            helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}_int8"],
                             name=f"{name}_quantize")  # fmt: skip
        )
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_int8", *parameters], [f"{name}_q"],
                             name=f"{name}_dequantize")  # fmt: skip
        )

    chosen = set(plan.int8_nodes)
    weights_done: set[str] = set()
    if graph.input[0].name in groups:
        insert_pair(graph.input[0].name)
    for node in graph.node:
        if node.name in chosen:
            weight = node.input[1]
            if weight not in weights_done:
                axis = 0 if node.op_type == "Conv" else 1
                values = numpy_helper.to_array(constants[weight])
                dequantize, tensors = _quantized_weight(weight, values, axis)
                nodes.append(dequantize)
                added += tensors
                weights_done.add(weight)
            node.input[1] = f"{weight}_q"
        for position, name in enumerate(node.input):
            if name in groups:
                node.input[position] = f"{name}_q"
        nodes.append(node)
        for name in node.output:
            if name in groups:
                insert_pair(name)
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    used = {name for node in ordered for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    constants_out = [onnx.TensorProto.FromString(c.SerializeToString()) for c in kept]
    del graph.initializer[:]
    graph.initializer.extend([*constants_out, *added])
    return out


def _convolutions(model: onnx.ModelProto) -> Iterable[onnx.NodeProto]:
    constants = {constant.name for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in constants:
            yield node


def _quantized_activations(model: onnx.ModelProto, plan: QuantizationPlan) -> dict[str, str]:
    """Map each activation that gets Q/DQ to the tensor whose range it takes.

    The input of a max-pool whose output is quantized is quantized too, with the same scale: then
    the pool runs on integers, and exactly so.
    """
    constants = {constant.name for constant in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    chosen = set(plan.int8_nodes)
    names: list[str] = []
    for node in model.graph.node:
        if node.name in chosen:
            names.append(node.input[0])
        elif node.op_type == "Add" and FORMS[plan.form].residual_additions:
            if not any(name in constants for name in node.input):
                names += node.input
    groups: dict[str, str] = {}
    for name in names:
        producer = producers.get(name)
        if producer is not None and producer.op_type == "MaxPool":
            groups[producer.input[0]] = groups[name] = producer.input[0]
        else:
            groups.setdefault(name, name)
    return groups


def _scale_and_zero(
    found: TensorRange, form: Int8Form
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    low, high = min(found.low, 0.0), max(found.high, 0.0)  # zero must be exact: convolutions pad
    if form.symmetric:
        scale = max(-low, high, _SMALLEST_SCALE) / form.highest
        return np.array(scale, np.float32), np.array(0, form.dtype)
    scale = max(high - low, _SMALLEST_SCALE) / (form.highest - form.lowest)
    zero = np.clip(np.rint(form.lowest - low / scale), form.lowest, form.highest)
    return np.array(scale, np.float32), np.array(zero, form.dtype)


def _quantized_weight(
    name: str, values: NDArray[np.float32], axis: int
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """Return the DequantizeLinear of a weight, and its constants."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    scale = np.maximum(np.abs(values).max(axis=others), _SMALLEST_SCALE) / WEIGHT_LEVELS
    shape = [-1 if index == axis else 1 for index in range(values.ndim)]
    levels = np.rint(values / scale.reshape(shape)).astype(np.int8)
    tensors = [
        numpy_helper.from_array(levels, f"{name}_int8"),
        numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"),
        numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"),
    ]
    inputs = [tensor.name for tensor in tensors]
    node = helper.make_node(
        "DequantizeLinear", inputs, [f"{name}_q"], name=f"{name}_dequantize", axis=axis
    )
    return node, tensors


def _static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in values
    }
