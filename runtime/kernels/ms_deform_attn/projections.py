"""The linear layers of deformable attention as the CPU form takes them: floats or integers."""

import ctypes
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.runtime.kernels.arrays import check_array
from irstd.runtime.kernels.ms_deform_attn.reference import Projections
from irstd.runtime.kernels.ms_deform_attn.shapes import check_quantization

PANEL = 16  # columns of weights that lie together
# Of weights of u8 activations: 16 bits hold the sum of two products. Of the output layer's: s8.
LARGEST_7_BIT, LARGEST_8_BIT = 64, 127
# What one of the 16-bit sums of the byte core is in steps of a value: BYTE_SUM_UNIT in C++.
_SUM_UNIT = 32768 / 32767 / 255
_MIDDLE = 128  # of u8; the core counts from there


class LinearStruct(ctypes.Structure):
    """irstd_ms_deform_attn_linear."""

    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("depth", ctypes.c_int32),
        ("columns", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Quantization:
    """Scales and zeros of u8 numbers: number = scale * (u8 - zero)."""

    query_scale: float
    query_zero: int
    source_scale: float
    source_zero: int
    value_scale: NDArray[np.float32]  # (M,)
    value_zero: NDArray[np.float32]  # (M,), whole


@dataclass(frozen=True)
class PackedLinear:
    """scale * (activations * weights) + shift, in panels of columns."""

    panels: NDArray[np.generic]  # (panels, depth, 16), or (panels, depth / n, 16, n) integers
    scale: NDArray[np.float32]  # of columns, padded to whole panels
    shift: NDArray[np.float32]
    depth: int
    columns: int

    def struct(self) -> LinearStruct:
        """Return it for C; it must not outlive this."""
        return LinearStruct(
            self.panels.ctypes.data,
            self.scale.ctypes.data,
            self.shift.ctypes.data,
            self.depth,
            self.columns,
        )


@dataclass(frozen=True)
class PackedProjections:
    """The layers of the module, ready for the CPU form: made once, used for every image."""

    heads: int
    channels: int  # C, of query and source
    points_per_query: int  # M * L * P
    value: PackedLinear
    points: PackedLinear  # offsets, then logits
    output: PackedLinear
    quantization: Quantization | None  # None in float32

    @property
    def d_head(self) -> int:
        """Channels of a head."""
        return self.value.columns // self.heads


def pack_projections(projections: Projections, heads: int) -> PackedProjections:
    """Lay out the layers for float32.

    Raises:
        InputError: The layers do not fit together or to `heads`.
    """
    p = projections
    _check(p, heads)
    return PackedProjections(
        heads,
        p.value_weight.shape[1],
        len(p.logit_bias),
        _pack_floats(p.value_weight, p.value_bias),
        _pack_floats(*_points(p)),
        _pack_floats(p.output_weight, p.output_bias),
        None,
    )


def pack_projections_u8(
    projections: Projections, heads: int, quantization: Quantization
) -> PackedProjections:
    """Lay out the layers for integers: weights in 7 bits, the output layer's in s8.

    Args:
        projections: In float32; weights are rounded here.
        heads: M.
        quantization: Of query, source and values.

    Raises:
        InputError: The layers do not fit together or to `heads`, d_head is 1, or a scale or zero is
            out of range.
    """
    p, q = projections, quantization
    _check(p, heads)
    d_head = len(p.value_bias) // heads
    if d_head == 1:
        raise InputError("value_weight: got d_head 1; wanted 8, 16 or 32, or the module in float32")
    check_quantization(q.value_scale, q.value_zero, heads)
    for name, scale, zero in (
        ("query", q.query_scale, q.query_zero),
        ("source", q.source_scale, q.source_zero),
    ):
        if not (np.isfinite(scale) and scale > 0 and zero in range(256)):
            raise InputError(
                f"{name}: got scale {scale}, zero {zero}; "
                "wanted a finite number above 0 and a whole number from 0 to 255"
            )
    value_scale = np.repeat(q.value_scale.astype(np.float64), d_head)
    value_zero = np.repeat(q.value_zero.astype(np.float64), d_head)
    value = _pack_bytes(p.value_weight, p.value_bias, q.source_scale, q.source_zero)
    value = replace(
        value,
        scale=_padded(value.scale[: value.columns] / value_scale),
        shift=_padded(value.shift[: value.columns] / value_scale + value_zero),
    )
    points = _pack_bytes(*_points(p), q.query_scale, q.query_zero)
    weight, weight_scale = quantize_weights(p.output_weight * value_scale, LARGEST_8_BIT)
    output = _pack_integers(
        weight,
        weight_scale * _SUM_UNIT,
        p.output_bias + weight_scale * (weight @ (_MIDDLE - value_zero)),
        np.int16,
    )
    return PackedProjections(
        heads, p.value_weight.shape[1], len(p.logit_bias), value, points, output, q
    )


def observe(
    query: NDArray[np.float32],
    source: NDArray[np.float32],
    layers: Projections,
    heads: int,
) -> Quantization:
    """Return the quantization whose ranges are those of example inputs and their values.

    Args:
        query: (N, Lq, C), finite.
        source: (N, S, C), finite.
        layers: The weights.
        heads: M.
    """
    value = source @ layers.value_weight.T + layers.value_bias
    of_heads = [_range(part) for part in np.split(value, heads, -1)]
    scale, zero = (np.array(numbers, np.float32) for numbers in zip(*of_heads, strict=True))
    return Quantization(*_range(query), *_range(source), scale, zero)


def _range(numbers: NDArray[np.float32]) -> tuple[float, int]:
    """Return scale and zero with which u8 reach from the least number to the largest."""
    least, most = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    scale = (most - least) / 255 or 1.0
    return scale, round(-least / scale)


def quantize_weights(
    weight: NDArray[np.floating], largest_whole: int
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return weights (out, in) as whole numbers and the scale of each output."""
    largest = np.abs(weight).max(1).astype(np.float64)
    scale = np.where(largest > 0, largest, 1) / largest_whole
    return np.round(weight / scale[:, None]).astype(np.int16), scale


def _points(p: Projections) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return (
        np.concatenate([p.offset_weight, p.logit_weight]),
        np.concatenate([p.offset_bias, p.logit_bias]),
    )


def _check(p: Projections, heads: int) -> None:
    check_array("value_weight", p.value_weight, (None, None))
    check_array("logit_weight", p.logit_weight, (None, p.value_weight.shape[1]))
    check_array("output_weight", p.output_weight, (None, len(p.value_weight)))
    check_array(
        "offset_weight", p.offset_weight, (2 * len(p.logit_weight), *p.logit_weight.shape[1:])
    )
    for name in ("value", "offset", "logit", "output"):
        weight, bias = getattr(p, f"{name}_weight"), getattr(p, f"{name}_bias")
        check_array(f"{name}_bias", bias, (len(weight),))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InputError(
                f"{name}_weight, {name}_bias: hold NaN or infinity; wanted finite ones"
            )
    if heads < 1 or len(p.value_weight) % heads or len(p.logit_weight) % heads:
        raise InputError(
            f"heads: got {heads} for {len(p.value_weight)} values, {len(p.logit_weight)} logits; "
            "wanted a number that divides both"
        )


def _pack_floats(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> PackedLinear:
    columns, depth = weight.shape
    panels = _panels(weight).transpose(0, 2, 1)
    return PackedLinear(
        _copy(panels, np.float32), _padded(np.ones(columns)), _padded(bias), depth, columns
    )


def _pack_bytes(
    weight: NDArray[np.float32], bias: NDArray[np.float32], scale: float, zero: int
) -> PackedLinear:
    """Lay out a layer of activations scale * (u8 - zero)."""
    whole, weight_scale = quantize_weights(weight, LARGEST_7_BIT)
    scales = scale * weight_scale
    return _pack_integers(whole, scales, bias - scales * zero * whole.sum(1), np.int8)


def _pack_integers(
    weight: NDArray[np.int16],
    scale: NDArray[np.float64],
    shift: NDArray[np.floating],
    dtype: type[np.generic],
) -> PackedLinear:
    columns, depth = weight.shape
    together = 4 // np.dtype(dtype).itemsize  # numbers in 32 bits
    padded = depth + -depth % together
    panels = _panels(np.pad(weight, ((0, 0), (0, padded - depth))))
    groups = panels.reshape(len(panels), PANEL, padded // together, together)
    return PackedLinear(
        _copy(groups.transpose(0, 2, 1, 3), dtype), _padded(scale), _padded(shift), padded, columns
    )


def _panels(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return (panels, PANEL, depth), outputs padded with zeros."""
    columns, depth = weight.shape
    padded = np.pad(weight, ((0, -columns % PANEL), (0, 0)))
    return padded.reshape(-1, PANEL, depth)


def _padded(numbers: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.pad(numbers, (0, -len(numbers) % PANEL)).astype(np.float32)


def _copy(array: NDArray[np.generic], dtype: type[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array, dtype)
