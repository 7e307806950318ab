"""What a graph costs, layer by layer, as an engine would fuse it. Needs onnx.

The fusion rules, which OpenVINO, TensorRT and TensorRT for RTX share:
- A convolution, transposed convolution or matrix product takes with it what follows element by
  element, as long as nobody else reads what lies between: activations, arithmetic with a constant,
  and one residual addition.
- Other element-wise operators that feed only each other are one layer.
- QuantizeLinear and Cast belong to the layer before them, DequantizeLinear to the one after; alone
  they cost nothing, but they decide how many bytes a value has in memory.
- Views (Reshape and the like) and whatever depends on constants alone are free.
- Everything else is a layer of its own.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from irstd.compile.graph_facts import node_macs
from irstd.compile.onnx_graph import CONTROL_FLOW, attributes, checked, copy_of, known_shapes
from irstd.errors import ExportError

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# Arithmetic operations for one value of the result. An exponential counts for eight.
POINTWISE: Mapping[str, int] = {
    "Abs": 1, "Add": 1, "And": 1, "BatchNormalization": 2, "Ceil": 1, "Clip": 2, "Cos": 8, "Div": 4,
    "Elu": 9, "Equal": 1, "Erf": 10, "Exp": 8, "Floor": 1, "Gelu": 12, "Greater": 1,
    "GreaterOrEqual": 1, "HardSigmoid": 4, "HardSwish": 5, "LeakyRelu": 2, "Less": 1,
    "LessOrEqual": 1, "Log": 8, "Max": 1, "Min": 1, "Mul": 1, "Neg": 1, "Not": 1, "Or": 1,
    "PRelu": 2, "Pow": 8, "Reciprocal": 4, "Relu": 1, "Round": 1, "Selu": 9, "Sigmoid": 10,
    "Sign": 1, "Sin": 8, "Softplus": 16, "Softsign": 5, "Sqrt": 4, "Sub": 1, "Sum": 1, "Tanh": 12,
    "Where": 1,
}  # fmt: skip
# For one value of the result, one of the input, or none at all: these only move bytes.
_PER_RESULT = {"GridSample": 16, "Resize": 8, "Upsample": 8}
_PER_INPUT = {
    "GlobalAveragePool": 1, "GlobalMaxPool": 1, "GroupNormalization": 8, "InstanceNormalization": 8,
    "LayerNormalization": 8, "LogSoftmax": 12, "LpNormalization": 4, "ReduceL1": 1, "ReduceL2": 2,
    "ReduceMax": 1, "ReduceMean": 1, "ReduceMin": 1, "ReduceProd": 1, "ReduceSum": 1,
    "ReduceSumSquare": 2, "Softmax": 12, "TopK": 16, "CumSum": 1, "ArgMax": 1, "ArgMin": 1,
}  # fmt: skip
_MOVES = (
    "Concat", "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "Pad",
    "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose",
)  # fmt: skip
_READ_A_PART = ("Gather", "GatherElements", "GatherND", "Slice", "Split")
_POOLS = ("AveragePool", "MaxPool", "LpPool")
_VIEWS = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", "DequantizeLinear")
_CONVERSIONS = ("Cast", "QuantizeLinear")
_PRECISIONS = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "fp16", TensorProto.INT8: "int8",
               TensorProto.UINT8: "int8"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of an engine, as the fusion rules predict it.

    Attributes:
        name: Of the node that the others were fused into.
        kind: Its operator.
        nodes: Names of all its nodes, in graph order.
        operators: Theirs.
        precision: "int8", "fp16" or "fp32": what the products, else the values read, are in.
        macs: Multiply-adds of products.
        operations: Other arithmetic operations.
        read_bytes: Of activations that it reads, each once.
        weight_bytes: Of constants.
        write_bytes: Of values that it leaves for others.
        reduction: Products that are summed for one result; 0 where there are none.
        in_channels: Of one group, the part of `reduction` that is padded to a vector; 0 for others.
        out_channels: Of one group; for a matrix product its columns.
        pixels: Results of one output channel, of all groups.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    precision: str
    macs: int
    operations: int
    read_bytes: int
    weight_bytes: int
    write_bytes: int
    reduction: float = 0.0
    in_channels: int = 0
    out_channels: int = 0
    pixels: int = 0

    @property
    def moved_bytes(self) -> int:
        """Bytes that must pass between memory and processor."""
        return self.read_bytes + self.weight_bytes + self.write_bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one inference costs.

    Attributes:
        layers: In graph order.
        compulsory_bytes: Weights, image and result: what no engine can keep from memory.
        unknown: Operators whose arithmetic is not known here, with how many there are: of these
            only the bytes are counted.
    """

    layers: tuple[Layer, ...]
    compulsory_bytes: int
    unknown: Mapping[str, int]

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return sum(layer.macs for layer in self.layers)


