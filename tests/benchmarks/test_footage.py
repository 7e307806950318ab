import cv2
import numpy as np
import pytest

from irstd.benchmarks import footage
from irstd.benchmarks.footage import load_footage
from irstd.errors import InputError
from irstd.types import InputSpec


def spec(side=64, depth=8):
    return InputSpec(side, side, (1.0,), (0.0,), (0.0,), bit_depth=depth)


@pytest.mark.parametrize(("depth", "dtype"), [(8, np.uint8), (14, np.uint16), (16, np.uint16)])
def test_without_data_there_are_simulated_frames_of_the_bundles_kind(depth, dtype, monkeypatch):
    monkeypatch.setattr(footage, "SIMULATED_FRAMES", 20)
    loaded = load_footage(None, spec(32, depth))
    assert len(loaded.frames) == 20
    assert {(frame.shape, frame.dtype.type) for frame in loaded.frames} == {((32, 32), dtype)}
    assert all(frame.max() <= 2**depth - 1 for frame in loaded.frames)
    assert np.std([frame.mean() for frame in loaded.frames]) > 0
    assert f"{depth} bit" in loaded.description


def test_simulated_frames_are_the_same_every_time(monkeypatch):
    monkeypatch.setattr(footage, "SIMULATED_FRAMES", 10)
    assert load_footage(None, spec(32)).sha256 == load_footage(None, spec(32)).sha256


def test_a_folder_is_read_whole_in_an_order_that_does_not_change(write_folder):
    folder = write_folder(7)
    first, second = load_footage(folder, spec()), load_footage(folder, spec())
    assert (len(first.frames), first.left_out) == (7, 0)
    assert first.sha256 == second.sha256
    in_name_order = [cv2.imread(str(p), -1) for p in sorted((folder / "images").iterdir())]
    assert {f.tobytes() for f in first.frames} == {f.tobytes() for f in in_name_order}


def test_one_pixel_changes_the_hash(write_folder):
    folder = write_folder(3)
    before = load_footage(folder, spec()).sha256
    path = folder / "images" / "1.png"
    frame = cv2.imread(str(path), -1)
    frame[0, 0] += 1
    cv2.imwrite(str(path), frame)
    assert load_footage(folder, spec()).sha256 != before


def test_what_does_not_fit_into_memory_is_left_out_and_counted(write_folder, monkeypatch):
    monkeypatch.setattr(footage, "MOST_BYTES", 3 * 64 * 64)
    loaded = load_footage(write_folder(7), spec())
    assert (len(loaded.frames), loaded.left_out) == (3, 4)


def test_frames_of_another_depth_are_refused_by_name_before_anything_is_timed(write_folder):
    folder = write_folder(3)
    odd = folder / "images" / "2.png"
    cv2.imwrite(str(odd), np.full((64, 64), 9000, np.uint16))
    with pytest.raises(InputError, match=r"2\.png: uint16 pixels up to 9000.*8-bit"):
        load_footage(folder, spec())
    with pytest.raises(InputError, match=r"png: uint8"):
        load_footage(folder, spec(depth=14))


def test_a_level_above_fourteen_bits_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64), 16384, np.uint16))
    with pytest.raises(InputError, match="levels 0 to 16383"):
        load_footage(tmp_path, spec(depth=14))
    assert len(load_footage(tmp_path, spec(depth=16)).frames) == 1


def test_a_missing_or_empty_folder(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError):
            load_footage(folder, spec())
