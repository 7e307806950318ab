import itertools

import numpy as np
import pytest

from irstd.clutter import SCENES, fractal, make_background


def test_a_horizon_separates_two_surfaces() -> None:
    sharpest = []
    for seed in range(8):
        frame = make_background("horizon", np.random.default_rng(seed), (256, 256))
        profile = np.median(frame, axis=1)
        sharpest.append(np.abs(profile[8:] - profile[:-8]).max() / frame.std())
    assert np.median(sharpest) > 0.8


@pytest.mark.parametrize("beta", [0.8, 1.4, 2.0])
def test_fractals_have_the_stated_spectrum(rng: np.random.Generator, beta: float) -> None:
    side = 256
    power = np.mean(
        [np.abs(np.fft.fft2(fractal(rng, (side, side), beta))) ** 2 for _ in range(6)], axis=0
    )
    f = np.fft.fftfreq(side)
    radius = np.hypot(f[:, None], f)
    bands = np.geomspace(0.02, 0.45, 12)
    level = [power[(radius >= a) & (radius < b)].mean() for a, b in itertools.pairwise(bands)]
    slope = np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(level), 1)[0]
    assert -slope / 2 == pytest.approx(beta, abs=0.1)


@pytest.mark.parametrize("shape", [(1, 50), (64, 64), (67, 131)])
def test_fractals_are_normalised(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    field = fractal(rng, shape, 1.2, 2)
    assert field.shape == shape
    assert field.dtype == np.float32
    assert float(field.mean()) == pytest.approx(0, abs=1e-5)
    assert float(field.std()) == pytest.approx(1, rel=1e-5)


def test_stretched_fractals_are_longer_along_x(rng: np.random.Generator) -> None:
    field = fractal(rng, (256, 256), 1.2, 6)
    assert np.abs(np.diff(field, axis=0)).mean() > 2 * np.abs(np.diff(field, axis=1)).mean()


@pytest.mark.parametrize("kind", SCENES)
def test_backgrounds_leave_room_for_targets_above_them(kind: str) -> None:
    for seed in range(6):
        scene = make_background(kind, np.random.default_rng(seed), (90, 120))
        assert scene.shape == (90, 120)
        assert scene.dtype == np.float32
        assert scene.min() > 1.9
        assert scene.max() < 218.1
        assert scene.std() > 3
