"""Multi-scale deformable attention as a torch module: SimIRSTD, and networks of DETR's family."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irstd.compile.operators.torch_node import fused


class MSDeformAttn(nn.Module):
    """Deformable attention with its four projections (models.md 3.3).

    The names of its parameters are those of the published modules.

    Args:
        channels: Of queries, source and result; a multiple of `heads`.
        levels: L, number of maps in the source.
        heads: M.
        points: P, samples of a query on each level, for each head.
    """

    def __init__(
        self, channels: int = 256, levels: int = 4, heads: int = 8, points: int = 4
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels; wanted a multiple of {heads} heads")
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let each head look in a direction of its own, each point a pixel farther out."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance_px = torch.arange(1, self.points + 1)
        offsets = direction[:, None, None] * distance_px[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).reshape(-1))

    def forward(
        self,
        query: Tensor,
        source: Tensor,
        level_hw: Sequence[int],
        query_hw: Sequence[int] = (),
        reference_points: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (N, Lq, C), with its position embedding.
            source: (N, S, C): the levels one after the other, each row-major.
            level_hw: H0, W0, H1, W1, ...
            query_hw: Hq, Wq: queries are the pixels of a grid and refer to their own centres. Empty
                with `reference_points`.
            reference_points: (N, Lq, 2), (x, y) in [0, 1] of the image.

        Returns:
            (N, Lq, C).
        """
        images, queries = query.shape[:2]
        shape = (images, queries, self.heads, self.levels, self.points)
        value = self.value_proj(source).view(images, source.shape[1], self.heads, -1)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        logits = self.attention_weights(query).view(shape)
        inputs = [value, offsets, logits]
        if reference_points is not None:
            inputs.append(reference_points)
        attended = fused(
            "MSDeformAttn",
            ms_deform_attn,
            *inputs,
            level_hw=tuple(int(side) for side in level_hw),
            query_hw=tuple(int(side) for side in query_hw),
        )
        result: Tensor = self.output_proj(attended)
        return result


def ms_deform_attn(
    value: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor | None = None,
    *,
    level_hw: Sequence[int],
    query_hw: Sequence[int] = (),
) -> Tensor:
    """Return the softmax-weighted sum of L * P bilinear samples, in torch operators.

    Args:
        value: (N, S, M, D).
        offsets: (N, Lq, M, L, P, 2), (x, y) in pixels of the level.
        logits: (N, Lq, M, L, P).
        reference_points: (N, Lq, 2), (x, y) in [0, 1]; None with `query_hw`.
        level_hw: H0, W0, H1, W1, ...
        query_hw: Hq, Wq; empty with `reference_points`.

    Returns:
        (N, Lq, M * D).
    """
    images, queries, heads, _, points = logits.shape
    if reference_points is None:
        reference_points = _pixel_centres(query_hw, offsets)[None]
    attention = logits.flatten(3).softmax(-1).view(logits.shape)
    sides = list(zip(level_hw[::2], level_hw[1::2], strict=True))
    maps = torch.split(value, [height * width for height, width in sides], 1)
    total = torch.zeros((), dtype=value.dtype, device=value.device)
    for level, (height, width) in enumerate(sides):
        size = torch.tensor([width, height], dtype=offsets.dtype, device=offsets.device)
        location = reference_points[:, :, None, None] + offsets[:, :, :, level] / size
        grid = (2 * location - 1).transpose(1, 2).flatten(0, 1)  # (N M, Lq, P, 2)
        image = maps[level].permute(0, 2, 3, 1).reshape(images * heads, -1, height, width)
        samples = F.grid_sample(image, grid, align_corners=False)  # (N M, D, Lq, P)
        weight = attention[:, :, :, level].transpose(1, 2).reshape(-1, 1, queries, points)
        total = total + (samples * weight).sum(-1)
    return total.reshape(images, -1, queries).transpose(1, 2)


def _pixel_centres(query_hw: Sequence[int], like: Tensor) -> Tensor:
    """Return (height * width, 2): (x, y) in [0, 1] of the pixels of a grid, row-major."""
    height, width = query_hw
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)
