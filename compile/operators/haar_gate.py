"""Haar gate, the attention of MSDA-Net's blocks, as a torch module."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irstd.compile.operators.torch_node import fused
from irstd.runtime.kernels.haar_gate.reference import BANDS, FILTERS, KERNEL_PX


class HaarGate(nn.Module):
    """Weights every pixel by what four undecimated Haar bands hold there (models.md 1.8).

    Attributes:
        weight: (4, 2, 7, 7): for the bands LH, HL, HH, LL the kernel on the channel maximum and on
            the channel mean.
        bias: (4,).
    """

    def __init__(self) -> None:
        super().__init__()
        gates = [nn.Conv2d(2, 1, KERNEL_PX) for _ in BANDS]
        self.weight = nn.Parameter(torch.cat([gate.weight.detach() for gate in gates]))
        self.bias = nn.Parameter(torch.cat([gate.get_parameter("bias").detach() for gate in gates]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W): x times the sum of the gates of its bands."""
        return fused("HaarGate", haar_gate, x, self.weight, self.bias)


def haar_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x times the sum of the sigmoid gates of its four bands, in torch operators.

    Args:
        x: (N, C, H, W).
        weight: (4, 2, 7, 7).
        bias: (4,).
    """
    images, channels, height, width = x.shape
    filters = torch.as_tensor(FILTERS, dtype=x.dtype, device=x.device)[:, None]
    maps = F.pad(x.reshape(images * channels, 1, height, width), (1, 0, 1, 0))
    bands = F.conv2d(maps, filters).reshape(images, channels, len(BANDS), height, width)
    pooled = torch.stack([bands.amax(1), bands.mean(1)], 2).flatten(1, 2)
    gates = F.conv2d(pooled, weight, bias, padding=KERNEL_PX // 2, groups=len(BANDS))
    return x * gates.sigmoid().sum(1, keepdim=True)
