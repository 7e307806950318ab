"""The frames of a build: which calibrate, which verify, which are kept as golden frames."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.calibration.calibrate import check_frames
from irstd.calibration.split import MAX_CALIBRATION_FRAMES, rank_frames, split_frames
from irstd.compile.accuracy import is_labelled
from irstd.compile.settings import FrameSettings
from irstd.errors import CalibrationError, InputError, UsageError
from irstd.frames import Frame, LabelledFiles, list_labelled, read_frame, read_mask
from irstd.runtime.preprocess import Preprocessor
from irstd.simulate import SceneConfig, simulate
from irstd.types import InputSpec, Precision

GOLDEN_FRAMES = 3
_SMALLEST_SCENE_PX = 16


@dataclasses.dataclass(frozen=True)
class FrameSets:
    """The frames of one build.

    Attributes:
        calibrate: Frames that show the ranges of activations; empty for FP32.
        verify: Frames that verify; empty without data.
    """

    calibrate: tuple[LabelledFiles, ...]
    verify: tuple[LabelledFiles, ...]


def choose_frames(settings: FrameSettings, precision: Precision, *, budget: bool) -> FrameSets:
    """Choose the frames of a build; the two sets never share one.

    Every precision verifies on the same half.

    Args:
        settings: Folders, lists and seed.
        precision: INT8 cannot do without frames to calibrate on; FP16 takes what there is.
        budget: Whether accuracy has to be measured.

    Raises:
        InputError: A folder or list is missing or empty.
        CalibrationError: INT8, and too few frames are left to calibrate on.
        UsageError: A budget, and the frames that verify have no masks.
    """
    verify = _listed(settings.verify_data, settings.verify_list)
    pool = _listed(settings.data, settings.list_file)
    needed = precision is Precision.INT8
    calibrate: list[LabelledFiles] = []
    if settings.verify_data is not None:
        calibrate = _others(pool, verify, settings, needed)
    elif needed or len(pool) > 1:
        calibrate, verify = split_frames(pool, settings.seed)
    else:
        verify = pool
    if budget and not is_labelled(verify):
        where = settings.verify_data or settings.data
        raise UsageError(
            f"--budget needs labelled frames to verify on: {where} has no masks/ folder"
        )
    return FrameSets(() if precision is Precision.FP32 else tuple(calibrate), tuple(verify))


def read_calibration(files: Sequence[LabelledFiles], spec: InputSpec) -> list[Frame]:
    """Read the frames that calibrate, and check that they can.

    Raises:
        InputError: Unreadable, coloured, or of another bit depth; the message names the file.
        CalibrationError: None, all flat, or labelled and without a target.
    """
    frames = [read_checked(file, spec) for file in files]
    masks = [read_mask(file.mask) for file in files if file.mask is not None]
    check_frames(frames, masks)
    return frames


def read_checked(file: LabelledFiles, spec: InputSpec) -> Frame:
    """Read one frame and hold it against the input's bit depth.

    Raises:
        InputError: Unreadable, coloured, or of another bit depth; the message names the file.
    """
    frame = read_frame(file.image)
    wanted = np.dtype(np.uint8 if spec.bit_depth == 8 else np.uint16)
    if frame.dtype != wanted:
        raise InputError(
            f"{file.image}: {frame.dtype} pixels, wanted {wanted} for bit depth "
            f"{spec.bit_depth}; say what the frames are with --bit-depth"
        )
    if int(frame.max(initial=0)) > spec.max_level:
        raise InputError(
            f"{file.image}: grey level {int(frame.max())} is above {spec.max_level}, the highest "
            f"of bit depth {spec.bit_depth}; say what the frames are with --bit-depth"
        )
    return frame


def input_tensors(
    frames: Iterator[Frame] | Sequence[Frame], preprocessor: Preprocessor
) -> Iterator[NDArray[np.float32]]:
    """Yield the engine's inputs for frames, every tile of each; one array, overwritten."""
    for frame in frames:
        yield from preprocessor.tensors(frame)


def golden_frames(files: Sequence[LabelledFiles], spec: InputSpec, seed: int) -> list[Frame]:
    """Return a few frames of at most the input's size: real ones where there are any.

    Of larger frames the part around the first target is cut out, or the middle.
    """
    if files:
        return [_cut(file, spec) for file in files[:GOLDEN_FRAMES]]
    return simulated_frames(spec, GOLDEN_FRAMES, seed)


def simulated_frames(spec: InputSpec, count: int, seed: int) -> list[Frame]:
    """Return different simulated frames of the input's size and bit depth."""
    config = SceneConfig(
        height=max(spec.height, _SMALLEST_SCENE_PX),
        width=max(spec.width, _SMALLEST_SCENE_PX),
        frames=count,
        scene="mix",
        bit_depth=spec.bit_depth,
        seed=seed,
    )
    size = np.s_[: spec.height, : spec.width]
    return [scene.frame[size].copy() for scene in simulate(config)]


def _listed(folder: Path | None, list_file: Path | None) -> list[LabelledFiles]:
    """List a data folder; a stem that a list names twice counts once."""
    if folder is None:
        return []
    return list(dict.fromkeys(list_labelled(folder, list_file)))


def _others(
    pool: Sequence[LabelledFiles],
    verify: Sequence[LabelledFiles],
    settings: FrameSettings,
    needed: bool,
) -> list[LabelledFiles]:
    """Return frames of the pool that do not verify, in the order of the split's hash."""
    taken = {file.image.resolve() for file in verify}
    others = [file for file in pool if file.image.resolve() not in taken]
    if needed and not others:
        raise CalibrationError(
            f"all {len(pool)} frames of {settings.data} are among those that verify: none is left "
            "to calibrate on; give others with --data, or leave --verify-data out"
        )
    return rank_frames(others, settings.seed)[:MAX_CALIBRATION_FRAMES]


def _cut(file: LabelledFiles, spec: InputSpec) -> Frame:
    frame = read_checked(file, spec)
    targets = np.zeros((0, 2), int) if file.mask is None else np.argwhere(read_mask(file.mask))
    middle = targets[0] if len(targets) else np.array(frame.shape) // 2
    top, left = (
        int(np.clip(at - side // 2, 0, max(0, extent - side)))
        for at, side, extent in zip(middle, (spec.height, spec.width), frame.shape, strict=True)
    )
    cut: Frame = frame[top : top + spec.height, left : left + spec.width].copy()
    return cut
