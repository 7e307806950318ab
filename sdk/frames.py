"""Reading frames and masks from files, and the layout of a data folder (interface.md).

A data folder holds `images/` and, where it is labelled, `masks/` with the same file names.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError

Frame = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".jpg", ".jpeg")
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
        InputError: Missing, unreadable, truly coloured, or not 8 or 16 bits an integer pixel.
    """
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    image = None
    if data.size:
        try:
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except cv2.error:  # a header with absurd sizes
            image = None
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
    grey = image[..., 0]
    if any(not np.array_equal(grey, image[..., c]) for c in range(1, min(image.shape[2], 3))):
        raise InputError(
            f"{origin}: a coloured image; wanted one grey channel (thermal frames, not palettes)"
        )
    return np.ascontiguousarray(grey)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask: (H, W) bool, True above half of the file type's maximum."""
    mask = read_frame(path)
    target: NDArray[np.bool_] = mask > np.iinfo(mask.dtype).max // 2
    return target


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, in name order.

    Raises:
        InputError: No such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no images in it (png, tif, bmp, pgm or jpg)")
    return found


def read_list(path: Path) -> list[str]:
    """Read a list file: one stem a line; empty lines and a file suffix are ignored.

    Raises:
        InputError: Missing, not text, or empty.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of stems ({error})") from error
    stems = [_without_image_suffix(line.strip()) for line in lines if line.strip()]
    if not stems:
        raise InputError(f"{path}: an empty list; wanted one image stem a line")
    return stems


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
        InputError: No images, a listed stem that is not there, or a mask that is missing.
    """
    images = data / "images" if (data / "images").is_dir() else data
    files = {path.stem: path for path in list_images(images)}
    stems = list(files) if list_file is None else read_list(list_file)
    unknown = [stem for stem in stems if stem not in files]
    if unknown:
        raise InputError(f"{list_file}: {len(unknown)} stems not in {images}, first {unknown[0]!r}")
    masks = data / "masks"
    if not masks.is_dir():
        if masks_required:
            raise InputError(f"{data}: no masks/ folder; this needs labelled data")
        return [LabelledFiles(files[stem], None) for stem in stems]
    by_stem = {path.stem: path for path in list_images(masks)}
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise InputError(f"{masks}: {len(missing)} images have no mask, first {missing[0]!r}")
    return [LabelledFiles(files[stem], by_stem[stem]) for stem in stems]


def _without_image_suffix(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name
