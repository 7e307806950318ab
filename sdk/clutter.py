"""Thermal backgrounds for the scene simulator: sky, clouds, horizon and ground.

Everything is built from fractal fields, whose amplitude falls as 1/f^beta like that of natural
scenes: there is structure at every scale, and no size, direction or brightness gives a target away.
Fields are float32 in arbitrary units until `to_grey_levels` turns them into grey levels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

PATCH_BETA = 1.8
CLEAR_SHARE, SEA_SHARE, WARM_GROUND_SHARE = 0.6, 0.35, 0.75
BLOB_SHAPES = 6
# Small warm and cold things on the ground, relative to its roughness.
SPOTS_PER_PX, SPOT_SIGMA_PX, SPOT_PEAK = 0.03, (0.7, 4.0), (-0.6, 1.6)
# Larger, fainter warm patches in the air, relative to the contrast around them: things that a
# network is in doubt about, so that a low threshold is punished.
GLOWS_PER_PX, GLOW_SIGMA_PX, GLOW_PEAK = 0.003, (4.0, 7.0), (1.6, 2.2)
# Grain of the size of targets, relative likewise.
GRAIN_SIGMA_PX, GRAIN = (2.0, 4.0), 0.6
NEARBY_PX = 41
MEAN_LEVEL, MEAN_LEVEL_STD = 98.0, 38.0
SPREAD, SPREAD_LOG_STD = 36.0, 0.4
DISPLAY_MIDDLE, DISPLAY_HALF = np.float32(110), np.float32(108)


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], beta: float, stretch: float | np.float32 = 1.0
) -> Field:
    """Draw a random field with a natural spectrum.

    Args:
        rng: Source of randomness.
        shape: (H, W) px.
        beta: The amplitude falls as 1/f^beta. Real thermal frames have 0.8 to 2.4.
        stretch: How many times longer structures are along x than along y.

    Returns:
        (H, W) float32 of mean 0 and standard deviation 1.
    """
    import cv2

    height, width = (cv2.getOptimalDFTSize(side) for side in shape)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width) * stretch
    squared = (fy * fy + fx * fx).astype(np.float32)
    squared[0, 0] = np.inf  # no mean
    parts = rng.standard_normal((*squared.shape, 2), np.float32)
    spectrum = parts.view(np.complex64)[..., 0] * squared ** np.float32(-beta / 2)
    field = np.fft.irfft2(spectrum, (height, width))[: shape[0], : shape[1]].astype(np.float32)
    field -= field.mean()
    field /= max(field.std(), np.float32(1e-12))
    return field


def make_background(
    kind: str, rng: np.random.Generator, shape: tuple[int, int], beta: float | None = None
) -> Field:
    """Draw one scene, without targets and without the sensor's noise.

    Args:
        kind: A key of SCENES.
        rng: Source of randomness; the same state gives the same scene.
        shape: (H, W) px.
        beta: Spectral exponent of the texture; drawn as the kind has it when None.

    Returns:
        (H, W) float32 grey levels of an 8-bit camera, strictly within 2 and 218.
    """
    scene = SCENES[kind](rng, shape, beta)
    if kind == "ground":
        confusing = np.float32(GRAIN) * _grain(rng, shape)
    else:
        confusing = _blobs(rng, shape, GLOWS_PER_PX, GLOW_SIGMA_PX, GLOW_PEAK)
    return to_grey_levels(rng, scene + _local_contrast(scene) * confusing)


def to_grey_levels(rng: np.random.Generator, scene: Field) -> Field:
    """Map a scene to grey levels as an automatic gain does: its level and contrast vary.

    The ends are compressed, which leaves room for targets above the brightest clutter.
    """
    level = np.float32(rng.normal(MEAN_LEVEL, MEAN_LEVEL_STD))
    spread = np.float32(rng.lognormal(np.log(SPREAD), SPREAD_LOG_STD))
    scaled = level + spread * (scene - scene.mean()) / max(scene.std(), np.float32(1e-12))
    bent = DISPLAY_MIDDLE + DISPLAY_HALF * np.tanh((scaled - DISPLAY_MIDDLE) / DISPLAY_HALF)
    return np.asarray(bent, np.float32)


def _sky(rng: np.random.Generator, shape: tuple[int, int], beta: float | None) -> Field:
    """Clear air: warmer towards the ground, with haze of all sizes."""
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)
    haze = fractal(rng, shape, _beta(rng, beta, 1.2, 1.9), _draw(rng, 1, 3))
    sky: Field = _draw(rng, -0.5, 3) * rows + _draw(rng, -1.2, 1.2) * columns
    sky += _draw(rng, 0.3, 1) * haze
    return sky


def _clouds(rng: np.random.Generator, shape: tuple[int, int], beta: float | None) -> Field:
    """Heaps and veils: thick where a fractal is high, with billows inside and soft edges."""
    scene: Field = np.float32(0.5) * _sky(rng, shape, beta)
    for _ in range(rng.integers(1, 3)):
        form = fractal(rng, shape, _beta(rng, beta, 1.7, 2.2), _draw(rng, 1, 2))
        billows = np.abs(fractal(rng, shape, _beta(rng, beta, 1.2, 1.6)))
        cover, softness = _draw(rng, -0.7, 0.8), _draw(rng, 0.8, 2.0)
        density = _smoothstep((form - cover) / softness)
        light = _draw(rng, 0.5, 2) - _draw(rng, 0.2, 0.9) * billows
        scene += density * (light + np.float32(0.4) * form)
    return scene


def _ground(rng: np.random.Generator, shape: tuple[int, int], beta: float | None) -> Field:
    """Rough texture, patches of other materials, and small warm and cold things."""
    rough = fractal(rng, shape, _beta(rng, beta, 0.7, 1.2), _draw(rng, 1, 2))
    patches = fractal(rng, shape, PATCH_BETA, _draw(rng, 1, 3))
    roughness = _draw(rng, 0.3, 0.7)
    scene: Field = roughness * rough + np.float32(0.3) * patches
    for _ in range(rng.integers(1, 4)):
        border = (patches - _draw(rng, -1.2, 1.2)) / _draw(rng, 0.05, 0.3)
        scene += _draw(rng, -1.5, 1.5) * _smoothstep(border)
    scene += roughness * _blobs(rng, shape, SPOTS_PER_PX, SPOT_SIGMA_PX, SPOT_PEAK)
    return scene


def _sea(rng: np.random.Generator, shape: tuple[int, int], beta: float | None) -> Field:
    """Long, low swell."""
    swell = fractal(rng, shape, _beta(rng, beta, 0.9, 1.3), _draw(rng, 3, 8))
    sea: Field = np.float32(0.6) * swell
    return sea


def _horizon(rng: np.random.Generator, shape: tuple[int, int], beta: float | None) -> Field:
    """Sky or clouds above hills or the sea."""
    height, width = shape
    above = (_sky if rng.random() < CLEAR_SHARE else _clouds)(rng, shape, beta)
    is_sea = rng.random() < SEA_SHARE
    below = (_sea if is_sea else _ground)(rng, shape, beta)
    warmer = _draw(rng, 0.5, 3) * (1 if rng.random() < WARM_GROUND_SHARE else -1)
    below = _draw(rng, 0.4, 1) * below + np.float32(warmer)
    columns = np.arange(width, dtype=np.float32)
    line = _draw(rng, 0.35, 0.85) * height + _draw(rng, -0.08, 0.08) * (columns - width / 2)
    if not is_sea:
        ridge = fractal(rng, (1, width), float(_draw(rng, 1.6, 2.2)))[0]
        line += _draw(rng, 0.02, 0.08) * height * ridge
    depth = np.arange(height, dtype=np.float32)[:, None] - line
    below -= above
    above += _smoothstep(depth / _draw(rng, 1, 4) + np.float32(0.5)) * below
    return above


def _blobs(
    rng: np.random.Generator,
    shape: tuple[int, int],
    per_px: float,
    sigma_px: tuple[float, float],
    peak: tuple[float, float],
) -> Field:
    """Scatter Gaussian blobs of a few shapes, `per_px` of them, of evenly spread peak."""
    import cv2

    field = np.zeros(shape, np.float32)
    low, high = np.log(sigma_px)
    for sigma_y, sigma_x in np.exp(rng.uniform(low, high, (BLOB_SHAPES, 2))):
        count = rng.poisson(shape[0] * shape[1] * per_px / BLOB_SHAPES)
        points = np.zeros(shape, np.float32)
        at = rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)
        points[at] = rng.uniform(*peak, count) * 2 * np.pi * sigma_y * sigma_x
        field += cv2.GaussianBlur(points, (0, 0), sigmaX=float(sigma_x), sigmaY=float(sigma_y))
    return field


def _grain(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Draw noise of one scale, of standard deviation 1."""
    import cv2

    noise = rng.standard_normal(shape, np.float32)
    grain = np.asarray(cv2.GaussianBlur(noise, (0, 0), rng.uniform(*GRAIN_SIGMA_PX)), np.float32)
    grain /= max(grain.std(), np.float32(1e-12))
    return grain


def _local_contrast(scene: Field) -> np.float32:
    """Return the typical standard deviation around a pixel."""
    import cv2

    size = (NEARBY_PX, NEARBY_PX)
    mean, square = cv2.blur(scene, size), cv2.blur(scene * scene, size)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    typical: np.float32 = np.median(deviation[::8, ::8]).astype(np.float32)
    return typical


def _smoothstep(x: NDArray[np.floating[Any]]) -> Field:
    x = np.clip(x, 0, 1).astype(np.float32, copy=False)
    step: Field = x * x * (3 - 2 * x)
    return step


def _draw(rng: np.random.Generator, low: float, high: float) -> np.float32:
    drawn: np.float32 = np.float32(rng.uniform(low, high))
    return drawn


def _beta(rng: np.random.Generator, beta: float | None, low: float, high: float) -> float:
    drawn = float(rng.uniform(low, high))  # drawn also when given, so that nothing else changes
    return drawn if beta is None else beta


SCENES: dict[str, Callable[[np.random.Generator, tuple[int, int], float | None], Field]] = {
    "sky": _sky,
    "clouds": _clouds,
    "horizon": _horizon,
    "ground": _ground,
}
