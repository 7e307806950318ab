"""Which frames do what in a build, and which are refused, by name."""

import shutil

import cv2
import numpy as np
import pytest

from irstd.compile.frame_sets import (
    choose_frames,
    golden_frames,
    read_calibration,
    read_checked,
    simulated_frames,
)
from irstd.compile.settings import FrameSettings
from irstd.errors import CalibrationError, InputError, UsageError
from irstd.frames import LabelledFiles, list_labelled
from irstd.types import InputSpec, Precision


def spec_of(height=32, width=32, bit_depth=8):
    return InputSpec(height, width, (0.01,), (0.0,), (0.0,), bit_depth)


def choose(settings, precision=Precision.INT8, *, budget=False):
    return choose_frames(settings, precision, budget=budget)


def stems(files):
    return [file.stem for file in files]


def test_half_calibrates_and_half_verifies(make_data):
    sets = choose(FrameSettings(make_data(frames=9)))
    assert (len(sets.calibrate), len(sets.verify)) == (4, 5)
    assert not set(sets.calibrate) & set(sets.verify)


def test_a_build_that_does_not_calibrate_verifies_on_the_same_half(make_data):
    settings = FrameSettings(make_data(frames=9))
    floating = choose(settings, Precision.FP32)
    assert floating.calibrate == ()
    assert floating.verify == choose(settings).verify


def test_one_frame_is_enough_to_verify_but_not_to_calibrate(make_data):
    settings = FrameSettings(make_data(frames=1))
    for precision in (Precision.FP32, Precision.FP16):
        sets = choose(settings, precision)
        assert (len(sets.calibrate), len(sets.verify)) == (0, 1)
    with pytest.raises(CalibrationError, match="at least 2 are needed"):
        choose(settings)


def test_no_data_at_all():
    sets = choose(FrameSettings(), Precision.FP16)
    assert (sets.calibrate, sets.verify) == ((), ())


def test_seed_changes_the_halves(make_data):
    data = make_data(frames=12)
    assert choose(FrameSettings(data, seed=0)) != choose(FrameSettings(data, seed=1))


