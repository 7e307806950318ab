"""INT8 by explicit Q/DQ: the precision is in the graph, so every engine reads the same decision.

Two forms come from one scale table. `cpu` has unsigned activations, which CPU engines compute
fastest, and only convolutions read them: residual sums and gates stay in float. `nvidia` is
symmetric and signed; of a residual addition the shortcut is quantized and the convolution is not,
so that TensorRT fuses the two; transposed convolutions stay in float, because TensorRT for RTX
computes them so whatever the graph asks, and so do convolutions of very few channels. Weights are
symmetric, one scale an output channel; biases stay float. Why: docs/adr/0013-int8-for-nvidia.md.
compile/lint.py holds any graph against these rules.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.compile.graph_facts import Shapes, value_shapes
from irstd.compile.onnx_graph import add_constant, checked, constants, copy_of, fresh_name
from irstd.compile.rewrites.dead_code import remove_dead_code
from irstd.errors import CalibrationError, ExportError
from irstd.types import InputSpec

# Grey levels that one code of the input may span. The signed form has half the codes for an image,
# which is not symmetric: 1 to 2. Deeper frames would lose their dim targets: 64 at 14 bits.
MAX_LEVELS_PER_CODE = 2.5
FEWEST_CHANNELS = 4  # that a convolution of the head makes in INT8: a word of bytes
# Float16 begins at 2^-24; from here on a scale has a precision of 1/16, and codes go by its value.
_SMALLEST_SCALES = {np.float32: 1e-8, np.float16: 2.0**-20}
_OUTWARDS = 1e-4


ScaleType = type[np.float32] | type[np.float16]


@dataclasses.dataclass(frozen=True)
class Int8Form:
    """How activations are written.

    Attributes:
        lowest: Lowest quantized value.
        highest: Highest quantized value.
        dtype: Of the quantized tensor.
        symmetric: Whether the zero point is 0.
        residual_additions: Whether the shortcut of a residual Add is quantized, and whatever else
            reads a quantized activation reads it as such.
        transposed: Whether transposed convolutions compute in INT8.
        pools: Whether a max-pool before a convolution runs on codes.
        fewest_inputs: Channels that a convolution reads, at least, to compute in INT8.
        weight_levels: Highest quantized weight.
    """

    lowest: int
    highest: int
    dtype: type[np.uint8] | type[np.int8]
    symmetric: bool
    residual_additions: bool
    transposed: bool
    pools: bool
    fewest_inputs: int
    weight_levels: int


# By the names in irstd.manifest_json.INT8_FORMS.
FORMS: dict[str, Int8Form] = {
    # CPUs without 8-bit dot products add pairs of products in 16 bits: 2 * 255 * 127 saturates,
    # 2 * 255 * 63 does not, so the same bundle computes the same on every CPU. They also pool bytes
    # of fewer than 32 channels one by one, in more time than floats (measured: OpenVINO on AVX2).
    "cpu": Int8Form(
        0, 255, np.uint8,
        symmetric=False, residual_additions=False, transposed=True, pools=False, fewest_inputs=1,
        weight_levels=63,
    ),
    # INT8 tensor cores read vectors of 32 channels, those of float16 vectors of 8: up to 16 are
    # padded to as many bytes as float16 takes, and to as much time at twice its rate.
    "nvidia": Int8Form(
        -127, 127, np.int8,
        symmetric=True, residual_additions=True, transposed=False, pools=True, fewest_inputs=17,
        weight_levels=127,
    ),
}  # fmt: skip
# What an Add passes its codes on through: they keep its scale, or are fused with it.
_PASSING = ("Relu", "Clip", "MaxPool", "Identity")


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Which nodes compute in INT8.

    Attributes:
        form: Key of FORMS.
        int8_nodes: Names of the convolutions that do.
        float_nodes: Names of those that do not, each with the reason.
        untouched: Names of nodes of any kind that read no quantized value.
    """

    form: str
    int8_nodes: tuple[str, ...]
    float_nodes: Mapping[str, str]
    untouched: frozenset[str] = frozenset()


