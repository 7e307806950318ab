"""A thermal camera looking at small moving targets, so that tests and demos need no data.

    for scene in simulate(SceneConfig(frames=90, scr=4, seed=1)):
        scene.frame, scene.mask, scene.tracks

A frame is the swaying background seen through the optics, plus the targets through the same optics,
plus what the sensor adds: column, row and pixel offsets, bad pixels and noise.
"""

import csv
import dataclasses
import io
import math
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.camera import blur, cut_out, expose, make_sensor
from irstd.clutter import SCENES, Field, make_background
from irstd.errors import UsageError
from irstd.files import write_atomic
from irstd.types import BIT_DEPTHS

SCENE_CHOICES = (*SCENES, "any", "mix")
MASK_SHARE = math.exp(-1)
NEIGHBOURHOOD_PX = 12
SWAY_PX = 16.0
BIRTH_DISTANCE_PX = 24.0
BIRTH_TRIES = 20
MAX_BETA = 4
WHOLE = ("height", "width", "frames", "targets", "seed")
RANGES: dict[str, tuple[float, float]] = {
    "height": (16, 8192),
    "width": (16, 8192),
    "frames": (1, math.inf),
    "fps": (0.01, 100_000),
    "targets": (0, 1000),
    "scr": (0, 1000),
    "psf_sigma_px": (0.1, 16),
    "target_sigma_px": (0, 16),
    "target_speed_px_s": (0, 1e6),
    "sway_px_s": (0, 1e6),
    "noise": (0, 255),
    "fixed_pattern": (0, 255),
    "bad_pixels": (0, 1),
    "seed": (0, math.inf),
}


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """What is looked at, and with which camera.

    Grey levels named here are those of an 8-bit camera; deeper ones multiply them by
    (2**bit_depth - 1) / 255, so that a scene fills the range at every depth.

    Attributes:
        height: Of a frame, px, 16 to 8192.
        width: Of a frame, px, likewise.
        frames: Number of frames, above 0.
        bit_depth: 8, 14 or 16.
        fps: Frames per second, above 0; turns speeds into px a frame.
        scene: "sky", "clouds", "horizon" or "ground"; "any": one of them, drawn by the seed; "mix":
            every frame a new scene with new targets, as in a data set of single frames.
        beta: Spectral exponent of the clutter's texture, 0 to 4; None draws one as the kind has it.
        targets: Number of targets in every frame. One that leaves the frame is succeeded by a new
            one, with a new id, somewhere in the frame.
        scr: Signal-to-clutter ratio of every target in every frame, 0 to 1000: the mean over the
            target's own mask of what it adds to the frame, divided by the standard deviation of the
            frame without targets in the mask's bounding box grown by 12 px on each side and cut at
            the frame. Noise counts as clutter; rounding and saturation come after.
        psf_sigma_px: Standard deviation of the Gaussian point-spread function, above 0, at most 16.
        target_sigma_px: (low, high), the range of the targets' own Gaussian extent, drawn for each
            axis; (0, 0) makes point targets.
        target_speed_px_s: Speed of the targets, px/s in the frame.
        sway_px_s: Highest speed of the background in either direction, px/s; it sways by 16 px.
        noise: Standard deviation of the temporal noise, grey levels.
        fixed_pattern: Standard deviation of the columns' offsets, grey levels. Rows and pixels have
            half of it, and the pixels' gain varies by this many thousandths.
        bad_pixels: Share of pixels that are stuck too high or too low; half of them blink.
        seed: Of everything random, at least 0.

    Raises:
        UsageError: A value outside its range.
    """

    height: int = 256
    width: int = 256
    frames: int = 1
    bit_depth: int = 8
    fps: float = 30.0
    scene: str = "any"
    beta: float | None = None
    targets: int = 2
    scr: float = 4.0
    psf_sigma_px: float = 0.8
    target_sigma_px: tuple[float, float] = (0.3, 2.0)
    target_speed_px_s: float = 30.0
    sway_px_s: float = 6.0
    noise: float = 2.5
    fixed_pattern: float = 1.0
    bad_pixels: float = 5e-5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            kind, what = (int, "a whole number") if name in WHOLE else (float, "a number")
            for number in value if isinstance(value, tuple) else (value,):
                if not (isinstance(number, (int, kind)) and low <= number <= high):
                    raise UsageError(f"{name} {value!r}: wanted {what} from {low:g} to {high:g}")
        if self.beta is not None and not 0 <= self.beta <= MAX_BETA:
            raise UsageError(f"beta {self.beta!r}: wanted None or a number from 0 to {MAX_BETA}")
        if len(self.target_sigma_px) != 2 or self.target_sigma_px[0] > self.target_sigma_px[1]:
            raise UsageError(f"target_sigma_px {self.target_sigma_px}: wanted (low, high)")
        if self.bit_depth not in BIT_DEPTHS:
            raise UsageError(f"bit depth {self.bit_depth}: one of {BIT_DEPTHS}")
        if self.scene not in SCENE_CHOICES:
            raise UsageError(f"unknown scene {self.scene!r}; one of {', '.join(SCENE_CHOICES)}")


