"""Which operators of a graph the deep learning accelerators of Jetson Orin could run. Needs onnx.

The rules are NVIDIA's published restrictions, not a trial: TensorRT decides for itself when it
builds, and what it sends to the GPU instead is in its log. Sources:
- docs.nvidia.com, TensorRT, "DLA Supported Layers and Restrictions" (general limits, layer table);
- TensorRT 8.6 Developer Guide, "DLA Supported Layers and Restrictions" (ranges of padding, dilation
  and windows, resize scales, shapes that broadcast);
- github.com/NVIDIA/Deep-Learning-Accelerator-SW, operators/README.md (operators of ONNX that reach
  the DLA of Orin through TensorRT: global pooling and reductions do not).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from onnx import ModelProto, NodeProto

from irstd.compile.graph_facts import Shapes, node_macs
from irstd.compile.onnx_graph import attributes, checked, constants, copy_of, known_shapes
from irstd.devices import Device

MAX_SIDE = 8192
MAX_LOADABLES = 16  # that one core keeps at a time
NOTE = (
    "predicted from NVIDIA's published restrictions, not tried; TensorRT up to 10.7, or 11.4.1 and "
    "later on AGX Orin, builds for DLA; before 11.4.1 it takes no Q/DQ there, so INT8 means FP16"
)
# These disappear when an engine is built, or are merged into what stands before or behind them.
_FREE = (
    "Cast", "Constant", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear", "Reshape",
    "Squeeze", "Unsqueeze",
)  # fmt: skip
_ACTIVATIONS = ("Clip", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh")
_ELEMENTWISE = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Sum")


@dataclasses.dataclass(frozen=True)
class DlaNode:
    """One operator.

    Attributes:
        name: Of the node.
        operator: Its type.
        reason: Why it runs on the GPU; empty if the DLA could run it.
    """

    name: str
    operator: str
    reason: str

    @property
    def fits(self) -> bool:
        """Whether the DLA could run it."""
        return not self.reason


@dataclasses.dataclass(frozen=True)
class DlaReport:
    """What of a graph the DLA could run.

    Attributes:
        nodes: Of the graph, in order, but those that cost nothing.
        loadables: Runs of such operators in graph order; each becomes a program of the DLA, and
            between two of them values pass through memory to the GPU and back.
        mac_share: Of the multiply-adds, in [0, 1].
    """

    nodes: tuple[DlaNode, ...]
    loadables: int
    mac_share: float

    @property
    def reasons(self) -> Mapping[str, int]:
        """Return why operators do not fit, with how many there are, the most frequent first."""
        kept = Counter(f"{n.operator}: {n.reason}" for n in self.nodes if not n.fits)
        return dict(kept.most_common())

    @property
    def fits_loadables(self) -> bool:
        """Whether one core can keep all of it at a time."""
        return self.loadables <= MAX_LOADABLES


def dla_report(model: ModelProto, device: Device) -> DlaReport | None:
    """Say which operators the DLA of a device could run.

    Args:
        model: Of fixed shape, without fused operators.
        device: A board.

    Returns:
        The report; None for a device without DLA.

    Raises:
        ExportError: The graph is not sound.
    """
    if not device.dla_cores:
        return None
    sound = checked(copy_of(model), "DLA report")
    shapes, values = known_shapes(sound), set(constants(sound))
    fixed = set(values)
    nodes: list[DlaNode] = []
    total = fitting = 0
    for node in sound.graph.node:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
            continue
        if node.op_type in _FREE:
            continue
        reason = _reason(node, shapes, fixed)
        nodes.append(DlaNode(node.name or node.output[0], node.op_type, reason))
        macs = node_macs(node, shapes)
        total += macs
        fitting += 0 if reason else macs
    starts = sum(
        node.fits and (index == 0 or not nodes[index - 1].fits) for index, node in enumerate(nodes)
    )
    return DlaReport(tuple(nodes), starts, fitting / total if total else 0.0)


def _reason(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    for name in (*node.input, *node.output):
        shape = shapes.get(name, ())
        if name not in fixed and any(side is None for side in shape):
            return "a side is not fixed"
        if name not in fixed and any(side is not None and side > MAX_SIDE for side in shape[1:]):
            return f"a side is longer than {MAX_SIDE}"
    rule = _RULES.get(node.op_type)
    if rule is None:
        return "TensorRT does not run this operator on DLA"
    if len(shapes.get(node.output[0], ())) != 4:
        return "the result is not (N, C, H, W)"
    return rule(node, shapes, fixed)


def _convolution(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    if node.input[1] not in fixed:
        return "the weights are computed"
    facts, weight = attributes(node), shapes[node.input[1]]
    checks = (
        ("kernel", weight[2:], 1, 32),
        ("stride", facts.get("strides", ()), 1, 8),
        ("padding", facts.get("pads", ()), 0, 31),
        ("dilation", facts.get("dilations", ()), 1, 32),
        ("output channels", weight[:1], 1, MAX_SIDE),
    )
    return _ranges(checks)


def _deconvolution(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    if node.input[1] not in fixed:
        return "the weights are computed"
    facts, weight = attributes(node), shapes[node.input[1]]
    if any(facts.get("pads", ())) or any(facts.get("output_padding", ())):
        return "its padding must be 0"
    if facts.get("group", 1) != 1:
        return "it must not be grouped"
    if any(side != 1 for side in facts.get("dilations", ())):
        return "it must not be dilated"
    checks = (("kernel", weight[2:], 1, 32), ("stride", facts.get("strides", ()), 1, 32))
    return _ranges(checks)


def _pool(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    del shapes, fixed
    facts = attributes(node)
    if any(side != 1 for side in facts.get("dilations", ())):
        return "it must not be dilated"
    checks = (
        ("window", facts["kernel_shape"], 1, 8),
        ("stride", facts.get("strides", ()), 1, 16),
        ("padding", facts.get("pads", ()), 0, 7),
    )
    return _ranges(checks)


def _elementwise(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    result = shapes[node.output[0]]
    for name in node.input:
        sides = shapes.get(name, ())
        whole = (1,) * (4 - len(sides)) + tuple(sides)
        if whole != result and whole[2:] != (1, 1):
            return f"an operand of shape {sides} is broadcast along the height or width"
    del fixed
    return ""


def _concatenation(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    del shapes, fixed
    if len(node.input) < 2 or attributes(node).get("axis") not in (1, -3):
        return "it must join two or more maps along the channels"
    return ""


def _resize(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    del fixed
    facts = attributes(node)
    mode = facts.get("mode", b"nearest")
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    largest = {b"nearest": 32, b"linear": 4}.get(mode)
    if largest is None:
        return f"mode {mode.decode()}: it must be nearest or bilinear"
    half_pixel = facts.get("coordinate_transformation_mode", b"half_pixel") == b"half_pixel"
    if mode == b"linear" and not half_pixel:
        return "bilinear resizing must be half_pixel"
    for small, large in zip(before[2:], after[2:], strict=True):
        if not small or not large or large % small or large // small > largest:
            return f"it must enlarge by a whole number up to {largest}"
    return "" if before[:2] == after[:2] else "it must keep batch and channels"


def _product(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    del shapes
    return "" if node.input[1] in fixed else "its second factor must be constant"


def _always(node: NodeProto, shapes: Shapes, fixed: set[str]) -> str:
    del node, shapes, fixed
    return ""


def _ranges(checks: Sequence[tuple[str, Sequence[int | None], int, int]]) -> str:
    for what, sides, low, high in checks:
        for side in sides:
            if side is None or not low <= side <= high:
                return f"{what} {side}: it must be {low} to {high}"
    return ""


_Rule = Callable[[NodeProto, Shapes, set[str]], str]
_RULES: dict[str, _Rule] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "BatchNormalization": _always,
    "Concat": _concatenation,
    "Gemm": _product,
    "MatMul": _product,
    "Resize": _resize,
    **dict.fromkeys(_ACTIVATIONS, _always),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}