def plan_int8(
    model: onnx.ModelProto, form: str, spec: InputSpec, untouched: frozenset[str] = frozenset()
) -> QuantizationPlan:
    """Decide which convolutions compute in INT8.

    Args:
        model: Static graph whose nodes have distinct names.
        form: Key of FORMS.
        spec: The input. Where 8 bits are too coarse for its grey levels, the convolutions that read
            the image stay in float.
        untouched: Names of nodes that stay as they are: fused operators that were written out.

    Returns:
        The plan: every convolution but those; but those on pooled vectors, which cost nothing and
        feed gates; but those that read fewer channels than the form asks for; and but the last one,
        whose rounding goes straight into the logits, with those before it that make too few
        channels to gain anything.
    """
    shapes = value_shapes(model)
    head = _head(model, shapes)
    image = model.graph.input[0].name
    levels, fewest = grey_levels_per_code(spec, form), FORMS[form].fewest_inputs
    quantized, kept = [], {}
    for node in _convolutions(model):
        spatial = shapes.get(node.output[0], ())[2:]
        if node.name in untouched:
            kept[node.name] = "in a gate or transform that a kernel computes in float32"
        elif spatial and all(side == 1 for side in spatial):
            kept[node.name] = "on a pooled vector: no gain, and its value feeds a gate"
        elif node.op_type == "ConvTranspose" and not FORMS[form].transposed:
            kept[node.name] = "transposed: TensorRT for RTX computes it in float all the same"
        elif node.name in head:
            kept[node.name] = "in the head: its rounding goes straight into the logits"
        elif node.input[0] == image and levels > MAX_LEVELS_PER_CODE:
            kept[node.name] = (
                f"reads the image, {spec.bit_depth} bit: one of 256 codes would span "
                f"{levels:.3g} grey levels"
            )
        elif (channels := shapes[node.input[0]][1]) is not None and channels < fewest:
            what = f"{channels} channel{'s' if channels > 1 else ''}"
            kept[node.name] = f"reads {what}: INT8 pads to 32, no gain over float16"
        else:
            quantized.append(node.name)
    return QuantizationPlan(form, tuple(quantized), kept, untouched)


