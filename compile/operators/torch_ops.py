"""The fused operators as torch custom operators, for `torch.export`. Needs torch.

`torch.ops.irstd.HaarGate`, `SpectralSplit` and `MSDeformAttn` have the inputs and attributes of the
ONNX nodes (docs/kernels.md). Run eagerly they are the plain torch operators, in float32. To an
exporter they are opaque: one call each, for which a builder has a converter.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from irstd.compile.operators.haar_gate import haar_gate
from irstd.compile.operators.ms_deform_attn import ms_deform_attn
from irstd.compile.operators.spectral_split import gated_bands, spectral_split
from irstd.compile.operators.torch_node import Plain
from irstd.runtime.kernels.openvino_extension import DOMAIN

SCHEMAS = {
    "HaarGate": "(Tensor x, Tensor weight, Tensor bias) -> Tensor",
    "SpectralSplit": (
        "(Tensor x, Tensor cutoff, Tensor gate_weight, Tensor gate_bias, Tensor gamma) -> Tensor"
    ),
    "MSDeformAttn": (
        "(Tensor value, Tensor offsets, Tensor logits, Tensor? reference_points, "
        "int[] level_hw, int[] query_hw) -> Tensor"
    ),
}
# Inputs in front of these are maps, in the precision of the network; kernels take the others in
# float32: weights, and coordinates, of which half would lose a share of a pixel.
FIRST_FLOAT32 = {"HaarGate": 1, "SpectralSplit": 1, "MSDeformAttn": 3}


def as_custom_operator(
    operator: str, plain: Plain, tensors: tuple[Tensor, ...], attributes: dict[str, tuple[int, ...]]
) -> Tensor:
    """Call the custom operator; for `torch_node.replaced`."""
    del plain
    register()
    maps, others = tensors[: FIRST_FLOAT32[operator]], tensors[FIRST_FLOAT32[operator] :]
    inputs: list[Any] = [*maps, *(tensor.float() for tensor in others)]
    if operator == "MSDeformAttn":
        inputs += [None] * (4 - len(inputs))
        inputs += [list(attributes["level_hw"]), list(attributes["query_hw"])]
    result: Tensor = getattr(getattr(torch.ops, DOMAIN), operator)(*inputs)
    return result


@functools.cache
def register() -> None:
    """Define the custom operators, once in a process."""
    for operator, schema in SCHEMAS.items():
        name, eager = f"{DOMAIN}::{operator}", _in_float32(_PLAIN[operator])
        torch.library.define(name, schema)
        torch.library.impl(name, "CompositeExplicitAutograd", eager)
        torch.library.register_fake(name, _SHAPES[operator])


def _in_float32(plain: Plain) -> Plain:
    """Return the operator computed in float32, its result in the type of its first input."""

    def run(*tensors: Any) -> Tensor:
        floats = [item.float() if isinstance(item, Tensor) else item for item in tensors]
        return plain(*floats).to(tensors[0].dtype)

    return run


def _attend(
    value: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor | None,
    level_hw: list[int],
    query_hw: list[int],
) -> Tensor:
    return ms_deform_attn(
        value, offsets, logits, reference_points, level_hw=level_hw, query_hw=query_hw
    ).contiguous()  # fmt: skip


def _like_first(*tensors: Tensor) -> Tensor:
    return torch.empty_like(tensors[0])


def _attended_shape(value: Tensor, offsets: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return value.new_empty(*logits.shape[:2], value.shape[2] * value.shape[3])


_PLAIN: dict[str, Callable[..., Tensor]] = {
    "HaarGate": haar_gate,
    "SpectralSplit": spectral_split,
    "MSDeformAttn": _attend,
}
_SHAPES: dict[str, Callable[..., Tensor]] = {
    "HaarGate": _like_first,
    "SpectralSplit": _like_first,
    "MSDeformAttn": _attended_shape,
}


def as_standard_operators(
    operator: str, plain: Plain, tensors: tuple[Tensor, ...], attributes: dict[str, tuple[int, ...]]
) -> Tensor:
    """Write the operator out, in float32 and in what every engine has; for `torch_node.replaced`.

    Coordinates need float32, and no engine of NVIDIA has a Fourier transform: that becomes products
    with constant matrices.
    """
    form: Plain = spectral_split_by_products if operator == "SpectralSplit" else plain
    return form(*(tensor.float() for tensor in tensors), **attributes).to(tensors[0].dtype)


def spectral_split_by_products(
    x: Tensor, cutoff: Tensor, gate_weight: Tensor, gate_bias: Tensor, gamma: Tensor
) -> Tensor:
    """Return `spectral_split` of a map of known size without a Fourier transform.

    The response depends on |u| and |v| alone, so Hartley's separable real transform, which is its
    own inverse, diagonalises it as Fourier's does (bodies.py has the same in ONNX).
    """
    basis_y, squared_y = _hartley(x.shape[2])
    basis_x, squared_x = _hartley(x.shape[3])
    squared = squared_y[:, None] + squared_x
    response = 1 / (1 + (squared / cutoff[:, None, None] ** 2) ** 2)
    low = basis_y @ ((basis_y @ x @ basis_x) * response) @ basis_x
    return gated_bands(x, low, gate_weight, gate_bias, gamma)


def _hartley(side: int) -> tuple[Tensor, Tensor]:
    """Return the orthonormal basis (S, S) and the squared frequencies (S,), computed in float64."""
    k = torch.arange(side, dtype=torch.float64)
    angle = 2 * torch.pi / side * (k[:, None] * k % side)
    basis = (angle.cos() + angle.sin()) / side**0.5
    frequency = torch.minimum(k, side - k) / side
    return basis.float(), frequency.square().float()
