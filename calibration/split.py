"""Which frames calibrate and which verify: decided by a seeded hash of the file's stem.

The order of the files does not matter, and no frame is ever on both sides.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from irstd.errors import CalibrationError
from irstd.frames import LabelledFiles

MAX_CALIBRATION_FRAMES = 100

_Item = TypeVar("_Item", bound=LabelledFiles)


def split_frames(
    files: Sequence[_Item], seed: int = 0, at_most: int = MAX_CALIBRATION_FRAMES
) -> tuple[list[_Item], list[_Item]]:
    """Split frames into halves that calibrate and that verify.

    Args:
        files: At least two frames with distinct stems, in any order.
        seed: Changes the split.
        at_most: Frames that calibrate, at most; the rest of their half is not used.

    Returns:
        (calibrate, verify), each in the order of the hash. Of an odd number the larger half
        verifies.

    Raises:
        CalibrationError: Fewer than two frames.
    """
    if len(files) < 2:
        raise CalibrationError(
            f"{len(files)} frames: at least 2 are needed, one to calibrate and one to verify; "
            "add frames, or give others to verify with --verify-data"
        )
    ranked = rank_frames(files, seed)
    half = len(ranked) // 2
    return ranked[: min(half, at_most)], ranked[half:]


def rank_frames(files: Sequence[_Item], seed: int = 0) -> list[_Item]:
    """Return the frames in the order of the hash that splits them."""
    return sorted(files, key=lambda file: _rank(file.stem, seed))


def _rank(stem: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{stem}".encode("utf-8", "surrogateescape")).digest()
