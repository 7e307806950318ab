"""Targets of other frames, pasted into a crop: more pairs of target and background than there are.

What is pasted is what a target adds to its background, so the background shows through.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

MARGIN_PX = 4  # around a target's box, for its faint skirt and its background
LARGEST_AREA_PX = 400
WINDOW_SIGMA_PX = 1.0
MOST_TARGETS = 3
AMPLITUDE_RANGE = (0.6, 1.3)
LEAST_CONTRAST = 2.0  # in standard deviations of the new place: a label must be visible
ATTEMPTS = 4


@dataclasses.dataclass(frozen=True)
class Patch:
    """One target.

    Attributes:
        excess: (h, w) float32, grey levels above its background, fading to 0 at the border.
        mask: (h, w) bool, true on the target.
    """

    excess: NDArray[np.float32]
    mask: NDArray[np.bool_]


def cut_patches(
    image: NDArray[np.uint8] | NDArray[np.uint16], mask: NDArray[np.bool_]
) -> list[Patch]:
    """Cut every target that lies alone and clear of the border out of one (H, W) frame."""
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    height, width = mask.shape
    patches = []
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in boxes[label])
        top, left, bottom, right = (
            y - MARGIN_PX,
            x - MARGIN_PX,
            y + h + MARGIN_PX,
            x + w + MARGIN_PX,
        )
        if min(top, left) < 0 or bottom > height or right > width or area > LARGEST_AREA_PX:
            continue
        box = np.s_[top:bottom, left:right]
        own = labels[box] == label
        if np.array_equal(own, mask[box]):
            patches.append(_cut(image[box].astype(np.float32), own))
    return patches


def _cut(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> Patch:
    skirt = cv2.dilate(mask.astype(np.float32), np.ones((5, 5), np.float32))
    window = cv2.GaussianBlur(skirt, (0, 0), WINDOW_SIGMA_PX)
    window *= np.minimum(1, _distance_to_border_px(mask.shape) / 2)
    excess = (pixels - np.median(pixels[skirt == 0])) * window
    return Patch(excess.astype(np.float32), mask)


def _distance_to_border_px(shape: tuple[int, ...]) -> NDArray[np.float64]:
    y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape)
    distance: NDArray[np.float64] = np.minimum(y[:, None], x[None]).astype(np.float64)
    return distance


def paste(
    image: NDArray[np.float32],
    mask: NDArray[np.float32],
    patches: Sequence[Patch],
    rng: np.random.Generator,
) -> None:
    """Add up to three turned and scaled targets to a crop and its mask, in place.

    A place is taken only where no target is and where the new one will stand out.

    Args:
        image: (S, S) float32 grey levels.
        mask: (S, S) float32, 0 and 1.
        patches: Targets to choose from; with none, nothing is done.
        rng: Decides everything.
    """
    if not patches:
        return
    for _ in range(int(rng.integers(1, MOST_TARGETS + 1))):
        patch = patches[int(rng.integers(len(patches)))]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        excess, own = (np.rot90(part[:, ::-1] if mirrored else part, turns) for part in
                       (patch.excess, patch.mask))  # fmt: skip
        excess = excess * np.float32(rng.uniform(*AMPLITUDE_RANGE))
        room_y, room_x = (have - need for have, need in zip(image.shape, own.shape, strict=True))
        if min(room_y, room_x) < 0:
            continue
        contrast = float(excess[own].mean())
        for _ in range(ATTEMPTS):
            top, left = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
            box = np.s_[top : top + own.shape[0], left : left + own.shape[1]]
            if not mask[box].any() and contrast > LEAST_CONTRAST * float(image[box].std()):
                image[box] += excess
                mask[box] = own
                break
