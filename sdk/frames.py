"""Reading frames and masks from files, and the layout of a data folder (interface.md).

A data folder holds `images/` and, where it is labelled, `masks/` with the same file names.
"""

import dataclasses
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError

Frame = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".jpg", ".jpeg")
MAX_PIXELS = 1 << 28
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm")


@dataclasses.dataclass(frozen=True)
class LabelledFiles:
    """One image of a data folder and its mask, if the folder has masks."""

    image: Path
    mask: Path | None

    @property
    def stem(self) -> str:
        """Name of the image without folder and suffix."""
        return self.image.stem


def read_frame(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a grey image.

    Args:
        path: A png, tif, bmp, pgm or jpg file of 8 or 16 bits; three equal channels count as grey.

    Returns:
        (H, W) uint8 or uint16, in the grey levels of the file.

    Raises:
        InputError: Missing, unreadable, damaged, truly coloured, or not of 8- or 16-bit integers.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if damage := _png_damage(data):
        raise InputError(f"{path}: not a readable image; {damage}")
    image = _decoded(data)
    if image is None:
        wanted = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise InputError(f"{path}: not a readable image; wanted one of {wanted}")
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {image.dtype}; wanted 8- or 16-bit unsigned integers")
    return to_grey(image, str(path))


def to_grey(
    image: NDArray[np.uint8] | NDArray[np.uint16], origin: str
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the one channel of a (H, W) or (H, W, C) image whose colour channels are equal.

    Raises:
        InputError: The channels differ, naming `origin`.
    """
    if image.ndim == 2:
        return image
    grey: NDArray[Any] = image[..., 0]
    if any(not np.array_equal(grey, image[..., c]) for c in range(1, min(image.shape[2], 3))):
        raise InputError(
            f"{origin}: a coloured image; wanted one grey channel (thermal frames, not palettes)"
        )
    return np.ascontiguousarray(grey)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask: (H, W) bool, True above half of the file type's maximum."""
    mask = read_frame(path)
    half = (127, 32767)[mask.dtype == np.uint16]
    target: NDArray[np.bool_] = mask > half
    return target


def read_labelled(
    files: LabelledFiles,
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], NDArray[np.bool_]]:
    """Read one frame with its mask, both (H, W).

    Raises:
        InputError: Either is missing or unreadable, or their sizes differ.
    """
    if files.mask is None:
        raise InputError(f"{files.image}: no mask; this needs labelled data")
    frame, mask = read_frame(files.image), read_mask(files.mask)
    if mask.shape != frame.shape:
        raise InputError(f"{files.mask}: a mask of {mask.shape} for an image of {frame.shape}")
    return frame, mask


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, in name order, without hidden ones.

    Raises:
        InputError: No such folder, or no image in it.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: not a readable folder ({error.strerror or error})") from error
    found = [p for p in entries if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    if not found:
        raise InputError(f"{folder}: no images in it (png, tif, bmp, pgm or jpg)")
    return found


def read_list(path: Path) -> list[str]:
    """Read a list file: one stem a line; empty lines, repetitions and a file suffix are ignored.

    Raises:
        InputError: Missing, not text, or empty.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text; wanted a list of one image stem a line") from error
    stems = [_without_image_suffix(line.strip()) for line in lines if line.strip()]
    if not stems:
        raise InputError(f"{path}: an empty list; wanted one image stem a line")
    return list(dict.fromkeys(stems))


def list_labelled(
    data: Path, list_file: Path | None = None, *, masks_required: bool = False
) -> list[LabelledFiles]:
    """Return the images of a data folder with their masks, in name order or in the list's order.

    Args:
        data: A folder with `images/` and optionally `masks/`; without `images/` the folder itself
            is taken as the images.
        list_file: Restricts to the stems in this file.
        masks_required: Whether every image must have a mask.

    Raises:
        InputError: No images, two of the same stem, a listed stem that is not there, or a mask that
            is missing.
    """
    images = data / "images" if (data / "images").is_dir() else data
    files = _by_stem(images)
    stems = list(files) if list_file is None else read_list(list_file)
    unknown = [stem for stem in stems if stem not in files]
    if unknown:
        first = f"{unknown[0][:60]!r}"
        raise InputError(f"{list_file}: {len(unknown)} stems are not in {images}, first {first}")
    masks = data / "masks"
    if not masks.is_dir():
        if masks_required:
            raise InputError(f"{data}: no masks/ folder; this needs labelled data")
        return [LabelledFiles(files[stem], None) for stem in stems]
    mask_files = _by_stem(masks)
    missing = [stem for stem in stems if stem not in mask_files]
    if missing:
        raise InputError(f"{masks}: {len(missing)} images have no mask, first {missing[0]!r}")
    return [LabelledFiles(files[stem], mask_files[stem]) for stem in stems]


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} has the same stem; keep one of them")
        files[path.stem] = path
    return files


def _decoded(data: bytes) -> NDArray[Any] | None:
    import cv2

    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # such as a header with absurd sizes
        return None
    return None if image is None else np.asarray(image)


def _png_damage(data: bytes) -> str:
    """Say what is wrong with the chunks of a png; "" for a sound one and for other formats.

    OpenCV would find most of it too, but its libraries print to standard error of their own accord,
    and some versions return the part of a truncated image that they have read.
    """
    if not data.startswith(PNG_SIGNATURE):
        return ""
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            return "the png is cut off"
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return "the png is cut off"
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return "the png is damaged, a checksum does not match"
        if kind == b"IHDR" and length == 13:
            width, height = struct.unpack_from(">II", data, at + 8)
            if not 0 < width * height <= MAX_PIXELS:
                return f"its header says {width}x{height} pixels"
        at = end
    return ""


def _without_image_suffix(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name