@dataclasses.dataclass(frozen=True)
class Track:
    """Where one target is in one frame.

    Attributes:
        id: The same in every frame of one target, never reused within a scene.
        centre_yx: Exact sub-pixel centre, px; pixel (0, 0) has its centre at (0, 0).
        amplitude: What the target adds to its brightest pixel, in the frame's grey levels, before
            rounding and saturation.
    """

    id: int
    centre_yx: tuple[float, float]
    amplitude: float


@dataclasses.dataclass(frozen=True)
class SimulatedFrame:
    """One frame with its truth.

    Attributes:
        frame: (H, W) uint8 for 8 bits, uint16 for 14 and 16.
        mask: (H, W) bool, the pixels to which some target adds more than 1/e of what it adds to its
            brightest pixel.
        tracks: One a target in the frame, by id.
    """

    frame: NDArray[np.uint8] | NDArray[np.uint16]
    mask: NDArray[np.bool_]
    tracks: tuple[Track, ...]


@dataclasses.dataclass(frozen=True)
class _Target:
    id: int
    centre_yx: NDArray[np.float64]
    step_yx: NDArray[np.float64]
    sigma_yx: NDArray[np.float64]


def simulate(config: SceneConfig) -> Iterator[SimulatedFrame]:
    """Yield the frames of a scene in order; the same configuration gives the same bytes.

    The background, the sensor, the noise and the targets have random streams of their own: with
    another number of targets or another SCR everything else stays as it is.
    """
    if config.scene == "mix":
        for index in range(config.frames):
            seed = int(np.random.SeedSequence((config.seed, index)).generate_state(1)[0])
            single = dataclasses.replace(config, scene="any", frames=1, seed=seed)
            for scene in simulate(single):
                yield _renumbered(scene, index * config.targets)
        return
    streams = np.random.SeedSequence(config.seed).spawn(4)
    scene_rng, sensor_rng, noise_rng, target_rng = map(np.random.default_rng, streams)
    kinds = tuple(SCENES)
    kind = kinds[scene_rng.integers(len(kinds))] if config.scene == "any" else config.scene
    shape = config.height, config.width
    margin = math.ceil(SWAY_PX) + 2
    canvas = config.height + 2 * margin, config.width + 2 * margin
    background = blur(make_background(kind, scene_rng, canvas, config.beta), config.psf_sigma_px)
    phase = scene_rng.uniform(0, 2 * math.pi, 2)
    sensor = make_sensor(sensor_rng, shape, config.fixed_pattern, config.bad_pixels)
    targets: list[_Target] = []
    born = 0
    for index in range(config.frames):
        targets = [target for target in targets if _is_inside(target.centre_yx, config)]
        while len(targets) < config.targets:
            targets.append(_give_birth(target_rng, config, born, targets))
            born += 1
        sway = SWAY_PX * np.sin(phase + index * config.sway_px_s / config.fps / SWAY_PX)
        view = cut_out(background, margin + sway, shape)
        clutter = expose(noise_rng, sensor, view, config.noise)
        yield _compose(clutter, targets, config)
        targets = [
            dataclasses.replace(target, centre_yx=target.centre_yx + target.step_yx)
            for target in targets
        ]


def default_scenes(
    count: int = 200, height: int = 256, width: int = 256, seed: int = 0
) -> list[SimulatedFrame]:
    """Return `count` labelled 8-bit frames, each of another scene, with two targets at SCR 4."""
    config = SceneConfig(height=height, width=width, frames=count, scene="mix", seed=seed)
    return list(simulate(config))


