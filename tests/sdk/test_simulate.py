import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from irstd import simulate as module
from irstd.clutter import SCENES
from irstd.components import label_components
from irstd.errors import UsageError
from irstd.simulate import (
    NEIGHBOURHOOD_PX,
    SceneConfig,
    SimulatedFrame,
    default_scenes,
    simulate,
)

KINDS = tuple(SCENES)
CLEAN: dict[str, Any] = {"noise": 0, "fixed_pattern": 0, "bad_pixels": 0}
SMALL: dict[str, Any] = {"height": 64, "width": 80}


def frames(**settings: Any) -> list[SimulatedFrame]:
    return list(simulate(SceneConfig(**settings)))


def same(one: Iterable[SimulatedFrame], other: Iterable[SimulatedFrame]) -> bool:
    return all(
        np.array_equal(a.frame, b.frame) and np.array_equal(a.mask, b.mask) and a.tracks == b.tracks
        for a, b in zip(one, other, strict=True)
    )


def added_by_targets(**settings: Any) -> tuple[SimulatedFrame, NDArray[Any], NDArray[Any]]:
    """A 16-bit frame, what its targets add to it, and what it is without them.

    Takes the first seed from the given one on whose frame does not saturate.
    """
    for seed in itertools.count(settings.get("seed", 0)):
        settings = {**settings, "seed": seed}
        (with_targets,) = frames(bit_depth=16, **settings)
        if with_targets.frame.max() < 65535:
            break
    (without,) = frames(bit_depth=16, **{**settings, "targets": 0})
    assert not without.mask.any()
    assert without.tracks == ()
    background = without.frame.astype(np.float64)
    return with_targets, with_targets.frame - background, background


# Reproducible, and one thing at a time


@pytest.mark.parametrize("kind", [*KINDS, "any", "mix"])
def test_the_same_configuration_gives_the_same_bytes(kind: str) -> None:
    settings = {"scene": kind, "frames": 3, "seed": 4, **SMALL}
    assert same(frames(**settings), frames(**settings))
    assert not same(frames(**settings), frames(**{**settings, "seed": 5}))


@pytest.mark.parametrize("kind", ["any", "mix"])
def test_more_frames_begin_with_the_same_ones(kind: str) -> None:
    assert same(frames(scene=kind, frames=2, **SMALL), frames(scene=kind, frames=4, **SMALL)[:2])


def test_targets_do_not_change_what_is_behind_them() -> None:
    one, added, _ = added_by_targets(targets=1, scr=3, seed=1, **SMALL)
    (y, x) = one.tracks[0].centre_yx
    rows, columns = np.nonzero(added)
    assert len(rows)
    assert np.hypot(rows - y, columns - x).max() < 20
    assert added.min() >= -1  # rounding


def test_beta_changes_the_texture_and_not_the_targets() -> None:
    smooth, rough = (frames(scene="sky", beta=beta, **SMALL)[0] for beta in (2.5, 0.5))
    assert np.array_equal(smooth.mask, rough.mask)
    detail = [np.abs(np.diff(f.frame.astype(float))).mean() for f in (smooth, rough)]
    assert detail[1] > 1.5 * detail[0]


# Frames


@pytest.mark.parametrize(("depth", "kind"), [(8, np.uint8), (14, np.uint16), (16, np.uint16)])
def test_every_bit_depth_fills_its_range(depth: int, kind: type) -> None:
    (deep,) = frames(bit_depth=depth, seed=3)
    (eight,) = frames(bit_depth=8, seed=3)
    assert deep.frame.dtype == kind
    top = (1 << depth) - 1
    assert deep.frame.max() <= top
    assert np.abs(deep.frame * (255 / top) - eight.frame).max() <= 0.51
    if depth > 8:
        assert len(np.unique(deep.frame)) > 300  # not an 8-bit frame, scaled
    assert np.array_equal(deep.mask, eight.mask)
    assert deep.tracks[0].amplitude == pytest.approx(eight.tracks[0].amplitude * top / 255)


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (121, 64), (240, 320)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_of_any_kind(kind: str, size: tuple[int, int]) -> None:
    (one,) = frames(scene=kind, height=size[0], width=size[1], targets=1)
    assert one.frame.shape == one.mask.shape == size
    assert one.frame.std() > 1
    assert one.mask.any()


