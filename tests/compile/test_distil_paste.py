"""Targets pasted into crops: cut clean, placed where they show, labelled where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from irstd.compile.distil.config import TrainConfig
from irstd.compile.distil.data import CropDataset, LabelledFrame
from irstd.compile.distil.paste import LARGEST_AREA_PX, MARGIN_PX, MOST_TARGETS, cut_patches, paste


def make_frame(*targets, level=60, side=64):
    """A flat frame with squares of 3 px, 100 levels above it, at (top, left)."""
    image = np.full((side, side), level, np.uint8)
    mask = np.zeros((side, side), bool)
    for top, left in targets:
        image[top : top + 3, left : left + 3] += 100
        mask[top : top + 3, left : left + 3] = True
    return image, mask


def test_a_patch_is_what_the_target_adds_to_its_background():
    (patch,) = cut_patches(*make_frame((20, 30)))
    side = 3 + 2 * MARGIN_PX
    assert patch.excess.shape == patch.mask.shape == (side, side)
    assert patch.mask.sum() == 9
    np.testing.assert_allclose(patch.excess[patch.mask], 100, rtol=0.02)
    assert np.abs(patch.excess[0]).max() == np.abs(patch.excess[:, -1]).max() == 0
    assert np.abs(patch.excess[~patch.mask]).max() < 1e-3


@pytest.mark.parametrize(
    "targets",
    [
        [(0, 30)],  # at the border
        [(20, 61)],
        [(20, 30), (20, 35)],  # in each other's way
        [],
    ],
)
def test_targets_that_are_not_alone_and_whole_are_left(targets):
    assert cut_patches(*make_frame(*targets)) == []


def test_large_targets_are_left():
    image, mask = make_frame()
    side = int(LARGEST_AREA_PX**0.5) + 1
    mask[20 : 20 + side, 20 : 20 + side] = True
    assert cut_patches(image, mask) == []


@pytest.mark.parametrize("seed", range(20))
def test_what_is_pasted_is_labelled_and_nothing_else_changes(seed):
    patches = cut_patches(*make_frame((20, 30)))
    image, mask = np.full((48, 48), 90, np.float32), np.zeros((48, 48), np.float32)
    paste(image, mask, patches, np.random.default_rng(seed))
    assert 9 <= mask.sum() <= 9 * MOST_TARGETS
    assert image[mask > 0].min() > 90 + 0.55 * 100
    np.testing.assert_allclose(image[mask == 0], 90, atol=1e-3)


def test_targets_are_not_pasted_over_targets():
    patches = cut_patches(*make_frame((20, 30)))
    image, mask = np.zeros((32, 32), np.float32), np.ones((32, 32), np.float32)
    paste(image, mask, patches, np.random.default_rng(0))
    assert not image.any()


def test_targets_are_not_pasted_where_they_would_not_show():
    patches = cut_patches(*make_frame((20, 30)))
    rng = np.random.default_rng(0)
    clutter = rng.normal(0, 300, (32, 32)).astype(np.float32)
    image, mask = clutter.copy(), np.zeros_like(clutter)
    paste(image, mask, patches, rng)
    assert np.array_equal(image, clutter)
    assert not mask.any()


@pytest.mark.parametrize("side", [1, 5, 10])
def test_crops_too_small_for_a_patch_stay_as_they_are(side):
    patches = cut_patches(*make_frame((20, 30)))
    image, mask = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    paste(image, mask, patches, np.random.default_rng(0))
    assert not image.any()


def test_no_targets_no_paste():
    image, mask = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    paste(image, mask, [], np.random.default_rng(0))
    assert not mask.any()


def make_dataset(frames, **changes):
    settings = {"network": "acm", "data": (), "out": Path(), "crop_px": 48, "scale_range": (1, 1)}
    return CropDataset(frames, TrainConfig(**settings | {"target_share": 0.0} | changes))


def test_frames_get_targets_of_their_own_folder():
    with_target = LabelledFrame(*make_frame((20, 30)), source="a")
    empty = [LabelledFrame(*make_frame(), source=source) for source in ("a", "b")]
    dataset = make_dataset([with_target, *empty], paste_share=1.0)
    assert dataset[1][1].any()
    assert not dataset[2][1].any()


def test_the_share_of_crops_with_pasted_targets_is_as_asked():
    frames = [LabelledFrame(*make_frame((1, 1), (30, 30)), source="a")]
    frames += [LabelledFrame(*make_frame(), source="a")] * 100
    for share in (0.0, 0.5, 1.0):
        dataset = make_dataset(frames, paste_share=share)
        got = np.mean([bool(dataset[index][1].any()) for index in range(1, 101)])
        assert got == pytest.approx(share, abs=0.15)


def test_pasting_repeats_with_the_seed():
    frames = [LabelledFrame(*make_frame((20, 30)), source="a")] * 3
    first, second = (make_dataset(frames, paste_share=1.0) for _ in range(2))
    assert torch.equal(first[2][0], second[2][0])
    assert torch.equal(first[2][1], second[2][1])
