import math
from typing import Any

import numpy as np
import pytest

from irstd import simulate as module
from irstd.camera import cut_out
from irstd.simulate import SceneConfig, SimulatedFrame, simulate

CLEAN: dict[str, Any] = {"noise": 0, "fixed_pattern": 0, "bad_pixels": 0}
SMALL: dict[str, Any] = {"height": 64, "width": 80}


def frames(**settings: Any) -> list[SimulatedFrame]:
    return list(simulate(SceneConfig(**settings)))


def test_noise_is_temporal_and_of_the_stated_strength() -> None:
    still = {"bit_depth": 16, "targets": 0, "sway_px_s": 0, "fixed_pattern": 0, "bad_pixels": 0}
    first, second = frames(frames=2, noise=2.0, **still)
    difference = (first.frame.astype(float) - second.frame) * 255 / 65535
    assert difference.std() / math.sqrt(2) == pytest.approx(2, rel=0.02)
    assert np.corrcoef(difference[:-1].ravel(), difference[1:].ravel())[0, 1] < 0.02
    first, second = frames(frames=2, noise=0.0, **still)
    assert np.array_equal(first.frame, second.frame)


def test_the_fixed_pattern_stays_and_is_mostly_of_columns() -> None:
    same_scene = {"bit_depth": 16, "targets": 0, "noise": 0, "bad_pixels": 0, "frames": 20}
    with_it = frames(fixed_pattern=2.0, **same_scene)
    without = frames(fixed_pattern=0.0, **same_scene)
    patterns = [
        (a.frame.astype(float) - b.frame) * 255 / 65535
        for a, b in zip(with_it, without, strict=True)
    ]
    first, last = patterns[0], patterns[-1]
    assert np.corrcoef(first.ravel(), last.ravel())[0, 1] > 0.98  # the scene moved, it did not
    assert first.mean(axis=0).std() == pytest.approx(2, rel=0.2)
    assert first.mean(axis=1).std() == pytest.approx(1, rel=0.2)


def test_bad_pixels_are_as_many_as_stated_and_some_blink() -> None:
    settings = {"bit_depth": 16, "targets": 0, "sway_px_s": 0, "frames": 8, "noise": 0}
    bad, good = frames(bad_pixels=0.01, **settings), frames(bad_pixels=0.0, **settings)
    off = np.array([a.frame != b.frame for a, b in zip(bad, good, strict=True)])
    ever, always = off.any(axis=0), off.all(axis=0)
    assert ever.mean() == pytest.approx(0.01, rel=0.15)
    assert 0.3 < always.sum() / ever.sum() < 0.7


def test_the_background_sways_smoothly_and_no_faster_than_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corners = []

    def note(background: Any, corner_yx: Any, shape: Any) -> Any:
        corners.append(corner_yx)
        return cut_out(background, corner_yx, shape)

    monkeypatch.setattr(module, "cut_out", note)
    seen = frames(scene="ground", targets=0, frames=200, fps=10, sway_px_s=5, **SMALL, **CLEAN)
    path = np.array(corners)
    steps = np.abs(np.diff(path, axis=0)) * 10
    assert 4.9 < steps.max() <= 5
    assert np.abs(np.diff(path, n=2, axis=0)).max() < 0.02  # px
    assert np.ptp(path, axis=0) == pytest.approx(32, abs=0.5)
    # And the picture moves with it: put back, a later frame is the first one.
    later = int(np.argmin(np.abs(np.abs(path - path[0]).max(axis=1) - 6)))
    dy, dx = np.rint(path[later] - path[0]).astype(int)
    first, moved = (seen[index].frame.astype(float) for index in (0, later))
    inner, there = np.s_[10:-10, 10:-10], np.roll(moved, (dy, dx), axis=(0, 1))
    assert np.corrcoef(first[inner].ravel(), there[inner].ravel())[0, 1] > 0.95
    assert np.corrcoef(first[inner].ravel(), moved[inner].ravel())[0, 1] < 0.9


def test_cutting_out_is_exact_on_pixels_and_close_between_them() -> None:
    rows, columns = np.indices((60, 70), np.float32)
    wave = (np.sin(rows / 4) + np.cos(columns / 5)).astype(np.float32)
    whole = cut_out(wave, np.array([7.0, 3.0]), (20, 30))
    assert np.allclose(whole, wave[7:27, 3:33], atol=1e-6)
    between = cut_out(wave, np.array([7.375, 3.75]), (20, 30))
    wanted = np.sin((rows + 7.375) / 4) + np.cos((columns + 3.75) / 5)
    assert np.abs(between - wanted[:20, :30]).max() < 0.02