def test_any_draws_every_kind_over_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    original = module.make_background

    def note(kind: str, *rest: Any) -> Any:
        drawn.append(kind)
        return original(kind, *rest)

    monkeypatch.setattr(module, "make_background", note)
    frames(scene="mix", frames=40, **SMALL)
    assert set(drawn) == set(KINDS)
    drawn.clear()
    frames(scene="ground", frames=2, **SMALL)
    assert drawn == ["ground"]  # one scene for a whole sequence


# Targets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scr", [1.5, 4.0])
def test_the_signal_to_clutter_ratio_is_the_stated_one(kind: str, scr: float) -> None:
    one, added, background = added_by_targets(scene=kind, scr=scr, targets=1, seed=11)
    rows, columns = np.nonzero(one.mask)
    box = np.s_[
        max(rows.min() - NEIGHBOURHOOD_PX, 0) : rows.max() + NEIGHBOURHOOD_PX + 1,
        max(columns.min() - NEIGHBOURHOOD_PX, 0) : columns.max() + NEIGHBOURHOOD_PX + 1,
    ]
    assert added[one.mask].mean() / background[box].std() == pytest.approx(scr, rel=2e-3)


def test_the_signal_to_clutter_ratio_holds_at_the_border() -> None:
    for seed in range(400):
        config = SceneConfig(targets=1, seed=seed, bit_depth=16, height=32, width=48)
        one = next(iter(simulate(config)))
        (y, x) = one.tracks[0].centre_yx
        if min(y, x, 31 - y, 47 - x) < 1.5 and one.frame.max() < 65535:
            break
    settings = {k: v for k, v in vars(config).items() if k != "bit_depth"}
    one, added, background = added_by_targets(**settings)
    rows, columns = np.nonzero(one.mask)
    box = np.s_[
        max(rows.min() - NEIGHBOURHOOD_PX, 0) : rows.max() + NEIGHBOURHOOD_PX + 1,
        max(columns.min() - NEIGHBOURHOOD_PX, 0) : columns.max() + NEIGHBOURHOOD_PX + 1,
    ]
    assert added[one.mask].mean() / background[box].std() == pytest.approx(4, rel=5e-3)


@pytest.mark.parametrize("psf", [0.5, 0.8, 1.7])
def test_a_point_target_is_the_point_spread_function_integrated_over_pixels(psf: float) -> None:
    one, added, _ = added_by_targets(
        psf_sigma_px=psf, target_sigma_px=(0, 0), targets=1, seed=21, **CLEAN
    )
    (y, x) = one.tracks[0].centre_yx
    rows, columns = (
        np.diff(erf((np.arange(257) - 0.5 - centre) / (psf * math.sqrt(2)))) / 2
        for centre in (y, x)
    )
    shape = np.outer(rows, columns)
    assert np.abs(added - one.tracks[0].amplitude * shape / shape.max()).max() <= 1.01
    assert np.array_equal(one.mask, shape > shape.max() / math.e)


def test_masks_are_the_pixels_above_one_e_th_and_centres_are_exact() -> None:
    for seed in range(6):
        one, added, _ = added_by_targets(scene="sky", targets=1, seed=seed, scr=2)
        share = added / one.tracks[0].amplitude
        unsure = np.abs(share - 1 / math.e) < 1e-3
        assert np.array_equal((share > 1 / math.e) | unsure, one.mask | unsure)
        assert added.max() == pytest.approx(one.tracks[0].amplitude, abs=1.01)
        (y, x), total = one.tracks[0].centre_yx, added.sum()
        if not min(y, x, 255 - y, 255 - x) > 10:
            continue
        centroid = [(np.indices(added.shape)[axis] * added).sum() / total for axis in (0, 1)]
        assert centroid == pytest.approx([y, x], abs=0.05)


def test_targets_vary_in_extent_as_real_ones_do() -> None:
    areas = np.concatenate([label_components(s.mask).area_px for s in default_scenes(60)])
    assert 4 <= np.percentile(areas, 5) <= 8
    assert 9 <= np.median(areas) <= 22
    assert np.percentile(areas, 95) >= 20
    assert len(areas) == pytest.approx(120, abs=4)


