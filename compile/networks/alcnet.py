"""ALCNet, the PyTorch port with channel attention at both fusions (models.md 1.3).

Public checkpoints carry two unused residual stacks (`uplayer1`, `uplayer2`, 92,928 parameters)
and resizes that keep the size; neither is built here.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from irstd.compile.networks.blocks import (
    AsymBiChaFuse,
    FCNHead,
    Norm,
    contextual_stem,
    expect_background,
    initialise,
    residual_stage,
)

BLOCKS_PER_STAGE = 4


class ALCNet(nn.Module):
    """Logits from an image whose sides are multiples of 16 px."""

    def __init__(
        self, in_channels: int = 1, norm: Norm = "batch", input_norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        blocks = BLOCKS_PER_STAGE
        self.stem = contextual_stem(in_channels, 16, input_norm_eps)
        self.layer1 = residual_stage(16, 16, blocks, 1)
        self.layer2 = residual_stage(16, 32, blocks, 2)
        self.layer3 = residual_stage(32, 64, blocks, 2)
        self.deconv2 = nn.ConvTranspose2d(64, 32, 4, 2, 1)
        self.fuse23 = AsymBiChaFuse(32, norm)
        self.deconv1 = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.fuse12 = AsymBiChaFuse(16, norm)
        self.deconv0 = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.head = FCNHead(8)
        initialise(self)
        expect_background(self.head)

    def forward(self, image: Tensor) -> Tensor:
        """Map a (N, in_channels, H, W) normalised image to (N, 1, H, W) logits."""
        c1 = self.layer1(self.stem(image))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        out = self.fuse23(self.deconv2(c3), c2)
        out = self.fuse12(self.deconv1(out), c1)
        logits = self.head(self.deconv0(out))
        return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
