"""Spectral split, the core of LGLDNet's frequency-aware enhancement, as a torch module."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irstd.compile.operators.torch_node import fused
from irstd.runtime.kernels.spectral_split.reference import (
    BANDS,
    HIGHEST_FREQUENCY,
    KERNEL_PX,
    POOLS,
)

_FIRST_CUTOFF = 0.1  # as a share of the highest frequency


class SpectralSplit(nn.Module):
    """Adds to a map its gated low and high band, split by a Butterworth filter (models.md 4.5).

    Args:
        channels: C of the map.

    Attributes:
        alpha: (C,); the cutoff is sigmoid(alpha) of the highest frequency.
        gate_weight: (2, 2, 7, 7): for the low and the high band the kernel on the channel mean and
            on the channel maximum.
        gate_bias: (2,).
        gamma: (2, C): the gain of every channel of the low and the high band.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        logit = math.log(_FIRST_CUTOFF / (1 - _FIRST_CUTOFF))
        self.alpha = nn.Parameter(torch.full((channels,), logit))
        gates = nn.Conv2d(len(POOLS), len(BANDS), KERNEL_PX)
        self.gate_weight, self.gate_bias = gates.weight, gates.get_parameter("bias")
        self.gamma = nn.Parameter(torch.ones(len(BANDS), channels))

    @property
    def cutoff(self) -> Tensor:
        """(C,), cycles per pixel."""
        return self.alpha.sigmoid() * HIGHEST_FREQUENCY

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W), for any height and width."""
        return fused(
            "SpectralSplit",
            spectral_split,
            x,
            self.cutoff,
            self.gate_weight,
            self.gate_bias,
            self.gamma,
        )


def spectral_split(
    x: Tensor, cutoff: Tensor, gate_weight: Tensor, gate_bias: Tensor, gamma: Tensor
) -> Tensor:
    """Return x plus its gated low and high band, in torch operators.

    Args:
        x: (N, C, H, W).
        cutoff: (C,), cycles per pixel, above 0.
        gate_weight: (2, 2, 7, 7).
        gate_bias: (2,).
        gamma: (2, C).
    """
    height, width = x.shape[2:]
    low = torch.fft.irfft2(torch.fft.rfft2(x) * butterworth(height, width, cutoff), (height, width))
    return gated_bands(x, low, gate_weight, gate_bias, gamma)


def gated_bands(
    x: Tensor, low: Tensor, gate_weight: Tensor, gate_bias: Tensor, gamma: Tensor
) -> Tensor:
    """Return x plus its low band and the rest of it, each weighted by its gate and gain.

    Args:
        x: (N, C, H, W).
        low: (N, C, H, W), the low band of x.
        gate_weight: (2, 2, 7, 7).
        gate_bias: (2,).
        gamma: (2, C).
    """
    bands = torch.stack([low, x - low], 1)  # (N, 2, C, H, W)
    pooled = torch.stack([bands.mean(2), bands.amax(2)], 2).flatten(1, 2)
    logits = F.conv2d(pooled, gate_weight, gate_bias, padding=KERNEL_PX // 2, groups=len(BANDS))
    gains = logits.sigmoid()[:, :, None] * gamma[None, :, :, None, None]
    return x + (bands * gains).sum(1)


def butterworth(height: int, width: int, cutoff: Tensor) -> Tensor:
    """Return the response (C, H, W // 2 + 1) of the low-pass of second order.

    Args:
        height: H of the map, px.
        width: W of the map, px.
        cutoff: (C,), cycles per pixel, above 0.
    """
    u = torch.fft.fftfreq(height, dtype=cutoff.dtype, device=cutoff.device)
    v = torch.fft.rfftfreq(width, dtype=cutoff.dtype, device=cutoff.device)
    squared = u[:, None] ** 2 + v**2
    response: Tensor = 1 / (1 + (squared / cutoff[:, None, None] ** 2) ** 2)
    return response
