"""Labelled frames as augmented training crops.

Every crop is a pure function of (seed, epoch, index), so a resumed run sees what an uninterrupted
one would have seen.
"""

import dataclasses

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from irstd.compile.distil.config import DataSource, TrainConfig
from irstd.compile.distil.paste import Patch, cut_patches, paste
from irstd.errors import InputError
from irstd.frames import list_labelled, read_labelled, read_list

GAIN_RANGE = (0.8, 1.25)
OFFSET_LEVELS = 15.0
NOISE_LEVELS = 2.0


@dataclasses.dataclass(frozen=True)
class LabelledFrame:
    """One frame in memory.

    Attributes:
        image: (H, W) uint8 or uint16 grey levels.
        mask: (H, W) bool.
        source: The data folder that it is from; targets are pasted within their own folder, since
            the hand that drew the masks differs.
    """

    image: NDArray[np.uint8] | NDArray[np.uint16]
    mask: NDArray[np.bool_]
    source: str = ""


def load_training(sources: tuple[DataSource, ...]) -> list[LabelledFrame]:
    """Read the training frames: each source's training list without its validation list."""
    frames = []
    for source in sources:
        held_out = set(read_list(source.val_list))
        files = list_labelled(source.path, source.train_list, masks_required=True)
        kept = [file for file in files if file.stem not in held_out]
        if not kept:
            raise InputError(f"{source.train_list}: nothing is left after taking out val_list")
        frames += [LabelledFrame(*read_labelled(file), str(source.path)) for file in kept]
    return frames


def load_validation(source: DataSource) -> list[LabelledFrame]:
    """Read the validation frames of one source."""
    files = list_labelled(source.path, source.val_list, masks_required=True)
    return [LabelledFrame(*read_labelled(file)) for file in files]


class CropDataset(Dataset[tuple[Tensor, Tensor]]):
    """Augmented (1, S, S) float32 crops in grey levels with their {0, 1} masks."""

    def __init__(self, frames: list[LabelledFrame], config: TrainConfig) -> None:
        self._frames = frames
        self._config = config
        self._patches: dict[str, list[Patch]] = {}
        for frame in frames if config.paste_share else ():
            self._patches.setdefault(frame.source, []).extend(cut_patches(frame.image, frame.mask))
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self._config.seed, self.epoch, index))
        frame = self._frames[index]
        image, mask = _crop(frame, self._config, rng)
        if rng.random() < self._config.paste_share:
            paste(image, mask, self._patches[frame.source], rng)
        image, mask = _turn(image, mask, int(rng.integers(8)))
        gain, offset = rng.uniform(*GAIN_RANGE), rng.uniform(-OFFSET_LEVELS, OFFSET_LEVELS)
        centre = image.mean()
        image = (image - centre) * gain + centre + offset
        image += rng.normal(0, rng.uniform(0, NOISE_LEVELS), image.shape)
        pixels = np.ascontiguousarray(image, np.float32)[None]
        target = np.ascontiguousarray(mask, np.float32)[None]
        return torch.from_numpy(pixels), torch.from_numpy(target)


def _crop(
    frame: LabelledFrame, config: TrainConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut one zoomed square, around a target if it is to hold one; borders are mirrored."""
    side, scale = config.crop_px, rng.uniform(*config.scale_range)
    extent = side / scale
    height, width = frame.mask.shape
    target_yx = np.argwhere(frame.mask)
    if len(target_yx) and rng.random() < config.target_share:
        y, x = target_yx[rng.integers(len(target_yx))]
        centre_y = y + rng.uniform(-0.45, 0.45) * extent
        centre_x = x + rng.uniform(-0.45, 0.45) * extent
    else:
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    # Where the frame is large enough the crop stays inside it.
    top = np.clip(centre_y - extent / 2, *sorted((0.0, height - extent)))
    left = np.clip(centre_x - extent / 2, *sorted((0.0, width - extent)))
    shift = 0.5 / scale - 0.5  # pixel centres, not pixel edges, map onto each other
    affine = np.array([[1 / scale, 0, left + shift], [0, 1 / scale, top + shift]])
    image = _warp(frame.image.astype(np.float32), affine, side)
    mask = _warp(frame.mask.astype(np.float32), affine, side)
    return image, (mask > 0.5).astype(np.float32)


def _warp(
    plane: NDArray[np.float32], affine: NDArray[np.float64], side: int
) -> NDArray[np.float32]:
    warped = cv2.warpAffine(
        plane,
        affine,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, np.float32)


def _turn(
    image: NDArray[np.float32], mask: NDArray[np.float32], symmetry: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Apply one of the eight symmetries of the square to both."""
    if symmetry >= 4:
        image, mask = image[:, ::-1], mask[:, ::-1]
    quarter_turns = symmetry % 4
    return np.rot90(image, quarter_turns), np.rot90(mask, quarter_turns)