def write_scene(folder: Path, config: SceneConfig) -> None:
    """Write a scene as a data folder: images/NNNNNN.png, masks/ with the same names, tracks.csv.

    `tracks.csv` has the columns frame_index, track_id, y, x, amplitude. The folder takes its name
    when it is complete, and is not there otherwise.

    Args:
        folder: Must not exist, or be empty. Missing parents are made.
        config: The scene.

    Raises:
        UsageError: `folder` is there and is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there and not an empty folder; name a new one")
    folder = folder.resolve()
    started = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        _write_frames(started, config)
        if folder.exists():
            folder.rmdir()
        started.rename(folder)
    except BaseException:
        shutil.rmtree(started, ignore_errors=True)
        raise


def _write_frames(folder: Path, config: SceneConfig) -> None:
    import cv2

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("frame_index", "track_id", "y", "x", "amplitude"))
    for index, scene in enumerate(simulate(config)):
        mask = scene.mask.astype(np.uint8) * np.uint8(255)
        for kind, image in (("images", scene.frame), ("masks", mask)):
            data = cv2.imencode(".png", image)[1].tobytes()
            write_atomic(folder / kind / f"{index:06d}.png", data)
        for track in scene.tracks:
            y, x = track.centre_yx
            rows.writerow((index, track.id, f"{y:.4f}", f"{x:.4f}", f"{track.amplitude:.3f}"))
    write_atomic(folder / "tracks.csv", table.getvalue())


def _renumbered(scene: SimulatedFrame, first_id: int) -> SimulatedFrame:
    tracks = tuple(dataclasses.replace(t, id=first_id + t.id) for t in scene.tracks)
    return dataclasses.replace(scene, tracks=tracks)


def _is_inside(centre_yx: NDArray[np.float64], config: SceneConfig) -> bool:
    y, x = centre_yx
    return bool(-0.5 <= y < config.height - 0.5 and -0.5 <= x < config.width - 0.5)


def _give_birth(
    rng: np.random.Generator, config: SceneConfig, number: int, others: list[_Target]
) -> _Target:
    """Make a target anywhere in the frame, if possible not beside another one."""
    direction = rng.uniform(0, 2 * math.pi)
    speed = config.target_speed_px_s / config.fps
    extent = rng.uniform(*config.target_sigma_px, 2)
    places = rng.uniform(0, (config.height - 1, config.width - 1), (BIRTH_TRIES, 2))
    free = [
        place
        for place in places
        if all(math.dist(place, other.centre_yx) > BIRTH_DISTANCE_PX for other in others)
    ]
    return _Target(
        id=number,
        centre_yx=free[0] if free else places[0],
        step_yx=speed * np.array([math.sin(direction), math.cos(direction)]),
        sigma_yx=np.hypot(extent, config.psf_sigma_px),
    )


def _compose(clutter: Field, targets: list[_Target], config: SceneConfig) -> SimulatedFrame:
    """Add the targets, then round and saturate."""
    top = (1 << config.bit_depth) - 1
    scale = top / 255
    frame, mask, tracks = clutter.copy(), np.zeros(clutter.shape, np.bool_), []
    for target in targets:
        (y0, rows), (x0, columns) = (
            _pixel_profile(centre, sigma, side)
            for centre, sigma, side in zip(
                target.centre_yx, target.sigma_yx, clutter.shape, strict=True
            )
        )
        place = np.s_[y0 : y0 + len(rows), x0 : x0 + len(columns)]
        shape = rows[:, None] * columns
        shape /= shape.max()
        own = shape > MASK_SHARE
        around = clutter[_neighbourhood(own, y0, x0)]
        peak = config.scr * float(around.std(dtype=np.float64)) / float(shape[own].mean())
        frame[place] += (peak * shape).astype(np.float32)
        mask[place] |= own
        y, x = map(float, target.centre_yx)
        tracks.append(Track(target.id, (y, x), peak * scale))
    levels = np.clip(np.rint(frame * np.float32(scale)), 0, top)
    return SimulatedFrame(
        levels.astype(np.uint8 if config.bit_depth == 8 else np.uint16), mask, tuple(tracks)
    )


def _pixel_profile(centre: float, sigma: float, side: int) -> tuple[int, NDArray[np.float64]]:
    """Integrate a Gaussian over the pixels of one axis, out to 5 sigma and within the frame.

    Returns:
        The first pixel, and the share of the Gaussian that falls into each from there on.
    """
    reach = 5 * sigma + 1
    first, last = max(math.floor(centre - reach), 0), min(math.ceil(centre + reach), side - 1)
    edges = ((edge - 0.5 - centre) / (sigma * math.sqrt(2)) for edge in range(first, last + 2))
    return first, np.diff([math.erf(edge) for edge in edges]) / 2


def _neighbourhood(own: NDArray[np.bool_], y0: int, x0: int) -> tuple[slice, slice]:
    """Return the box around a target in which its clutter is measured."""
    sides = []
    for first, axis in ((y0, 1), (x0, 0)):
        inside = first + np.flatnonzero(own.any(axis=axis))
        low = max(int(inside[0]) - NEIGHBOURHOOD_PX, 0)
        sides.append(slice(low, int(inside[-1]) + 1 + NEIGHBOURHOOD_PX))
    return sides[0], sides[1]