def _head(model: onnx.ModelProto, shapes: Shapes) -> set[str]:
    """Return the names of the last convolution and of those before it that make very few channels.

    They lie on the unbranched way to the output. None where there is no other convolution.
    """
    fixed = constants(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    node = producers.get(model.graph.output[0].name)
    while node is not None and node.op_type != "ConvTranspose":  # that is still decoding
        if node.op_type == "Conv":
            channels = shapes[node.output[0]][1]
            if found and (channels is None or channels >= FEWEST_CHANNELS):
                break
            found.add(node.name)
        sources = [name for name in node.input if name and name not in fixed]
        node = producers.get(sources[0]) if len(sources) == 1 else None
    return found if any(node.name not in found for node in _convolutions(model)) else set()


def image_range(spec: InputSpec) -> TensorRange:
    """Return the range of the input tensor over all grey levels: exact, not observed."""
    top = 1.0 if spec.per_frame_max else float(spec.max_level)
    pairs = list(zip(spec.scale, spec.offset, strict=True))
    ends = [level * scale + offset for level in (0.0, top) for scale, offset in pairs]
    return TensorRange(min(ends), max(ends), min(ends), max(ends), 0.0)


def grey_levels_per_code(spec: InputSpec, form: str) -> float:
    """Return how many grey levels one quantized value of the input spans.

    1: a frame passes the input's quantization without loss. Of several channels the finest counts;
    with `per_frame_max` that of a saturated frame.
    """
    code, _ = scale_and_zero(image_range(spec), FORMS[form])
    levels = spec.max_level if spec.per_frame_max else 1
    steps = [abs(scale) / levels for scale in spec.scale if scale]
    return float(code) / min(steps) if steps else 0.0


def tensors_to_calibrate(model: onnx.ModelProto, plan: QuantizationPlan) -> list[str]:
    """Return the activations that need a range, in graph order; the image is not among them."""
    image = model.graph.input[0].name
    groups = _quantized_activations(model, plan)
    return [name for name in dict.fromkeys(groups.values()) if name != image]


def quantize(
    model: onnx.ModelProto,
    scales: ScaleTable,
    plan: QuantizationPlan,
    spec: InputSpec,
    scale_type: ScaleType = np.float32,
) -> onnx.ModelProto:
    """Insert QuantizeLinear and DequantizeLinear as planned.

    Args:
        model: Static FP32 graph, opset 13 or later.
        scales: A range for each of `tensors_to_calibrate(model, plan)`.
        plan: From `plan_int8`.
        spec: The input, whose range follows from its grey levels.
        scale_type: Scales are values of it, stored as float32; what is quantized is so by these
            values. np.float16 where `to_float16` follows.

    Returns:
        A new checked graph with the same input and output.

    Raises:
        CalibrationError: A range is missing.
        ExportError: The result is not sound ONNX.
    """
    groups = _quantized_activations(model, plan)
    image = model.graph.input[0].name
    ranges = {**scales.ranges, image: image_range(spec)}
    if absent := sorted(set(plan.int8_nodes) - {node.name for node in model.graph.node}):
        raise ExportError(f"{absent[0]!r} is planned for INT8 but not in the graph any more")
    if missing := [name for name in groups.values() if name not in ranges]:
        raise CalibrationError(f"no range for {missing[0]!r}: the scale table is of another graph")
    out = copy_of(model)
    weights = constants(model)
    chosen = set(plan.int8_nodes)
    dequantized: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def add(pair: tuple[list[onnx.NodeProto], str], name: str) -> None:
        nodes.extend(pair[0])
        dequantized[name] = pair[1]

    if image in groups:
        add(_activation_pair(out, image, ranges[image], plan.form, scale_type), image)
    for node in out.graph.node:
        if node.name in chosen:
            weight, axis = node.input[1], 0 if node.op_type == "Conv" else 1
            key = f"{weight}_axis{axis}"
            if key not in dequantized:
                values, levels = weights[weight], FORMS[plan.form].weight_levels
                add(_dequantized_weight(out, key, axis, values, levels, scale_type), key)
            node.input[1] = dequantized[key]
        if node.name in chosen or _reads_codes(node, plan):
            for position, name in enumerate(node.input):
                node.input[position] = dequantized.get(name, name)
        nodes.append(node)
        for name in node.output:
            if name in groups:
                found = ranges[groups[name]]
                add(_activation_pair(out, name, found, plan.form, scale_type), name)
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del out.graph.node[:]
    out.graph.node.extend(ordered)
    return checked(remove_dead_code(out), "INT8")


def scale_and_zero(
    found: TensorRange, form: Int8Form, scale_type: ScaleType = np.float32
) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Return the scale () float32 and zero point () of a range.

    Zero is always exact, because convolutions pad with it; a range that leaves it out is widened.
    """
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    smallest = _SMALLEST_SCALES[scale_type]
    if form.symmetric:
        scale = max(max(-low, high) / form.highest, smallest)
        return np.array(scale).astype(scale_type).astype(np.float32), np.array(0, form.dtype)
    scale = max((high - low) / (form.highest - form.lowest), smallest)
    zero = form.lowest - low / scale
    if abs(zero % 1 - 0.5) < _OUTWARDS:
        # Grey levels normalised by a mean of 127.5 lie halfway between codes, and rounding to even
        # would send them in pairs to every second code. Slightly finer codes make all round
        # outwards, and only the two highest levels share one.
        scale *= 1 - _OUTWARDS
    zero_point = np.clip(np.rint(form.lowest - low / scale), form.lowest, form.highest)
    return np.array(scale, np.float32), np.array(zero_point, form.dtype)


def _reads_codes(node: onnx.NodeProto, plan: QuantizationPlan) -> bool:
    """Whether a node that does not compute in INT8 reads quantized values where there are some."""
    return FORMS[plan.form].residual_additions and node.name not in plan.untouched


def _convolutions(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    weights = {constant.name for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in weights:
            yield node


def _quantized_activations(model: onnx.ModelProto, plan: QuantizationPlan) -> dict[str, str]:
    """Map each activation that gets Q/DQ to the tensor whose range it takes.

    The output of a max-pool takes that of the pool's input. Where the form pools codes, the input
    is quantized too, and the maximum of codes is exactly the code of the maximum.
    """
    shortcuts = _shortcuts(model, plan)
    producers = {name: node for node in model.graph.node for name in node.output}
    names: list[str] = []
    for node in model.graph.node:
        if node.name in plan.int8_nodes:
            names.append(node.input[0])
        elif node.name in shortcuts:
            names.append(shortcuts[node.name])
    groups: dict[str, str] = {}
    for name in names:
        chain = [name]
        while chain[-1] in producers and producers[chain[-1]].op_type == "MaxPool":
            chain.append(producers[chain[-1]].input[0])
        quantized = chain if FORMS[plan.form].pools else chain[:1]
        groups.update(dict.fromkeys(reversed(quantized), chain[-1]))
    return groups


def _shortcuts(model: onnx.ModelProto, plan: QuantizationPlan) -> dict[str, str]:
    """Map each residual addition that has to read codes to its input that becomes codes.

    The other input is of an INT8 convolution that nothing else reads. It stays as it is: an engine
    adds the shortcut to the convolution's sums and writes codes at once, where Q and DQ in between
    would force the two apart and round a signed value that is wider than the sum. Nothing is
    quantized where the sum is not read as codes, too: a pair of Q and DQ would only round what is
    float before and after it, such as the maps that a gate has multiplied.
    """
    if not FORMS[plan.form].residual_additions:
        return {}
    fixed = {constant.name for constant in model.graph.initializer}
    fusing = {node.output[0] for node in model.graph.node if node.name in plan.int8_nodes}
    reads = Counter(name for node in model.graph.node for name in node.input)
    read_as_codes: set[str] = set()
    found: dict[str, str] = {}
    for node in reversed(model.graph.node):
        if node.name in plan.int8_nodes:
            read_as_codes.add(node.input[0])
        elif read_as_codes.isdisjoint(node.output):
            continue
        elif node.op_type in _PASSING:
            read_as_codes.add(node.input[0])
        elif node.op_type == "Add" and _reads_codes(node, plan) and fixed.isdisjoint(node.input):
            # Of two convolutions the first: the other is what stands in for an identity.
            for name, shortcut in (node.input, node.input[::-1]):
                if name in fusing and reads[name] == 1:
                    found[node.name] = shortcut
                    read_as_codes.add(shortcut)
                    break
    return found


def _activation_pair(
    out: onnx.ModelProto, name: str, found: TensorRange, form: str, scale_type: ScaleType
) -> tuple[list[onnx.NodeProto], str]:
    """Return Q and DQ of an activation, and the name of their result."""
    scale, zero = scale_and_zero(found, FORMS[form], scale_type)
    parameters = [fresh_name(out, f"{name}_{kind}") for kind in ("scale", "zero")]
    for parameter, value in zip(parameters, (scale, zero), strict=True):
        out.graph.initializer.append(numpy_helper.from_array(value, parameter))
    codes, result = fresh_name(out, f"{name}_int8"), fresh_name(out, f"{name}_dequantized")
    pair = [
        helper.make_node("QuantizeLinear", [name, *parameters], [codes], f"{codes}_q"),
        helper.make_node("DequantizeLinear", [codes, *parameters], [result], f"{codes}_dq"),
    ]
    return pair, result


def _dequantized_weight(
    out: onnx.ModelProto,
    stem: str,
    axis: int,
    values: NDArray[np.float32],
    highest: int,
    scale_type: ScaleType,
) -> tuple[list[onnx.NodeProto], str]:
    """Return the DQ of a weight, and the name of its result."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / highest, _SMALLEST_SCALES[scale_type])
    scale = scale.astype(scale_type).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(values.ndim)]
    levels = np.clip(np.rint(values / scale.reshape(shape)), -highest, highest)
    inputs = [
        add_constant(out, f"{stem}_int8", levels.astype(np.int8)),
        add_constant(out, f"{stem}_scale", scale),
        add_constant(out, f"{stem}_zero", np.zeros(len(scale), np.int8)),
    ]
    result = fresh_name(out, f"{stem}_dequantized")
    node = helper.make_node("DequantizeLinear", inputs, [result], f"{result}_dq", axis=axis)
    return [node], result