@dataclasses.dataclass
class _Group:
    """A layer while it is put together."""

    anchor: NodeProto
    nodes: list[NodeProto]
    has_residual: bool = False

    @property
    def is_product(self) -> bool:
        return self.anchor.op_type in PRODUCTS

    @property
    def is_pointwise(self) -> bool:
        return self.anchor.op_type in POINTWISE


def graph_cost(model: ModelProto) -> Cost:
    """Divide a graph into layers and count what each costs.

    Args:
        model: Of fixed shape, any precision, without fused operators (`write_out` them first).

    Raises:
        ExportError: The graph is not sound, has a symbolic shape, loops or branches.
    """
    sound = checked(copy_of(model), "estimate")
    return _Fusion(sound).cost()


class _Fusion:
    """The values of one graph, and which layer makes each."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.shapes = known_shapes(model)
        self.types = {tensor.name: tensor.data_type for tensor in self.graph.initializer}
        for value in (*self.graph.input, *self.graph.output, *self.graph.value_info):
            self.types[value.name] = value.type.tensor_type.elem_type
        self.constant_bytes = {
            tensor.name: self._bytes(tensor.name) for tensor in self.graph.initializer
        }
        self.images = {value.name for value in self.graph.input} - set(self.constant_bytes)
        self.results = {value.name for value in self.graph.output}
        self.dequantized = {
            name
            for node in self.graph.node
            if node.op_type == "DequantizeLinear"
            for name in node.output
        }
        self.stored: dict[str, str] = {name: name for name in self.images}
        self.work: list[NodeProto] = []
        self._resolve_views()
        self.readers: dict[str, set[int]] = {}
        self._count_readers()
        self.group_of: dict[str, _Group] = {}
        self.groups: list[_Group] = []
        self._fuse()

    def cost(self) -> Cost:
        layers = tuple(self._layer(group) for group in self.groups)
        kinds = Counter(operator for layer in layers for operator in layer.operators)
        unknown = {kind: count for kind, count in sorted(kinds.items()) if not is_known(kind)}
        ends = sum(self._bytes(name) for name in (*self.images, *self.results))
        return Cost(layers, ends + sum(layer.weight_bytes for layer in layers), unknown)

    def _resolve_views(self) -> None:
        """Find constants, and under which name each value lies in memory; list what has to run."""
        for node in self.graph.node:
            if node.op_type in CONTROL_FLOW:
                raise ExportError(
                    f"{node.op_type} {node.name!r}: a graph with loops or branches cannot be "
                    "estimated; export the network without them"
                )
            data = [name for name in node.input if name]
            if node.op_type == "Shape" or all(name in self.constant_bytes for name in data):
                size = sum(self.constant_bytes.get(name, 0) for name in data)
                self.constant_bytes.update({name: size for name in node.output})
                continue
            source = self.stored.get(node.input[0])
            is_view = node.op_type in _VIEWS or (
                node.op_type in _CONVERSIONS and source in self.images
            )
            if is_view and source is not None:
                self.stored[node.output[0]] = source
            else:
                self.stored.update({name: name for name in node.output if name})
                self.work.append(node)

    def _count_readers(self) -> None:
        for node in self.work:
            for name in self._inputs(node):
                self.readers.setdefault(name, set()).add(id(node))
        for name in self.results:
            self.readers.setdefault(self.stored.get(name, name), set()).add(id(self.graph))

    def _inputs(self, node: NodeProto) -> list[str]:
        """Return the values in memory that a node reads, each once, without constants."""
        return list(dict.fromkeys(self.stored[name] for name in node.input if name in self.stored))

    def _fuse(self) -> None:
        for node in self.work:
            group = self._home(node)
            if group is None:
                group = _Group(node, [])
                self.groups.append(group)
            group.nodes.append(node)
            self.group_of.update({name: group for name in node.output if name})

    def _home(self, node: NodeProto) -> _Group | None:
        """Return the layer that a node is fused into, None if it begins one."""
        inputs = self._inputs(node)
        if node.op_type in _CONVERSIONS:
            return self.group_of.get(inputs[0])
        if node.op_type not in POINTWISE:
            return None
        size = self._shape(node.output[0])
        # Only a layer whose results nobody else reads can go on without storing them.
        feeding = [
            self.group_of[name]
            for name in inputs
            if name in self.group_of
            and self._shape(name) == size
            and self._feeds_only(self.group_of[name], node)
        ]
        products = [group for group in feeding if group.is_product]
        if len(inputs) == 1 and products:
            return products[0]
        joinable = [group for group in products if not group.has_residual]
        if node.op_type in ("Add", "Sum") and len(inputs) == 2 and joinable:
            # The addition's other operand must be there first: the longer one takes it.
            host = max(joinable, key=lambda group: node_macs(group.anchor, self.shapes))
            host.has_residual = True
            return host
        return self._merged([group for group in feeding if group.is_pointwise])

    def _merged(self, parts: list[_Group]) -> _Group | None:
        """Make one layer of several that feed the same node."""
        if not parts:
            return None
        last = max(parts, key=self._position)
        for part in parts:
            if part is not last:
                last.nodes[:0] = part.nodes
                self.groups = [group for group in self.groups if group is not part]
                for node in part.nodes:
                    self.group_of.update({name: last for name in node.output if name})
        return last

    def _position(self, group: _Group) -> int:
        return next(i for i, other in enumerate(self.groups) if other is group)

    def _feeds_only(self, group: _Group, node: NodeProto) -> bool:
        allowed = {id(node)} | {id(member) for member in group.nodes}
        made = (name for member in group.nodes for name in member.output)
        return all(self.readers.get(name, set()) <= allowed for name in made)

    def _layer(self, group: _Group) -> Layer:
        inside = {id(node) for node in group.nodes}
        made = {name for node in group.nodes for name in node.output if name}
        read = {name for node in group.nodes for name in self._inputs(node)} - made
        weights = {
            name for node in group.nodes for name in node.input if name in self.constant_bytes
        }
        left = [name for name in made if self.readers.get(name, set()) - inside]
        anchor = group.anchor
        reduction, in_channels, out_channels, pixels = self._geometry(anchor)
        written = sum(self._bytes(name) for name in left)
        read_bytes = sum(self._bytes(name) for name in read)
        if anchor.op_type in _READ_A_PART:
            read_bytes = min(read_bytes, written)
        return Layer(
            name=anchor.name or f"{anchor.op_type}_{anchor.output[0]}",
            kind=anchor.op_type,
            nodes=tuple(node.name for node in group.nodes),
            operators=tuple(node.op_type for node in group.nodes),
            precision=self._precision(anchor),
            macs=sum(node_macs(node, self.shapes) for node in group.nodes),
            operations=sum(self._operations(node) for node in group.nodes),
            read_bytes=read_bytes,
            weight_bytes=sum(self.constant_bytes[name] for name in weights),
            write_bytes=written,
            reduction=reduction,
            in_channels=in_channels,
            out_channels=out_channels,
            pixels=pixels,
        )

    def _precision(self, anchor: NodeProto) -> str:
        """Return what a product multiplies, or what another layer reads."""
        if anchor.op_type in PRODUCTS:
            factors = anchor.input[:2]
            if all(name in self.dequantized for name in factors):
                return "int8"
            found = {_PRECISIONS.get(self.types.get(name, 0), "fp32") for name in factors}
        else:
            found = {
                _PRECISIONS.get(self.types.get(name, 0), "fp32") for name in self._inputs(anchor)
            }
        return max(found, key=("int8", "fp16", "fp32").index, default="fp32")

    def _operations(self, node: NodeProto) -> int:
        results = sum(math.prod(self._shape(name)) for name in node.output if name)
        if node.op_type in POINTWISE:
            return POINTWISE[node.op_type] * results
        if node.op_type in _PER_RESULT:
            return _PER_RESULT[node.op_type] * results
        if node.op_type in _PER_INPUT:
            inputs = self._inputs(node)[:1]
            return _PER_INPUT[node.op_type] * sum(math.prod(self._shape(name)) for name in inputs)
        if node.op_type in _POOLS:
            return results * int(math.prod(attributes(node)["kernel_shape"]))
        return 0

    def _geometry(self, anchor: NodeProto) -> tuple[float, int, int, int]:
        """Return the last four fields of a Layer, zeros where there are no products."""
        if anchor.op_type not in PRODUCTS:
            return 0.0, 0, 0, 0
        result, right = self._shape(anchor.output[0]), self._shape(anchor.input[1])
        facts = attributes(anchor)
        if anchor.op_type in ("Conv", "ConvTranspose"):
            taps = float(math.prod(right[2:]))
            groups = int(facts.get("group", 1))
            out_channels = result[1] // groups
            in_channels = right[1] if anchor.op_type == "Conv" else right[0] // groups
            if anchor.op_type == "ConvTranspose":  # each result gets every stride-th tap
                taps /= math.prod(facts.get("strides", [1] * len(right[2:])))
        else:
            columns = right if len(right) > 1 else (*right, 1)  # a vector is one column
            taps, out_channels = 1.0, 1 if len(right) == 1 else result[-1]
            in_channels = columns[-1 if facts.get("transB") else -2]
        return in_channels * taps, in_channels, out_channels, math.prod(result) // out_channels

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name)
        if shape is None or None in shape:
            raise ExportError(
                f"value {name!r} has shape {shape}, which is not fixed: an estimate needs one "
                "size; give --imgsz HxW"
            )
        return tuple(side for side in shape if side is not None)

    def _bytes(self, name: str) -> int:
        values = math.prod(self._shape(name))
        return values * onnx.helper.tensor_dtype_to_np_dtype(self.types[name]).itemsize


def is_known(operator: str) -> bool:
    """Whether the arithmetic of an operator is counted, not its bytes alone."""
    counted = (*PRODUCTS, *POINTWISE, *_PER_RESULT, *_PER_INPUT, *_POOLS)
    return operator in (*counted, *_MOVES, *_VIEWS, *_CONVERSIONS)
