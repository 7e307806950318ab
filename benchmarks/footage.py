"""The frames that a speed is measured on: a folder's, or simulated ones. Never zeros.

What the postprocessing costs depends on what is in the frame, so real content matters.
"""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.frames import Frame, list_labelled, read_frame
from irstd.types import InputSpec

SIMULATED_FRAMES = 200
SIMULATED_SEED = 0
SHUFFLE_SEED = 0
MOST_BYTES = 512 << 20  # frames are held in memory, so that no disk is timed


@dataclasses.dataclass(frozen=True)
class Footage:
    """Frames in memory.

    Attributes:
        frames: At least one.
        description: One line for reports.
        sha256: Of the frames' types, shapes and values.
        left_out: Images of the folder that did not fit into 512 MiB.
    """

    frames: Sequence[Frame]
    description: str
    sha256: str
    left_out: int = 0


def load_footage(data: Path | None, spec: InputSpec) -> Footage:
    """Return the frames of a data folder, shuffled by a fixed seed, or simulated ones.

    Args:
        data: A data folder, or any folder of images; None for 200 simulated frames, seed 0.
        spec: Size and bit depth of what is simulated.

    Raises:
        InputError: No such folder, no images, or one that cannot be read or has another bit depth.
    """
    return _simulated(spec) if data is None else _from_folder(data, spec)


def add_to_hash(digest: "hashlib._Hash", array: NDArray[np.generic]) -> None:
    """Add an array's type, shape and values to a running hash."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def _simulated(spec: InputSpec) -> Footage:
    from irstd.simulate import SceneConfig, simulate  # loads OpenCV

    scenes = SceneConfig(
        height=spec.height,
        width=spec.width,
        frames=SIMULATED_FRAMES,
        bit_depth=spec.bit_depth,
        scene="mix",
        seed=SIMULATED_SEED,
    )
    frames = [scene.frame for scene in simulate(scenes)]
    size = f"{spec.height}x{spec.width}, {spec.bit_depth} bit"
    about = f"{len(frames)} simulated frames, {size}, seed {SIMULATED_SEED}"
    return Footage(frames, about, _hash(frames))


def _from_folder(data: Path, spec: InputSpec) -> Footage:
    files = list_labelled(data)
    random.Random(SHUFFLE_SEED).shuffle(files)  # so that every stretch of a run is like the rest
    frames: list[Frame] = []
    used = 0
    for pair in files:
        frame = read_frame(pair.image)
        _check_depth(pair.image, frame, spec)
        used += frame.nbytes
        if frames and used > MOST_BYTES:
            break
        frames.append(frame)
    shapes = sorted({frame.shape for frame in frames})
    sizes = ", ".join("x".join(map(str, shape)) for shape in itertools.islice(shapes, 3))
    more = f" and {len(shapes) - 3} more sizes" if len(shapes) > 3 else ""
    about = f"{len(frames)} frames of {data}, {sizes}{more}, shuffled"
    return Footage(frames, about, _hash(frames), len(files) - len(frames))


def _check_depth(
    path: Path, frame: NDArray[np.uint8] | NDArray[np.uint16], spec: InputSpec
) -> None:
    """Refuse before the measurement what the detector would refuse in the middle of it."""
    wanted = np.uint8 if spec.bit_depth == 8 else np.uint16
    if frame.dtype != wanted or int(frame.max()) > spec.max_level:
        raise InputError(
            f"{path}: {frame.dtype} pixels up to {frame.max()}; the bundle takes "
            f"{spec.bit_depth}-bit frames, levels 0 to {spec.max_level}"
        )


def _hash(frames: Sequence[Frame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        add_to_hash(digest, frame)
    return digest.hexdigest()
