import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from irstd import simulate as module
from irstd.clutter import SCENES, fractal
from irstd.components import label_components
from irstd.errors import UsageError
from irstd.frames import list_labelled, read_frame, read_mask
from irstd.metrics import Scores, evaluate
from irstd.simulate import (
    SceneConfig,
    SimulatedFrame,
    default_frames,
    default_scenes,
    simulate,
    write_scene,
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
    """A 16-bit frame, what its targets add to it, and what it is without them."""
    (with_targets,) = frames(bit_depth=16, **settings)
    (without,) = frames(bit_depth=16, **{**settings, "targets": 0})
    assert not without.mask.any()
    assert without.tracks == ()
    assert with_targets.frame.max() < 65535, "saturated: choose another seed"
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


def test_a_horizon_separates_two_surfaces() -> None:
    sharpest = []
    for seed in range(8):
        frame = frames(scene="horizon", targets=0, seed=seed)[0].frame.astype(float)
        profile = np.median(frame, axis=1)
        sharpest.append(np.abs(profile[8:] - profile[:-8]).max() / frame.std())
    assert np.median(sharpest) > 1


@pytest.mark.parametrize("beta", [0.8, 1.4, 2.0])
def test_fractals_have_the_stated_spectrum(rng: np.random.Generator, beta: float) -> None:
    side = 256
    power = np.mean(
        [np.abs(np.fft.fft2(fractal(rng, (side, side), beta))) ** 2 for _ in range(6)], axis=0
    )
    f = np.fft.fftfreq(side)
    radius = np.hypot(f[:, None], f)
    bands = np.geomspace(0.02, 0.45, 12)
    level = [power[(radius >= a) & (radius < b)].mean() for a, b in zip(bands, bands[1:])]
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


# Sensor


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


def test_the_background_sways_smoothly_and_no_faster_than_stated() -> None:
    import cv2

    seen = frames(scene="ground", targets=0, frames=31, fps=10, sway_px_s=5, **CLEAN)
    window = cv2.createHanningWindow((256, 256), cv2.CV_32F)
    views = [one.frame.astype(np.float32) for one in seen]
    steps = [cv2.phaseCorrelate(a, b, window)[0] for a, b in zip(views, views[1:])]
    speed = np.hypot(*np.transpose(steps)) * 10
    assert speed.max() < 5 * math.sqrt(2) * 1.1 + 0.5
    assert speed.max() > 2
    assert np.abs(np.diff(steps, axis=0)).max() < 0.15  # px a frame, no jumps
    whole = np.array(cv2.phaseCorrelate(views[0], views[10], window)[0])
    assert whole == pytest.approx(np.sum(steps[:10], axis=0), abs=0.3)


# Targets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scr", [1.5, 4.0])
def test_the_signal_to_clutter_ratio_is_the_stated_one(kind: str, scr: float) -> None:
    one, added, background = added_by_targets(scene=kind, scr=scr, targets=1, seed=11)
    rows, columns = np.nonzero(one.mask)
    box = np.s_[
        max(rows.min() - 20, 0) : rows.max() + 21, max(columns.min() - 20, 0) : columns.max() + 21
    ]
    assert added[one.mask].mean() / background[box].std() == pytest.approx(scr, rel=2e-3)


def test_the_signal_to_clutter_ratio_holds_at_the_border() -> None:
    for seed in range(40):
        config = SceneConfig(targets=1, seed=seed, bit_depth=16, height=32, width=48)
        (y, x) = next(iter(simulate(config))).tracks[0].centre_yx
        if min(y, x, 31 - y, 47 - x) < 1.5:
            break
    settings = {k: v for k, v in vars(config).items() if k != "bit_depth"}
    one, added, background = added_by_targets(**settings)
    rows, columns = np.nonzero(one.mask)
    box = np.s_[
        max(rows.min() - 20, 0) : rows.max() + 21, max(columns.min() - 20, 0) : columns.max() + 21
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
        one, added, _ = added_by_targets(scene="sky", targets=1, seed=seed, scr=6)
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


# On disk


@pytest.mark.parametrize("depth", [8, 14])
def test_a_written_scene_is_a_labelled_data_folder(tmp_path: Path, depth: int) -> None:
    config = SceneConfig(frames=3, bit_depth=depth, seed=2, **SMALL)
    folder = tmp_path / "new" / "scene"
    write_scene(folder, config)
    files = list_labelled(folder, masks_required=True)
    assert [file.stem for file in files] == ["000000", "000001", "000002"]
    scenes = list(simulate(config))
    for file, scene in zip(files, scenes, strict=True):
        assert file.mask is not None
        assert np.array_equal(read_frame(file.image), scene.frame)
        assert np.array_equal(read_mask(file.mask), scene.mask)
    with (folder / "tracks.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    wanted = [(n, track) for n, scene in enumerate(scenes) for track in scene.tracks]
    assert len(rows) == len(wanted)
    for row, (index, track) in zip(rows, wanted, strict=True):
        assert (int(row["frame_index"]), int(row["track_id"])) == (index, track.id)
        got = [float(row[name]) for name in ("y", "x", "amplitude")]
        assert got == pytest.approx([*track.centre_yx, track.amplitude], abs=1e-3)


def test_an_interrupted_scene_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.simulate

    def until_interrupted(config: SceneConfig) -> Iterable[SimulatedFrame]:
        for index, scene in enumerate(original(config)):
            if index == 2:
                raise KeyboardInterrupt
            yield scene

    monkeypatch.setattr(module, "simulate", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "scene", SceneConfig(frames=3, **SMALL))
    assert list(tmp_path.iterdir()) == []


def test_a_scene_is_not_written_over_something(tmp_path: Path) -> None:
    config = SceneConfig(**SMALL)
    write_scene(tmp_path / "scene", config)
    file = tmp_path / "file"
    file.touch()
    for taken in (tmp_path / "scene", file):
        with pytest.raises(UsageError, match="name a new one"):
            write_scene(taken, config)
    (tmp_path / "empty").mkdir()
    write_scene(tmp_path / "empty", config)
    assert (tmp_path / "empty" / "tracks.csv").is_file()


# The default set


def test_default_frames_are_those_of_the_default_scenes() -> None:
    got = default_frames(5, 48, 64, seed=3)
    assert [frame.shape for frame in got] == [(48, 64)] * 5
    assert all(frame.dtype == np.uint8 for frame in got)
    scenes = default_scenes(7, 48, 64, seed=3)
    assert all(np.array_equal(a, b.frame) for a, b in zip(got, scenes[:5], strict=True))


def test_default_frames_have_the_statistics_of_real_ones() -> None:
    stack = np.array(default_frames(100, 128, 128))
    assert stack.mean() == pytest.approx(95, abs=20)
    assert stack.std() == pytest.approx(41, abs=12)
    assert 15 < np.median(stack.std(axis=(1, 2))) < 45
    assert np.mean((stack == 0) | (stack == 255)) < 0.02


def test_importing_the_simulator_loads_no_opencv(run_python: Callable[..., str]) -> None:
    code = "import sys, irstd.simulate; print('cv2' in sys.modules)"
    assert run_python(code).strip() == "False"


# Hard enough to tell a good network from a bad one


Network = Callable[[NDArray[Any]], NDArray[np.float32]]


def check_difficulty(network: Network, count: int) -> None:
    scenes = default_scenes(count)
    logits = [network(scene.frame) for scene in scenes]
    maps = [(1 / (1 + np.exp(-np.clip(z, -80, 80)))).astype(np.float32) for z in logits]
    masks = [scene.mask for scene in scenes]

    def at(threshold: float) -> Scores:
        return evaluate(maps, masks, threshold)

    assert 60 <= at(0.5).pd <= 95
    assert at(0.1).fa >= 10 * at(0.5).fa
    assert at(0.1).fa > 100


def test_shipped_acm_finds_most_targets_and_a_low_threshold_costs_false_alarms(root: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = root / "compile" / "weights" / "acm.onnx"
    if not path.is_file():
        pytest.skip("no weights are shipped yet")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    mean, std = json.loads(session.get_modelmeta().custom_metadata_map["irstd.normalize"])

    def network(frame: NDArray[Any]) -> NDArray[np.float32]:
        image = ((frame.astype(np.float32) - mean) / std)[None, None].astype(np.float32)
        logits: NDArray[np.float32] = session.run(None, {"image": image})[0][0, 0]
        return logits

    check_difficulty(network, count=200)


@pytest.mark.parametrize(
    ("network", "file"), [("acm", "acm_sirst3_point.pth.tar"), ("alcnet", "alcnet_sirst3.pth.tar")]
)
def test_public_networks_find_it_as_hard(weights_root: Path, network: str, file: str) -> None:
    torch = pytest.importorskip("torch")
    from irstd.compile.checkpoint import load_checkpoint

    loaded = load_checkpoint(network, weights_root / file).module

    def run(frame: NDArray[Any]) -> NDArray[np.float32]:
        image = torch.from_numpy((frame.astype(np.float32) - 95.010) / 41.511)[None, None]
        with torch.inference_mode():
            logits: NDArray[np.float32] = loaded(image)[0, 0].numpy()
        return logits

    check_difficulty(run, count=100)
