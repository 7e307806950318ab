import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd import simulate as module
from irstd.errors import UsageError
from irstd.frames import list_labelled, read_frame, read_mask
from irstd.simulate import SceneConfig, SimulatedFrame, simulate, write_scene

SMALL: dict[str, Any] = {"height": 64, "width": 80}


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
