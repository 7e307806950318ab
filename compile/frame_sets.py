"""The frames of a build: which calibrate, which verify, which are kept as golden frames."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.calibration.calibrate import check_frames
from irstd.calibration.split import split_frames
from irstd.compile.settings import BuildSettings
from irstd.errors import InputError
from irstd.frames import Frame, LabelledFiles, list_labelled, read_frame, read_mask
from irstd.runtime.preprocess import Preprocessor
from irstd.simulate import SceneConfig, simulate
from irstd.types import InputSpec

GOLDEN_FRAMES = 3
SIMULATED_FRAMES = 8


@dataclasses.dataclass(frozen=True)
class FrameSets:
    """The frames of one build.

    Attributes:
        calibrate: Frames that calibrate; empty unless the precision needs them.
        verify: Frames that verify; empty without data.
    """

    calibrate: tuple[LabelledFiles, ...]
    verify: tuple[LabelledFiles, ...]


def choose_frames(settings: BuildSettings) -> FrameSets:
    """Choose the frames of a build; the two sets never share one.

    Raises:
        InputError: A folder or list is missing or empty.
        CalibrationError: Fewer than two frames are left to split.
    """
    verify = _list_verify(settings) if settings.verify_data else ()
    if settings.data is None:
        return FrameSets((), verify)
    kept_apart = {file.image.resolve() for file in verify}
    files = list_labelled(settings.data, settings.list_file)
    others = [file for file in files if file.image.resolve() not in kept_apart]
    calibrate, held_back = split_frames(others, settings.seed)
    return FrameSets(tuple(calibrate), verify or tuple(held_back))


def read_calibration(files: Sequence[LabelledFiles], spec: InputSpec) -> list[Frame]:
    """Read the frames that calibrate, and check that they can.

    Raises:
        InputError: Unreadable, coloured, or of another bit depth; the message names the file.
        CalibrationError: All flat, or labelled and without a target.
    """
    frames = [read_checked(file, spec) for file in files]
    masks = [read_mask(file.mask) for file in files if file.mask is not None]
    check_frames(frames, masks)
    return frames


def read_checked(file: LabelledFiles, spec: InputSpec) -> Frame:
    """Read one frame and hold it against the input's bit depth, naming the file if it fails."""
    frame = read_frame(file.image)
    wanted = np.uint8 if spec.bit_depth == 8 else np.uint16
    if frame.dtype != wanted:
        raise InputError(
            f"{file.image}: {frame.dtype} pixels, wanted {np.dtype(wanted)} for bit depth "
            f"{spec.bit_depth}; say what the frames are with --bit-depth"
        )
    if int(frame.max(initial=0)) > spec.max_level:
        raise InputError(
            f"{file.image}: grey level {int(frame.max())} is above {spec.max_level}, the highest "
            f"of bit depth {spec.bit_depth}; say what the frames are with --bit-depth"
        )
    return frame


def input_tensors(
    frames: Sequence[Frame], preprocessor: Preprocessor
) -> Iterator[NDArray[np.float32]]:
    """Yield the engine's inputs for frames, every tile of each."""
    for frame in frames:
        yield from preprocessor.tensors(frame)


def golden_frames(files: Sequence[LabelledFiles], spec: InputSpec, seed: int) -> list[Frame]:
    """Return a few frames of at most the input's size: real ones where there are any.

    Of larger frames the part around the first target is cut out, or the middle.
    """
    if not files:
        return simulated_frames(spec, GOLDEN_FRAMES, seed)
    return [_cut(file, spec) for file in files[:GOLDEN_FRAMES]]


def simulated_frames(spec: InputSpec, count: int, seed: int) -> list[Frame]:
    """Return simulated frames of the input's size and bit depth."""
    config = SceneConfig(
        height=spec.height, width=spec.width, frames=count, bit_depth=spec.bit_depth, seed=seed
    )
    return [scene.frame for scene in simulate(config)]


def _list_verify(settings: BuildSettings) -> tuple[LabelledFiles, ...]:
    return tuple(list_labelled(Path(settings.verify_data or ""), settings.verify_list))


def _cut(file: LabelledFiles, spec: InputSpec) -> Frame:
    frame = read_checked(file, spec)
    targets = np.zeros((0, 2), int) if file.mask is None else np.argwhere(read_mask(file.mask))
    centre = targets[0] if len(targets) else np.array(frame.shape) // 2
    corner = [
        int(np.clip(middle - side // 2, 0, max(0, extent - side)))
        for middle, side, extent in zip(
            centre, (spec.height, spec.width), frame.shape, strict=True
        )
    ]
    top, left = corner
    return np.ascontiguousarray(frame[top : top + spec.height, left : left + spec.width])
