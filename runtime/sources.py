"""Frames from files: one image, a folder of images in name order, or a video."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frame, list_images, read_frame

if TYPE_CHECKING:
    from cv2 import VideoCapture
    from cv2.typing import MatLike

# Video codecs round brightness and colour apart, so a grey picture comes back with channels some
# levels apart; palettes of thermal viewers differ by a hundred and more.
VIDEO_GREY_TOLERANCE = 8

# These containers state how many frames they hold; the others a duration, which is rounded.
_COUNTED_SUFFIXES = (".avi", ".mp4", ".m4v", ".mov")
_ESTIMATE_SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class FrameSource:
    """Where frames come from.

    Attributes:
        path: As it was given.
        frame_count: Number of frames; for a video what its container announces, None if nothing.
        name_of: The file name of a frame, by index; for a video the video's name and the index.
        stem_of: A name without suffix for what is made of a frame, by index; no two are equal.
        files: The images, or the video.
        frames: Opens the source and yields its frames in order, read as they are asked for. Raises
            InputError for one that cannot be read, and at the end of a video that is cut short.
    """

    path: Path
    frame_count: int | None
    name_of: Callable[[int], str]
    stem_of: Callable[[int], str]
    files: tuple[Path, ...]
    frames: Callable[[], Iterator[Frame]]


def open_source(path: Path) -> FrameSource:
    """Return the frames of an image file, a folder or a video.

    Args:
        path: An image, a folder with images in it or in its `images/`, or a video file.

    Raises:
        InputError: Missing, empty, or of another kind.
    """
    if path.is_dir():
        return _from_images(path, list_images(_image_folder(path)))
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return _from_images(path, [path])
    if suffix in VIDEO_SUFFIXES:
        return _from_video(path)
    wanted = ", ".join(known[1:] for known in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    raise InputError(f"{path}: not a known kind of file; wanted a folder or one of {wanted}")


def _image_folder(path: Path) -> Path:
    images = path / "images"
    return images if images.is_dir() else path


def _from_images(path: Path, images: list[Path]) -> FrameSource:
    stems = [image.stem for image in images]
    if len(set(stems)) < len(stems):  # a.png beside a.tif
        stems = [image.name for image in images]
    return FrameSource(
        path=path,
        frame_count=len(images),
        name_of=lambda index: images[index].name,
        stem_of=lambda index: stems[index],
        files=tuple(images),
        frames=lambda: map(read_frame, images),
    )


def _from_video(path: Path) -> FrameSource:
    import cv2

    capture = _open_video(path)
    announced = round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return FrameSource(
        path=path,
        frame_count=announced if announced > 0 else None,
        name_of=lambda index: f"{path.name} frame {index}",
        stem_of=lambda index: f"{path.stem}_{index:06d}",
        files=(path,),
        frames=lambda: _video_frames(path, announced),
    )


def _open_video(path: Path) -> "VideoCapture":
    import cv2

    # Asked one after another, the other backends print what they think of a damaged file.
    has_ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
    if not capture.isOpened():
        raise InputError(f"{path}: not a readable video; truncated, or a codec OpenCV lacks")
    return capture


def _video_frames(path: Path, announced: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video, each once its successor has proven it whole.

    Decoders fill the missing part of the picture in which a file ends, and targets of a few pixels
    can hide in the filling. So the last picture counts only if the announced number is reached.
    """
    capture = _open_video(path)
    try:
        decoded = 0
        held: NDArray[np.uint8] | None = None
        while True:
            there, picture = capture.read()
            if not there:
                break
            if held is not None:
                yield held
            held = _grey(picture, path, decoded)
            decoded += 1
    finally:
        capture.release()
    if held is None:
        raise InputError(f"{path}: no frame of the video can be decoded")
    if decoded < _fewest(path, announced):
        raise InputError(
            f"{path}: the video is cut short: {decoded} of {announced} frames decode, the last "
            f"perhaps in part, so the first {decoded - 1} were used"
        )
    yield held


def _fewest(path: Path, announced: int) -> float:
    if path.suffix.lower() in _COUNTED_SUFFIXES:
        return announced
    return announced * (1 - _ESTIMATE_SLACK) - 1


def _grey(picture: "MatLike", path: Path, index: int) -> NDArray[np.uint8]:
    import cv2

    if picture.ndim == 2:
        return np.asarray(picture, np.uint8)
    blue, green, red = cv2.split(picture)
    apart = max(float(cv2.absdiff(green, other).max()) for other in (blue, red))
    if apart > VIDEO_GREY_TOLERANCE:
        raise InputError(
            f"{path}: frame {index} is coloured (channels up to {apart:g} levels apart, at most "
            f"{VIDEO_GREY_TOLERANCE} allowed); wanted grey thermal video, not a palette"
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
