"""A scalar factor into the weights of what follows. Needs onnx."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from irstd.compile.onnx_graph import (
    add_constant,
    attributes,
    constants,
    copy_of,
    output_names,
    remove_nodes,
    replace_uses,
)

_LINEAR = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_NEED_ALL_SCALED = ("Add", "Sub", "Concat", "Sum", "Max", "Min")
_HOMOGENEOUS = (  # f(c x) = c f(x) for c > 0
    "Relu",
    "LeakyRelu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Resize",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "DepthToSpace",
    "SpaceToDepth",
)


@dataclasses.dataclass(frozen=True)
class _Reach:
    """Where a set of factors goes: `origins[value]` are the Muls whose factor reaches it."""

    origins: dict[str, frozenset[str]]
    absorbers: list[NodeProto]
    blamed: frozenset[str]


def fold_scale(model: ModelProto) -> ModelProto:
    """Remove Muls by a positive power of two whose factor every path carries into weights.

    A fusion block computes `post(2 a s + 2 b t)`: both factors commute with the products and the
    sum and end in the weights of `post`, which saves two passes over the maps. Only powers of two
    are moved, since they change no rounding.

    Pre: constants are initialisers (`remove_dead_code`).
    Post: same result, bit for bit, unless a value leaves the range of normal float32.
    """
    copy = copy_of(model)
    values = constants(copy)
    factors = {
        node.output[0]: factor
        for node in copy.graph.node
        if (factor := _power_of_two(node, values)) is not None
    }
    for factor in sorted(set(factors.values())):
        _fold(copy, {name for name, own in factors.items() if own == factor}, factor)
    return copy


def _power_of_two(node: NodeProto, values: dict[str, NDArray[Any]]) -> float | None:
    """Return the constant scalar that a Mul applies, if it is a power of two other than 1."""
    if node.op_type != "Mul":
        return None
    found = [values[name] for name in node.input if name in values and values[name].size == 1]
    if len(found) != 1 or found[0].ndim > 1 or found[0].dtype.kind != "f":
        return None
    factor = float(found[0].reshape(-1)[0])
    is_power = factor > 0 and math.isfinite(factor) and math.frexp(factor)[0] == 0.5
    return factor if is_power and factor != 1.0 else None


def _fold(model: ModelProto, muls: set[str], factor: float) -> None:
    """Fold the largest subset of `muls` (by output name) that reaches only weights."""
    values = constants(model)
    while muls:
        reach = _follow(model, muls, values)
        if not reach.blamed:
            break
        muls = muls - reach.blamed
    if not muls:
        return
    for node in reach.absorbers:
        _absorb(model, node, reach, values, factor)
    for node in [node for node in model.graph.node if node.output[0] in muls]:
        source = next(name for name in node.input if name not in values)
        remove_nodes(model, [node])
        replace_uses(model, node.output[0], source)


def _follow(model: ModelProto, muls: set[str], values: dict[str, NDArray[Any]]) -> _Reach:
    origins: dict[str, frozenset[str]] = {}
    absorbers: list[NodeProto] = []
    blamed: frozenset[str] = frozenset()
    for node in model.graph.node:  # topological order: origins of inputs are known
        scaled = [name for name in node.input if name in origins]
        reached = frozenset[str]().union(*(origins[name] for name in scaled))
        if node.output[0] in muls:
            # A factor of a factor would square; the inner one stays.
            blamed |= reached
            origins[node.output[0]] = frozenset({node.output[0]})
        elif not scaled:
            continue
        elif _absorbs(node, scaled, values):
            absorbers.append(node)
        elif _passes_on(node, scaled):
            origins[node.output[0]] = reached
        else:
            blamed |= reached
    for name in output_names(model) & origins.keys():
        blamed |= origins[name]
    return _Reach(origins, absorbers, blamed)


def _absorbs(node: NodeProto, scaled: list[str], values: dict[str, NDArray[Any]]) -> bool:
    if node.op_type not in _LINEAR or len(scaled) != 1:
        return False
    other = node.input[1] if node.input[0] == scaled[0] else node.input[0]
    only_factor = scaled[0] in (node.input[0], node.input[1])
    return only_factor and other in values and values[other].dtype.kind == "f"


def _passes_on(node: NodeProto, scaled: list[str]) -> bool:
    if len([name for name in node.output if name]) != 1:
        return False
    if node.op_type in ("Mul", "Div"):
        return scaled == [node.input[0]] or (node.op_type == "Mul" and scaled == [node.input[1]])
    if node.op_type in _NEED_ALL_SCALED:
        return len(scaled) == len(node.input)
    if attributes(node).get("extrapolation_value", 0.0) != 0.0:
        return False  # a Resize that reads this number outside of the map
    return node.op_type in _HOMOGENEOUS and scaled == [node.input[0]]


def _absorb(
    model: ModelProto,
    node: NodeProto,
    reach: _Reach,
    values: dict[str, NDArray[Any]],
    factor: float,
) -> None:
    index = 1 if node.input[0] in reach.origins else 0
    weight = values[node.input[index]]
    scaled = (weight * np.asarray(factor, weight.dtype)).astype(weight.dtype)
    node.input[index] = add_constant(model, f"{node.input[index]}_scaled", scaled)
