"""Blocks that several networks share (models.md 1.1). All tensors are (N, C, H, W) float32."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "group"]

TARGET_PRIOR = 0.01


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Return BatchNorm, or GroupNorm over one group of all channels."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, projected where stride or width changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def residual_stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Return `blocks` BasicBlocks, the first of which changes width and resolution."""
    first = BasicBlock(in_channels, out_channels, stride)
    rest = (BasicBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def contextual_stem(in_channels: int, width: int, input_norm_eps: float) -> nn.Sequential:
    """Return the stem of ACM and ALCNet: input BatchNorm, three CBR 3x3, max-pool; stride 4.

    Args:
        in_channels: Channels of the image, 1 or 3.
        width: Channels after the stem; the first two convolutions have half of it.
        input_norm_eps: eps of the BatchNorm on the raw input (ADR 0008).
    """
    half = width // 2
    return nn.Sequential(
        nn.BatchNorm2d(in_channels, eps=input_norm_eps),
        nn.Conv2d(in_channels, half, 3, 2, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, 1, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    )


class AsymBiChaFuse(nn.Module):
    """Asymmetric bi-directional channel fusion of a high-level and a low-level feature."""

    def __init__(self, channels: int, norm: Norm, reduction: int = 4) -> None:
        super().__init__()
        inner = channels // reduction
        self.topdown = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            make_norm(norm, inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            make_norm(norm, channels),
            nn.Sigmoid(),
        )
        self.bottomup = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            make_norm(norm, inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            make_norm(norm, channels),
            nn.Sigmoid(),
        )
        self.post = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1), make_norm(norm, channels), nn.ReLU()
        )

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Fuse two (N, C, H, W) features of one resolution into one."""
        fused = 2 * low * self.topdown(high) + 2 * high * self.bottomup(low)
        out: Tensor = self.post(fused)
        return out


class FCNHead(nn.Module):
    """3x3 convolution to a quarter of the channels, then 1x1 to one logit map."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        inner = in_channels // 4
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, inner, 3, 1, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(inner, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 1, H, W) logits."""
        out: Tensor = self.block(x)
        return out


def expect_background(head: FCNHead) -> None:
    """Let an untrained head say TARGET_PRIOR everywhere (Lin et al., Focal loss, section 3.3).

    Targets are some 1e-3 of all pixels: from even odds, a bias that moves by the learning rate a
    step would take thousands of steps to get there.
    """
    bias = head.block[-1].bias
    assert isinstance(bias, torch.Tensor)
    nn.init.constant_(bias, math.log(TARGET_PRIOR / (1 - TARGET_PRIOR)))


def initialise(module: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions, zeros for their biases (models.md 1.1)."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
