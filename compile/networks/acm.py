"""ACM: asymmetric contextual modulation, U-shaped (Dai et al., WACV 2021; models.md 1.2)."""

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

BLOCKS_PER_STAGE = 3


class ACM(nn.Module):
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
        self.fuse2 = AsymBiChaFuse(32, norm)
        self.uplayer2 = residual_stage(32, 32, blocks, 1)
        self.deconv1 = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.fuse1 = AsymBiChaFuse(16, norm)
        self.uplayer1 = residual_stage(16, 16, blocks, 1)
        self.head = FCNHead(16)
        initialise(self)
        expect_background(self.head)

    def forward(self, image: Tensor) -> Tensor:
        """Map a (N, in_channels, H, W) normalised image to (N, 1, H, W) logits."""
        c1 = self.layer1(self.stem(image))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        u2 = self.uplayer2(self.fuse2(self.deconv2(c3), c2))
        u1 = self.uplayer1(self.fuse1(self.deconv1(u2), c1))
        return F.interpolate(self.head(u1), scale_factor=4, mode="bilinear", align_corners=False)
