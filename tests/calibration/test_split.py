"""Which frames calibrate and which verify: never both, whatever the order, by the seed alone."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.calibration.split import rank_frames, split_frames
from irstd.errors import CalibrationError
from irstd.frames import LabelledFiles


def files_of(stems):
    return [LabelledFiles(Path(f"images/{stem}.png"), None) for stem in stems]


def stems_of(files):
    return [file.stem for file in files]


@settings(max_examples=30)
@given(stems=st.sets(st.text("abc019_", min_size=1), min_size=2, max_size=40), seed=st.integers(0))
def test_halves_share_no_frame_and_lose_none(stems, seed):
    calibrate, verify = split_frames(files_of(stems), seed, at_most=1000)
    assert len(calibrate) == len(stems) // 2
    assert sorted(stems_of(calibrate + verify)) == sorted(stems)


@settings(max_examples=30)
@given(stems=st.permutations([f"{n:03d}" for n in range(20)]))
def test_order_of_the_files_does_not_matter(stems):
    expected = split_frames(files_of(sorted(stems)))
    assert split_frames(files_of(stems)) == expected


def test_only_the_stem_decides():
    here = split_frames([LabelledFiles(Path(f"a/{n}.png"), None) for n in range(10)])
    there = split_frames([LabelledFiles(Path(f"b/{n}.tif"), Path("m.png")) for n in range(10)])
    assert [stems_of(half) for half in here] == [stems_of(half) for half in there]


def test_seed_changes_the_split():
    files = files_of(range(30))
    assert split_frames(files, seed=0) != split_frames(files, seed=1)


def test_split_is_the_same_for_ever():
    """Spelt out: a changed hash would silently verify old bundles on what calibrated them."""
    calibrate, verify = split_frames(files_of("abcdef"))
    assert (stems_of(calibrate), stems_of(verify)) == (["f", "d", "a"], ["c", "b", "e"])


def test_at_most_limits_calibration_and_leaves_verification_alone():
    files = files_of(range(50))
    calibrate, verify = split_frames(files, at_most=7)
    everything, same = split_frames(files, at_most=1000)
    assert calibrate == everything[:7]
    assert verify == same
    assert len(verify) == 25


def test_at_most_100_frames_calibrate():
    assert len(split_frames(files_of(range(400)))[0]) == 100


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_cannot_be_split(count):
    with pytest.raises(CalibrationError, match=f"{count} frames: at least 2.*--verify-data"):
        split_frames(files_of(range(count)))


def test_ranking_is_the_order_of_the_split():
    files = files_of(range(9))
    calibrate, verify = split_frames(files, seed=3)
    assert rank_frames(files, seed=3) == calibrate + verify


def test_stems_that_are_not_unicode():
    files = files_of(["ok", "caf\udce9"])  # what Python makes of a Latin-1 file name
    assert len(split_frames(files)[0]) == 1
