"""The layer table of an engine, as TensorRT's inspector prints it.

TensorRT for RTX prints it at the end of a detailed build, so it is had without a GPU: what the
compiled engine reads, holds and writes, layer by layer. Which kernel computes a layer is chosen on
the card.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Sequence

HEADING = "Layers:"
_KINDS = ("correlation", "convolution", "deconv", "deconvolution")
_PRECISIONS = {"Int8": "int8", "Half": "fp16", "Float": "fp32"}
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+)"
    r"(?:, Inputs: \[(?P<inputs>.*?)\](?=, Constants: |, Outputs: |, TacticName: |, StreamId: |$))?"
    r"(?:, Constants: \[(?P<constants>.*?)\](?=, Outputs: |, TacticName: |, StreamId: |$))?"
    r"(?:, Outputs: \[(?P<outputs>.*?)\](?=, TacticName: |, StreamId: |, Metadata: |$))?"
    r".*?(?:, Metadata: (?P<metadata>.*))?$"
)
_BYTES = {"Int8": 1, "UInt8": 1, "Bool": 1, "Half": 2, "Float": 4, "Int32": 4, "Int64": 8}
_TENSOR = re.compile(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[ONNX Layer: |\x1f|__|$)")
_MYELIN_SUFFIX = re.compile(r"_myl\d+_\d+$")


@dataclasses.dataclass(frozen=True)
class EngineLayer:
    """One layer of a compiled engine.

    Attributes:
        name: TensorRT's name of it.
        kind: TensorRT's kind, such as "correlation" (a convolution) or "kgen" (a generated kernel).
        nodes: The ONNX nodes that it computes, or parts of them.
        reads: Types of its inputs, in TensorRT's names ("Int8", "Half", "Float").
        holds: Types of its constants: weights first.
        writes: Types of its outputs.
        moved_bytes: Of its inputs and outputs: what it moves through memory a frame, weights aside.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    holds: tuple[str, ...]
    writes: tuple[str, ...]
    moved_bytes: int

    @property
    def precision(self) -> str:
        """What a convolution computes in: "int8" only if activation and weights are INT8."""
        operands = {*self.reads[:1], *(self.holds[:1] or self.reads[1:2])}
        if len(operands) == 1:
            return _PRECISIONS.get(found := next(iter(operands)), found)
        return "mixed" if operands else "unknown"


def read_layers(text: str) -> tuple[EngineLayer, ...]:
    """Return the layers of an inspector's table, empty if `text` holds none.

    Args:
        text: What the builder logs, or what the inspector answers in its one-line format.
    """
    lines = text.partition("\nI/O Tensors:")[0].splitlines()
    matches = (_LAYER.match(line) for line in lines)
    return tuple(_layer(match) for match in matches if match)


def _layer(match: re.Match[str]) -> EngineLayer:
    reads, holds, writes = (
        tuple(_DATATYPE.findall(match[part] or "")) for part in ("inputs", "constants", "outputs")
    )
    moved_bytes = _size_bytes(match["inputs"]) + _size_bytes(match["outputs"])
    nodes = tuple(_ONNX_NODE.findall(match["metadata"] or ""))
    return EngineLayer(match["name"], match["kind"], nodes, reads, holds, writes, moved_bytes)


def _size_bytes(tensors: str | None) -> int:
    """Return the bytes of the tensors of one list; those of unknown shape or type count nothing."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * _BYTES.get(kind, 0)
        for sides, kind in _TENSOR.findall(tensors or "")
    )


def convolution_precisions(
    layers: Sequence[EngineLayer], convolutions: Collection[str]
) -> dict[str, str]:
    """Return what each convolution of a graph became in the engine.

    Args:
        layers: From `read_layers`.
        convolutions: Names of the graph's nodes.

    Returns:
        By node: "int8", "fp16", "fp32"; "mixed" if its operands differ; "absent" if no layer
        names it.
    """
    found: dict[str, str] = {}
    for layer in layers:
        if layer.kind in _KINDS:
            own = _MYELIN_SUFFIX.sub("", layer.name)
            found |= dict.fromkeys({own, *layer.nodes}, layer.precision)
    # Those that were fused into something else. Epilogues name their convolution, too, but the
    # first round has found that one.
    for layer in layers:
        found = dict.fromkeys(layer.nodes, layer.precision) | found
    return {node: found.get(node, "absent") for node in convolutions}
