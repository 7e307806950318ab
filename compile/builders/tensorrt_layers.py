"""The layers of a TensorRT engine, from the JSON of its inspector.

Version 11 names some fields otherwise than 10, and a plan that was built without details lists
names only: what a field does not say is left empty here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from irstd.errors import BuildError, one_line

# As TensorRT writes a type, alone or within a sentence on the layout of a tensor.
_TYPES = (
    (re.compile(r"\bINT8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(FP16|HALF)\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\b(FP32|FLOAT)\b", re.IGNORECASE), "fp32"),
)
_FIELDS = ("Format/Datatype", "Datatype", "DataType")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]+)\]")


@dataclass(frozen=True)
class PlanLayer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's, which joins the names of what it fused.
        kind: TensorRT's, such as "CaskConvolution"; empty if not told.
        nodes: The ONNX nodes that it computes, where told.
        reads: Types of its inputs: "int8", "fp16", "fp32", or as TensorRT writes others.
        writes: Types of its outputs.
        tactic: The kernel that was chosen; empty if not told.
    """

    name: str
    kind: str = ""
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    tactic: str = ""

    @property
    def precision(self) -> str:
        """Type of its first input, which decides what it computes in; "unknown" if not told."""
        return self.reads[0] if self.reads else "unknown"


def read_plan_layers(text: str) -> tuple[PlanLayer, ...]:
    """Read what the inspector returns for a whole engine.

    Args:
        text: JSON of `get_engine_information`.

    Raises:
        BuildError: It is not such JSON.
    """
    try:
        document = json.loads(text)
        layers = document["Layers"]
        return tuple(_layer(layer) for layer in layers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(
            f"TensorRT's inspector lists no layers ({type(error).__name__}): {one_line(text, 120)}"
        ) from error


def count_precisions(layers: Iterable[PlanLayer]) -> Mapping[str, int]:
    """Return how many layers compute in which precision, the most frequent first."""
    return dict(Counter(layer.precision for layer in layers).most_common())


def _layer(layer: str | Mapping[str, Any]) -> PlanLayer:
    if isinstance(layer, str):
        return PlanLayer(layer)
    return PlanLayer(
        name=str(layer["Name"]),
        kind=str(layer.get("LayerType", "")),
        nodes=tuple(dict.fromkeys(_ONNX_NODE.findall(str(layer.get("Metadata", ""))))),
        reads=tuple(_type(tensor) for tensor in layer.get("Inputs", ())),
        writes=tuple(_type(tensor) for tensor in layer.get("Outputs", ())),
        tactic=str(layer.get("TacticName", "")),
    )


def _type(tensor: Mapping[str, Any]) -> str:
    text = next((str(tensor[field]) for field in _FIELDS if field in tensor), "unknown")
    return next((name for pattern, name in _TYPES if pattern.search(text)), text)
