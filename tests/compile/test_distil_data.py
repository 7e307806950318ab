"""Training crops: every one a function of seed, epoch and index, image and mask aligned."""

from pathlib import Path

import numpy as np
import pytest
import torch

from irstd.compile.distil.config import TrainConfig
from irstd.compile.distil.data import CropDataset, LabelledFrame


def make_config(**changes):
    return TrainConfig(**{"network": "acm", "data": (), "out": Path(), "crop_px": 32} | changes)


def test_crops_depend_on_seed_epoch_and_index_alone(rng):
    image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    frames = [LabelledFrame(image, image > 250)] * 4
    first, second = CropDataset(frames, make_config()), CropDataset(frames, make_config())
    _ = first[3], first[1]
    assert torch.equal(first[2][0], second[2][0])
    second.epoch = 1
    assert not torch.equal(first[2][0], second[2][0])
    assert not torch.equal(first[2][0], CropDataset(frames, make_config(seed=1))[2][0])


@pytest.mark.parametrize("scale", [(0.1, 0.1), (0.8, 1.25), (4.0, 4.0)])
@pytest.mark.parametrize("size_hw", [(8, 200), (64, 64), (200, 90)])
def test_crops_of_every_frame_size(size_hw, scale, rng):
    frame = LabelledFrame(
        rng.integers(0, 2**14, size_hw).astype(np.uint16), rng.random(size_hw) < 0.02
    )
    dataset = CropDataset([frame] * 8, make_config(scale_range=scale))
    for image, mask in (dataset[index] for index in range(8)):
        assert image.shape == mask.shape == (1, 32, 32)
        assert image.dtype == mask.dtype == torch.float32
        assert torch.isfinite(image).all()
        assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_image_and_mask_stay_aligned():
    """A blob of 3x3 px keeps its mask through zoom, crop and turn."""
    image = np.full((80, 80), 50, np.uint8)
    image[40:43, 30:33] = 250
    frame = LabelledFrame(image, image > 100)
    dataset = CropDataset([frame] * 32, make_config(target_share=1.0))
    for pixels, mask in (dataset[index] for index in range(32)):
        target = mask > 0.5
        assert target.any()
        assert pixels[target].mean() > pixels[~target].mean() + 60


def test_most_crops_hold_a_target_if_asked(rng):
    image = rng.integers(0, 60, (300, 300)).astype(np.uint8)
    mask = np.zeros(image.shape, bool)
    mask[150:153, 150:153] = True
    frames = [LabelledFrame(image, mask)] * 60

    def share(target_share):
        dataset = CropDataset(frames, make_config(target_share=target_share, scale_range=(1, 1)))
        return np.mean([bool(dataset[index][1].any()) for index in range(60)])

    assert share(1.0) > 0.95
    assert share(0.0) < 0.2
