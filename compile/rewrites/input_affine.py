"""The affine at the start of a graph becomes data of the preprocessing. Needs onnx."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from irstd.compile.onnx_graph import (
    attributes,
    constants,
    consumers,
    copy_of,
    dimensions,
    output_names,
    remove_nodes,
    replace_uses,
)
from irstd.compile.rewrites.fold_batchnorm import DEFAULT_EPSILON


@dataclasses.dataclass(frozen=True)
class ChannelAffine:
    """y[c] = x[c] * scale[c] + offset[c], in float64.

    Attributes:
        scale: One factor a channel.
        offset: One offset a channel, in units of y.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def identity(cls, channels: int) -> "ChannelAffine":
        """Return the affine that changes nothing."""
        return cls((1.0,) * channels, (0.0,) * channels)

    def then(self, later: "ChannelAffine") -> "ChannelAffine":
        """Return the affine that applies this one first and `later` to its result."""
        pairs = list(zip(self.scale, self.offset, later.scale, later.offset, strict=True))
        return ChannelAffine(
            tuple(scale * factor for scale, _, factor, _ in pairs),
            tuple(offset * factor + more for _, offset, factor, more in pairs),
        )


def take_input_affine(model: ModelProto) -> tuple[ModelProto, ChannelAffine]:
    """Remove the constant per-channel operations that the image meets first.

    These are BatchNorm, Mul, Add, Sub and Div by constants, as long as one of them is all that
    reads the image. They are not folded into the convolution behind them, whose zero padding comes
    after them (docs/adr/0005-affine-not-folded.md).

    Pre: one input (1, C, H, W); constants are initialisers (`remove_dead_code`).
    Post: `rest(affine(image))` equals `model(image)` up to rounding, and `rest` starts with an
    operation that is no such affine.

    Returns:
        The rest of the graph, and the affine that it now expects to be applied outside.
    """
    copy = copy_of(model)
    image = copy.graph.input[0]
    channels = (dimensions(image) or (None, None))[1] or 1
    affine = ChannelAffine.identity(channels)
    while True:
        readers = consumers(copy).get(image.name, [])
        if len(readers) != 1 or readers[0].output[0] in output_names(copy):
            return copy, affine
        step = _affine_of(readers[0], image.name, channels, constants(copy))
        if step is None:
            return copy, affine
        affine = affine.then(step)
        remove_nodes(copy, [readers[0]])
        replace_uses(copy, readers[0].output[0], image.name)


def _affine_of(
    node: NodeProto, image: str, channels: int, values: dict[str, NDArray[Any]]
) -> ChannelAffine | None:
    if node.op_type == "BatchNormalization":
        if not all(name in values for name in node.input[1:5]):
            return None
        gamma, beta, mean, variance = (values[name].astype(np.float64) for name in node.input[1:5])
        factor = gamma / np.sqrt(variance + attributes(node).get("epsilon", DEFAULT_EPSILON))
        return _affine(factor, beta - mean * factor)
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    image_first = node.input[0] == image
    constant = _per_channel(values.get(node.input[1 if image_first else 0]), channels)
    if constant is None or (node.op_type == "Div" and not image_first):
        return None
    zeros, ones = np.zeros(channels), np.ones(channels)
    if node.op_type == "Mul":
        return _affine(constant, zeros)
    if node.op_type == "Div":
        return _affine(1.0 / constant, zeros) if np.all(constant) else None
    if node.op_type == "Add":
        return _affine(ones, constant)
    return _affine(ones, -constant) if image_first else _affine(-ones, constant)


def _per_channel(value: NDArray[Any] | None, channels: int) -> NDArray[np.float64] | None:
    """Return a constant as one number a channel, if it is constant over each channel's map."""
    if value is None or value.ndim > 4:
        return None
    sides = (1,) * (4 - value.ndim) + value.shape
    if sides[0] != 1 or sides[1] not in (1, channels) or sides[2:] != (1, 1):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float64)


def _affine(scale: NDArray[np.float64], offset: NDArray[np.float64]) -> ChannelAffine:
    return ChannelAffine(tuple(map(float, scale)), tuple(map(float, offset)))
