"""What keeps a graph from running well on NVIDIA's engines, found before an engine is built.

TensorRT 8.6 to 11 and TensorRT for RTX read precision from the graph: Q and DQ, and Casts. They
accept more than they run fast or exactly; these are the rules that make the difference, each with
its reason. Our own graphs keep them all; what a foreign one violates is in the report of its build.
Needs onnx.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from irstd.compile.half import MAX_FLOAT16, SUMS_OF_MAPS, coordinate_nodes
from irstd.compile.onnx_graph import attributes, constants, consumers, dimensions, producers

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# They move codes about, or choose among them: integers in, integers out.
_KEEPING_CODES = (
    "Concat", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_FUSED_AFTER = ("Relu", "Clip", "LeakyRelu")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One violation of a rule.

    Attributes:
        rule: Name of the rule, key of RULES.
        node: Name of the node, or of its first output.
        reason: What is wrong, and what it costs.
    """

    rule: str
    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason} ({self.rule})"


class _Graph:
    """A graph with what every rule looks up."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = constants(model)
        self.makers = producers(model)
        self.readers = consumers(model)
        values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
        self.kinds = {value.name: value.type.tensor_type.elem_type for value in values}
        self.kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}

    def of(self, *kinds: str) -> Iterator[NodeProto]:
        return (node for node in self.nodes if node.op_type in kinds)

    def made_by(self, name: str, *kinds: str) -> bool:
        return name in self.makers and self.makers[name].op_type in kinds

    def is_integer(self, node: NodeProto) -> bool:
        """Whether a layer with weights computes on codes: both operands are dequantized."""
        return node.op_type in _WEIGHTED and all(
            self.made_by(name, _DEQUANTIZE) for name in node.input[:2]
        )

    def is_fusible(self, name: str, *, behind_pair: bool = False) -> bool:
        """Whether only one node reads a value, and a convolution on codes makes it.

        Args:
            name: Of the value.
            behind_pair: Look at what was quantized and dequantized to it, for that node alone.
        """
        for kind in (_DEQUANTIZE, _QUANTIZE) if behind_pair else ():
            if not self.made_by(name, kind) or len(self.readers[name]) > 1:
                return False
            name = self.makers[name].input[0]
        alone = len(self.readers.get(name, ())) == 1
        return alone and name in self.makers and self.is_integer(self.makers[name])


_Found = Iterator[tuple[NodeProto, str]]


def lint(model: ModelProto) -> tuple[Finding, ...]:
    """Hold a graph against the rules.

    Args:
        model: Checked graph, with the shapes and types of its values (onnx_graph.checked).

    Returns:
        What was found, by rule and then in the order of the graph; empty for a graph that NVIDIA's
        engines run as it is meant.
    """
    graph = _Graph(model)
    return tuple(
        Finding(rule, node.name or node.output[0], reason)
        for rule, check in RULES.items()
        for node, reason in check(graph)
    )


def _fixed_shape(graph: _Graph) -> _Found:
    for value in graph.model.graph.input:
        shape = dimensions(value) or (None,)
        if None in shape or shape[0] != 1:
            node = graph.readers.get(value.name, graph.nodes)[0]
            yield (
                node,
                f"its input {value.name!r} has the shape {shape}; wanted a fixed one, batch 1",
            )


def _signed(graph: _Graph) -> _Found:
    for node in graph.of(_QUANTIZE, _DEQUANTIZE):
        if node.input[0] in graph.constants and graph.kinds[node.input[0]] != TensorProto.INT8:
            continue  # biases have a rule of their own
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else np.uint8(0)
        if zero is None or np.any(zero) or zero.dtype != np.int8:
            what = "unknown" if zero is None else f"{zero.dtype}, zero point {np.max(zero)}"
            yield node, f"its codes are {what}; TensorRT takes int8 around 0 only"


def _float_bias(graph: _Graph) -> _Found:
    for node in graph.of(_DEQUANTIZE):
        if graph.kinds.get(node.input[0]) == TensorProto.INT32:
            yield node, "dequantizes int32, which TensorRT's parser refuses: biases stay float"


def _positive_scale(graph: _Graph) -> _Found:
    for node in graph.of(_QUANTIZE, _DEQUANTIZE):
        scale = graph.constants.get(node.input[1])
        if scale is None:
            yield node, "its scale is no constant"
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield node, f"its smallest scale is {scale.min():g}, which the parser refuses"


def _channel_scales(graph: _Graph) -> _Found:
    for node in graph.of("Conv", "ConvTranspose"):
        maker = graph.makers.get(node.input[1])
        if maker is None or maker.op_type != _DEQUANTIZE or maker.input[1] not in graph.constants:
            continue
        axis = 0 if node.op_type == "Conv" else 1
        scale = graph.constants[maker.input[1]]
        if scale.ndim != 1 or (scale.size > 1 and attributes(maker).get("axis", 1) != axis):
            yield node, f"its weights have no scale for each output channel (axis {axis}): coarser"


def _both_operands(graph: _Graph) -> _Found:
    for node in graph.of(*_WEIGHTED):
        dequantized = [graph.made_by(name, _DEQUANTIZE) for name in node.input[:2]]
        if dequantized == [False, True]:
            yield node, "its weights are quantized and its input is not: it computes in float"


def _transposed(graph: _Graph) -> _Found:
    for node in graph.of("ConvTranspose"):
        if graph.is_integer(node):
            yield node, "TensorRT for RTX computes it in float, and its weights are codes no use"


def _lonely_pair(graph: _Graph) -> _Found:
    """Q and DQ between layers that compute in float: rounded, and reformatted, for nothing."""
    for node in graph.of(_QUANTIZE):
        pairs = graph.readers.get(node.output[0], [])
        readers = [
            reader
            for pair in pairs
            if pair.op_type == _DEQUANTIZE
            for reader in graph.readers.get(pair.output[0], [])
        ]
        if readers and not any(_computes_on_codes(graph, reader) for reader in readers):
            kinds = ", ".join(sorted({reader.op_type for reader in readers}))
            yield node, f"only {kinds} reads its codes, in float: rounded for nothing"


def _computes_on_codes(graph: _Graph, node: NodeProto) -> bool:
    if node.op_type in _WEIGHTED:
        return graph.is_integer(node)
    if node.op_type == "Add":
        return _is_read_as_codes(graph, node)
    return node.op_type in _KEEPING_CODES and any(
        reader.op_type == _QUANTIZE or _computes_on_codes(graph, reader)
        for name in node.output
        for reader in graph.readers.get(name, [])
    )


def _residual_sum(graph: _Graph) -> _Found:
    """The sum of an INT8 convolution and a shortcut: one kernel, if the shortcut alone is codes."""
    for node in graph.of("Add"):
        if not _is_read_as_codes(graph, node) or any(
            name in graph.constants for name in node.input
        ):
            continue
        dequantized = [graph.made_by(name, _DEQUANTIZE) for name in node.input]
        if not any(dequantized) and any(map(graph.is_fusible, node.input)):
            yield node, "its shortcut is float, so its convolution writes floats to be quantized"
        if all(dequantized) and any(
            graph.is_fusible(name, behind_pair=True) for name in node.input
        ):
            yield node, "Q and DQ between its convolution and this sum keep the two apart"


def _is_read_as_codes(graph: _Graph, node: NodeProto) -> bool:
    """Whether the result is quantized, at once or after an activation."""
    return any(
        reader.op_type == _QUANTIZE
        or (reader.op_type in _FUSED_AFTER and _is_read_as_codes(graph, reader))
        for reader in graph.readers.get(node.output[0], [])
    )


def _half_coordinates(graph: _Graph) -> _Found:
    reasons = coordinate_nodes(graph.model)
    for node in graph.nodes:
        if node.output[0] in reasons and _is_half(graph, node):
            yield node, f"computes in float16 with {reasons[node.output[0]]}"


def _half_sums(graph: _Graph) -> _Found:
    for node in graph.of(*SUMS_OF_MAPS):
        if _is_half(graph, node):
            yield node, f"sums a whole map in float16, which ends at {MAX_FLOAT16:g}"


def _half_range(graph: _Graph) -> _Found:
    for node in graph.nodes:
        for name in node.input:
            value = graph.constants.get(name)
            if value is not None and value.dtype == np.float16 and not np.isfinite(value).all():
                yield node, f"its constant {name!r} has left the range of float16"


def _is_half(graph: _Graph, node: NodeProto) -> bool:
    return graph.kinds.get(node.output[0]) == TensorProto.FLOAT16


RULES: dict[str, Callable[[_Graph], _Found]] = {
    "fixed-shape": _fixed_shape,
    "signed-codes": _signed,
    "float-bias": _float_bias,
    "positive-scale": _positive_scale,
    "channel-scales": _channel_scales,
    "both-operands": _both_operands,
    "transposed-float": _transposed,
    "no-lonely-pair": _lonely_pair,
    "residual-sum": _residual_sum,
    "coordinates-float32": _half_coordinates,
    "sums-float32": _half_sums,
    "float16-range": _half_range,
}