def test_list_restricts_the_frames_and_may_repeat_itself(make_data, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("001\n003.png\n\n001\n004\n002\n001\n")
    sets = choose(FrameSettings(make_data(frames=9), listed))
    assert sorted(stems(sets.calibrate) + stems(sets.verify)) == ["001", "002", "003", "004"]


def test_other_frames_verify_and_all_of_data_calibrates(make_data):
    data, other = make_data(frames=5), make_data("other", frames=3, seed=1)
    sets = choose(FrameSettings(data, verify_data=other))
    assert len(sets.calibrate) == 5
    assert stems(sets.verify) == ["000", "001", "002"]
    assert all(file.image.parent.parent == other for file in sets.verify)


def test_frames_that_verify_never_calibrate(make_data, tmp_path):
    """The usual case: one folder, a training list and a validation list that overlaps it."""
    data, listed = make_data(frames=6), tmp_path / "val.txt"
    listed.write_text("001\n004\n")
    sets = choose(FrameSettings(data, verify_data=data, verify_list=listed))
    assert stems(sets.verify) == ["001", "004"]
    assert sorted(stems(sets.calibrate)) == ["000", "002", "003", "005"]


def test_half_precision_looks_at_the_frames_that_would_calibrate(make_data):
    settings = FrameSettings(make_data(frames=9))
    assert choose(settings, Precision.FP16) == choose(settings)
    same = FrameSettings(settings.data, verify_data=settings.data)
    assert choose(same, Precision.FP16).calibrate == ()


def test_a_link_to_a_frame_is_that_frame(make_data, tmp_path):
    data = make_data(frames=3)
    linked = tmp_path / "linked" / "images"
    linked.mkdir(parents=True)
    (linked / "renamed.png").symlink_to(data / "images" / "001.png")
    sets = choose(FrameSettings(data, verify_data=linked.parent))
    assert sorted(stems(sets.calibrate)) == ["000", "002"]


def test_everything_verifies_and_nothing_is_left_to_calibrate(make_data):
    data = make_data(frames=3)
    with pytest.raises(CalibrationError, match=r"all 3 frames of .* none is left to calibrate on"):
        choose(FrameSettings(data, verify_data=data))


@pytest.mark.parametrize("how", ["data", "verify_data"])
def test_budget_on_unlabelled_frames(how, make_data):
    labelled, unlabelled = make_data(), make_data("bare", masks=False)
    settings = (
        FrameSettings(unlabelled) if how == "data" else FrameSettings(labelled, None, unlabelled)
    )
    assert choose(settings).verify
    with pytest.raises(UsageError, match=r"--budget needs labelled.*bare has no masks/ folder"):
        choose(settings, budget=True)


def test_folder_that_is_empty_or_missing(tmp_path, make_data):
    with pytest.raises(InputError, match=r"none: .*folder"):
        choose(FrameSettings(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in it"):
        choose(FrameSettings(tmp_path / "empty"))
    (tmp_path / "list.txt").write_text("000\nmissing\n")
    with pytest.raises(InputError, match=r"list\.txt: 1 stems .*'missing'"):
        choose(FrameSettings(make_data(), tmp_path / "list.txt"))


def test_image_without_a_mask_in_a_labelled_folder(make_data):
    data = make_data(frames=4)
    (data / "masks" / "002.png").unlink()
    with pytest.raises(InputError, match=r"1 images have no mask, first '002'"):
        choose(FrameSettings(data))


def test_unreadable_image_among_good_ones_is_named(make_data):
    data = make_data(frames=4)
    (data / "images" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InputError, match=r"002\.png: not a readable image"):
        read_calibration(list_labelled(data), spec_of())


def test_coloured_image_is_named(make_data):
    data = make_data(frames=3)
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(data / "images" / "001.png"), image)
    with pytest.raises(InputError, match=r"001\.png: a coloured image"):
        read_calibration(list_labelled(data), spec_of())


@pytest.mark.parametrize(
    ("stored", "depth", "reason"),
    [
        (16, 8, "uint16 pixels, wanted uint8 for bit depth 8"),
        (8, 14, "uint8 pixels, wanted uint16 for bit depth 14"),
        (8, 16, "uint8 pixels, wanted uint16 for bit depth 16"),
        (16, 14, "is above 16383, the highest of bit depth 14"),
    ],
)
def test_wrong_bit_depth_names_file_and_flag(stored, depth, reason, make_data):
    files = list_labelled(make_data(frames=2, bit_depth=stored))
    with pytest.raises(InputError, match=reason) as caught:
        read_calibration(files, spec_of(bit_depth=depth))
    assert "000.png" in str(caught.value)
    assert "--bit-depth" in str(caught.value)


@pytest.mark.parametrize("depth", [8, 14, 16])
def test_right_bit_depth_is_read_as_it_is(depth, make_data):
    files = list_labelled(make_data(frames=2, bit_depth=depth))
    for file in files:
        frame = read_checked(file, spec_of(bit_depth=depth))
        np.testing.assert_array_equal(frame, cv2.imread(str(file.image), cv2.IMREAD_UNCHANGED))


def test_all_black_frames_cannot_calibrate(make_data):
    data = make_data(frames=3, masks=False)
    for path in (data / "images").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    with pytest.raises(CalibrationError, match="all 3 calibration frames are flat"):
        read_calibration(list_labelled(data), spec_of())


def test_labelled_frames_without_targets_cannot_calibrate(make_data):
    data = make_data(frames=3)
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    with pytest.raises(CalibrationError, match="holds a target"):
        read_calibration(list_labelled(data), spec_of())
    shutil.rmtree(data / "masks")
    assert len(read_calibration(list_labelled(data), spec_of())) == 3


def write(path, image):
    cv2.imwrite(str(path), image)
    return path


def test_golden_frames_are_cut_around_the_first_target(tmp_path):
    image = np.arange(100 * 120, dtype=np.uint16).reshape(100, 120) % 251
    image = image.astype(np.uint8)
    mask = np.zeros((100, 120), np.uint8)
    mask[70:72, 90:93] = 255
    file = LabelledFiles(write(tmp_path / "a.png", image), write(tmp_path / "m.png", mask))
    (frame,) = golden_frames([file], spec_of(32, 48), 0)
    np.testing.assert_array_equal(frame, image[54:86, 66:114])
    assert frame.flags.c_contiguous


@pytest.mark.parametrize(("y", "x", "top", "left"), [(0, 0, 0, 0), (99, 119, 68, 72)])
def test_target_at_the_edge(y, x, top, left, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (100, 120), dtype=np.uint8)
    mask = np.zeros((100, 120), np.uint8)
    mask[y, x] = 255
    file = LabelledFiles(write(tmp_path / "a.png", image), write(tmp_path / "m.png", mask))
    (frame,) = golden_frames([file], spec_of(32, 48), 0)
    np.testing.assert_array_equal(frame, image[top : top + 32, left : left + 48])


def test_golden_frames_without_masks_are_the_middle_and_small_ones_whole(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 20), dtype=np.uint8)
    file = LabelledFiles(write(tmp_path / "a.png", image), None)
    (frame,) = golden_frames([file], spec_of(32, 48), 0)
    np.testing.assert_array_equal(frame, image[4:36])


def test_few_golden_frames_are_kept(make_data):
    assert len(golden_frames(list_labelled(make_data(frames=9)), spec_of(), 0)) == 3


@pytest.mark.parametrize("depth", [8, 14, 16])
@pytest.mark.parametrize("size", [(32, 48), (8, 8)])
def test_without_data_golden_frames_are_simulated(depth, size):
    spec = spec_of(*size, bit_depth=depth)
    frames = golden_frames([], spec, seed=3)
    assert len(frames) == 3
    for frame in frames:
        assert frame.shape == size
        assert frame.dtype == (np.uint8 if depth == 8 else np.uint16)
        assert frame.max() <= spec.max_level
        assert np.ptp(frame) > 0
    again = simulated_frames(spec, 3, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))
    assert not np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], simulated_frames(spec, 3, seed=4)[0])