def test_tracks_move_steadily_and_ids_last_as_long_as_the_target() -> None:
    seen = frames(frames=60, targets=3, target_speed_px_s=200, fps=25, seed=8, **SMALL)
    paths: dict[int, list[tuple[int, tuple[float, float]]]] = {}
    for index, one in enumerate(seen):
        assert len(one.tracks) == 3
        assert [t.id for t in one.tracks] == sorted({t.id for t in one.tracks})
        for track in one.tracks:
            (y, x) = track.centre_yx
            assert -0.5 <= y < 63.5
            assert -0.5 <= x < 79.5
            paths.setdefault(track.id, []).append((index, track.centre_yx))
    assert len(paths) > 6  # 8 px a frame leaves 64x80 px soon
    assert sorted(paths) == list(range(len(paths)))
    for path in paths.values():
        when = [index for index, _ in path]
        assert when == list(range(when[0], when[0] + len(when)))
        steps = np.diff([centre for _, centre in path], axis=0)
        assert np.allclose(np.hypot(*steps.T), 8)
        assert np.allclose(steps, steps[:1])


def test_targets_are_not_born_beside_each_other() -> None:
    for one in default_scenes(20):
        a, b = (track.centre_yx for track in one.tracks)
        assert math.dist(a, b) > 24


def test_a_mix_is_a_new_scene_with_new_ids_in_every_frame() -> None:
    seen = frames(scene="mix", frames=5, targets=2, **SMALL)
    assert [t.id for one in seen for t in one.tracks] == list(range(10))
    means = [one.frame.mean() for one in seen]
    assert np.ptp(means) > 5


def test_more_targets_than_fit_apart_are_still_placed() -> None:
    (one,) = frames(targets=30, height=32, width=32)
    assert len(one.tracks) == 30


# Configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 15}, "height 15: wanted a whole number from 16 to 8192"),
        ({"width": 10**6}, "width 1000000"),
        ({"height": 256.5}, "height 256.5: wanted a whole number"),
        ({"height": "256"}, "height '256'"),
        ({"frames": 0}, "frames 0"),
        ({"frames": -3}, "frames -3"),
        ({"bit_depth": 12}, "bit depth 12"),
        ({"fps": 0}, "fps 0"),
        ({"fps": math.nan}, "fps nan"),
        ({"scene": "forest"}, "unknown scene 'forest'; one of sky, clouds, horizon, ground, any"),
        ({"beta": -1}, "beta -1"),
        ({"beta": math.nan}, "beta nan"),
        ({"targets": -1}, "targets -1"),
        ({"targets": 1.5}, "targets 1.5"),
        ({"scr": -1}, "scr -1"),
        ({"scr": math.inf}, "scr inf"),
        ({"psf_sigma_px": 0}, "psf_sigma_px 0"),
        ({"target_sigma_px": (2, 1)}, r"wanted \(low, high\)"),
        ({"target_sigma_px": (1,)}, r"wanted \(low, high\)"),
        ({"target_sigma_px": (0, 99)}, "target_sigma_px"),
        ({"target_speed_px_s": -1}, "target_speed_px_s"),
        ({"sway_px_s": math.nan}, "sway_px_s"),
        ({"noise": -1}, "noise"),
        ({"fixed_pattern": 256}, "fixed_pattern"),
        ({"bad_pixels": 1.1}, "bad_pixels"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SceneConfig(**settings)
    assert "\n" not in str(caught.value)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SceneConfig().scr = 5  # type: ignore[misc]


# The default set


def test_default_frames_have_the_statistics_of_real_ones() -> None:
    stack = np.array([scene.frame for scene in default_scenes(100, 128, 128)])
    assert stack.dtype == np.uint8
    assert stack.mean() == pytest.approx(95, abs=20)
    assert stack.std() == pytest.approx(41, abs=12)
    assert 15 < np.median(stack.std(axis=(1, 2))) < 45
    assert np.mean((stack == 0) | (stack == 255)) < 0.02


def test_importing_the_simulator_loads_no_opencv(run_python: Callable[..., str]) -> None:
    code = "import sys, irstd.simulate; print('cv2' in sys.modules)"
    assert run_python(code).strip() == "False"
