"""The definition of multi-scale deformable attention (models.md 3.3), numpy float64, no tricks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Projections:
    """The four linear layers of the module, weights (out, in) and biases (out,).

    M heads of D channels, L levels, P points; C channels in, E out.
    """

    value_weight: NDArray[np.float32]  # (M * D, C)
    value_bias: NDArray[np.float32]
    offset_weight: NDArray[np.float32]  # (M * L * P * 2, C), rows in the order M, L, P, (x, y)
    offset_bias: NDArray[np.float32]
    logit_weight: NDArray[np.float32]  # (M * L * P, C), rows in the order M, L, P
    logit_bias: NDArray[np.float32]
    output_weight: NDArray[np.float32]  # (E, M * D)
    output_bias: NDArray[np.float32]


def ms_deform_attn(
    value: NDArray[np.floating],
    offsets: NDArray[np.floating],
    logits: NDArray[np.floating],
    reference_points: NDArray[np.floating] | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Return for every query and head the softmax-weighted sum of L * P bilinear samples.

    Args:
        value: (N, S, M, D): the levels one after the other, each row-major.
        offsets: (N, Lq, M, L, P, 2), (x, y) in pixels of the level.
        logits: (N, Lq, M, L, P).
        reference_points: (N, Lq, 2), (x, y) in [0, 1] of the image; None with `query_hw`.
        level_hw: H0, W0, H1, W1, ...
        query_hw: Hq, Wq with Hq * Wq = Lq: queries are the pixels of a grid, row-major, and each
            refers to its own centre. Empty with `reference_points`.

    Returns:
        (N, Lq, M * D). Outside a level its values are zero.
    """
    value, offsets, logits = (np.asarray(a, np.float64) for a in (value, offsets, logits))
    images, queries, heads = logits.shape[:3]
    if reference_points is None:
        reference_points = _pixel_centres(*query_hw)[None]
    reference_points = np.asarray(reference_points, np.float64)[
        :, :, None, None
    ]  # (N, Lq, 1, 1, 2)
    flat = logits.reshape(images, queries, heads, -1)
    exponentials = np.exp(flat - flat.max(-1, keepdims=True))
    attention = (exponentials / exponentials.sum(-1, keepdims=True)).reshape(logits.shape)

    out = np.zeros((images, queries, heads, value.shape[-1]))
    start = 0
    for level, (height, width) in enumerate(zip(level_hw[::2], level_hw[1::2], strict=True)):
        end = start + height * width
        maps = value[:, start:end].reshape(images, height, width, heads, -1)
        xy_px = reference_points * (width, height) - 0.5 + offsets[:, :, :, level]
        samples = _sample(maps, xy_px)  # (N, Lq, M, P, D)
        out += (attention[:, :, :, level, :, None] * samples).sum(3)
        start = end
    return out.reshape(images, queries, -1)


def ms_deform_attn_module(
    query: NDArray[np.floating],
    source: NDArray[np.floating],
    projections: Projections,
    reference_points: NDArray[np.floating] | None = None,
    *,
    heads: int,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Return deformable attention with its four projections.

    Args:
        query: (N, Lq, C), with its position embedding; offsets and logits come from it.
        source: (N, S, C); the values come from it.
        projections: The weights.
        reference_points: As in `ms_deform_attn`.
        heads: M.
        level_hw: As in `ms_deform_attn`.
        query_hw: As in `ms_deform_attn`.

    Returns:
        (N, Lq, E).
    """
    p = projections
    images, queries = query.shape[:2]
    levels = len(level_hw) // 2
    value = _linear(source, p.value_weight, p.value_bias)
    offsets = _linear(query, p.offset_weight, p.offset_bias)
    logits = _linear(query, p.logit_weight, p.logit_bias)
    attended = ms_deform_attn(
        value.reshape(images, value.shape[1], heads, -1),
        offsets.reshape(images, queries, heads, levels, -1, 2),
        logits.reshape(images, queries, heads, levels, -1),
        reference_points,
        level_hw=level_hw,
        query_hw=query_hw,
    )
    return _linear(attended, p.output_weight, p.output_bias)


def dequantize(
    value_u8: NDArray[np.uint8], scale: NDArray[np.floating], zero: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return scale * (value - zero) of (N, S, M, D) values; scale and zero are (M,)."""
    scale, zero = (np.asarray(a, np.float64)[:, None] for a in (scale, zero))
    return scale * (value_u8.astype(np.float64) - zero)


def _pixel_centres(height: int, width: int) -> NDArray[np.float64]:
    """Return (height * width, 2): (x, y) in [0, 1] of the pixels of a grid, row-major."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(-1, 2)


def _linear(
    x: NDArray[np.floating], weight: NDArray[np.floating], bias: NDArray[np.floating]
) -> NDArray[np.float64]:
    x, weight, bias = (np.asarray(a, np.float64) for a in (x, weight, bias))
    y: NDArray[np.float64] = x @ weight.T + bias
    return y


def _sample(maps: NDArray[np.float64], xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample (N, H, W, M, D) maps bilinearly at (N, Lq, M, P, 2) points: (N, Lq, M, P, D)."""
    images, height, width, heads, _ = maps.shape
    corner = np.floor(xy_px)
    fraction = xy_px - corner
    image = np.arange(images)[:, None, None, None]
    head = np.arange(heads)[None, None, :, None]
    total = np.zeros((*xy_px.shape[:-1], maps.shape[-1]))
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[..., 0] + dx, corner[..., 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            column = np.where(inside, x, 0).astype(np.int64)
            row = np.where(inside, y, 0).astype(np.int64)
            weight_x = fraction[..., 0] if dx else 1 - fraction[..., 0]
            weight_y = fraction[..., 1] if dy else 1 - fraction[..., 1]
            tap = maps[image, row, column, head]
            total += np.where(inside, weight_x * weight_y, 0)[..., None] * tap
    return total
