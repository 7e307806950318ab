"""The thermal camera of the scene simulator: optics, sway, and what the sensor adds.

Everything is in float32 grey levels of an 8-bit camera.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from irstd.clutter import Field

BAD_LEVEL_STD = 10.0
BLINK_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Sensor:
    """The fixed pattern of one camera.

    Attributes:
        gain: (H, W), about 1.
        offset: (H, W) grey levels.
        bad_yx: Rows and columns of the bad pixels, (B,) each.
        bad_level: (B,) grey levels that a bad pixel is off by.
        blinks: (B,) bool, whether it is so in some frames only.
    """

    gain: Field
    offset: Field
    bad_yx: tuple[NDArray[np.int64], NDArray[np.int64]]
    bad_level: Field
    blinks: NDArray[np.bool_]


def make_sensor(
    rng: np.random.Generator, shape: tuple[int, int], fixed_pattern: float, bad_pixels: float
) -> Sensor:
    """Draw a camera.

    Args:
        rng: Source of randomness.
        shape: (H, W) px.
        fixed_pattern: Standard deviation of the columns' offsets, grey levels; rows and pixels have
            half of it, and the pixels' gain varies by this many thousandths.
        bad_pixels: Share of pixels that are stuck too high or too low.
    """
    height, width = shape
    columns, rows = rng.standard_normal(width), rng.standard_normal((height, 1)) / 2
    pixels, gain = rng.standard_normal((2, *shape), np.float32)
    places = np.flatnonzero(rng.random(height * width, np.float32) < bad_pixels)
    return Sensor(
        gain=1 + np.float32(fixed_pattern / 1000) * gain,
        offset=(fixed_pattern * (columns + rows + pixels / 2)).astype(np.float32),
        bad_yx=(places // width, places % width),
        bad_level=rng.normal(0, BAD_LEVEL_STD, len(places)).astype(np.float32),
        blinks=rng.random(len(places)) < BLINK_SHARE,
    )


def expose(rng: np.random.Generator, sensor: Sensor, view: Field, noise: float) -> Field:
    """Return what the sensor makes of a (H, W) view, not yet rounded.

    Args:
        rng: Source of this frame's noise and blinking.
        sensor: The camera.
        view: (H, W) grey levels that reach the sensor.
        noise: Standard deviation of the temporal noise, grey levels.
    """
    seen: Field = view * sensor.gain + sensor.offset
    seen += np.float32(noise) * rng.standard_normal(seen.shape, np.float32)
    off = sensor.blinks & (rng.random(len(sensor.blinks)) < BLINK_SHARE)
    seen[sensor.bad_yx] += np.where(off, np.float32(0), sensor.bad_level)
    return seen


def blur(background: Field, psf_sigma_px: float) -> Field:
    """Return a background as the optics image it."""
    import cv2

    return np.asarray(cv2.GaussianBlur(background, (0, 0), psf_sigma_px), np.float32)


def cut_out(background: Field, corner_yx: NDArray[np.float64], shape: tuple[int, int]) -> Field:
    """Return the (H, W) part of a larger background whose first pixel is at a sub-pixel place."""
    import cv2

    y, x = corner_yx
    view = cv2.warpAffine(
        background,
        np.array([[1, 0, x], [0, 1, y]]),
        shape[::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
    )
    return np.asarray(view, np.float32)
