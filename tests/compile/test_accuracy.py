"""The budget, and what is said about a change of accuracy."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.compile.accuracy import (
    BUDGET_METRICS,
    check_budget,
    is_labelled,
    judge,
    parse_budget,
    score_frames,
    unmeasured,
    wilson_interval,
)
from irstd.errors import InputError, UsageError
from irstd.frames import LabelledFiles, list_labelled, read_frame
from irstd.metrics import Scores, evaluate

BEFORE = Scores(60.0, 55.0, 90.0, 20.0, 80.0, 90.0, 72.0, 40, 50, 0.5)


def changed(**by):
    return Scores(**{**vars(BEFORE), **{k: getattr(BEFORE, k) + v for k, v in by.items()}})


def test_budget_of_the_interface_page():
    assert parse_budget("hse=-0.3,pd=-0.3,fa=+2") == {"hse": -0.3, "pd": -0.3, "fa": 2.0}


@pytest.mark.parametrize("text", ["hse=-0.3", " hse = -0.3 ", "hse=-.3", "hse=-3e-1"])
def test_budget_spellings(text):
    assert parse_budget(text) == {"hse": -0.3}


def test_no_change_at_all_may_be_asked_for():
    assert parse_budget("hse=0,fa=0") == {"hse": 0.0, "fa": 0.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown metric ''"),
        ("map=-1", "unknown metric 'map'; known: hse, hse_p, hse_t, iou, niou, pd, fa"),
        ("hse=-0.3,", "unknown metric ''"),
        ("HSE=-1", "unknown metric 'HSE'"),
        ("hse", "hse needs a number, got ''"),
        ("hse=-0,3", "unknown metric '3'"),
        ("hse=low", "hse needs a number, got 'low'"),
        ("hse=nan", "hse needs a number"),
        ("fa=inf", "fa needs a number"),
        ("hse=0.3", "demands an improvement"),
        ("fa=-2", "demands an improvement"),
        ("hse=-1,hse=-2", "hse is given twice"),
    ],
)
def test_budget_that_is_none(text, reason):
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert str(caught.value).startswith("--budget: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", [None, "much", [1], math.nan])
def test_budget_of_numbers_checks_them(value):
    assert check_budget({"hse": -1}) == {"hse": -1.0}
    with pytest.raises(UsageError, match="hse needs a number"):
        check_budget({"hse": value})


@pytest.mark.parametrize("name", BUDGET_METRICS)
def test_each_metric_is_held_to_its_own_sign(name):
    worse, better = (1, -1) if name == "fa" else (-1, 1)
    budget = {name: 0.5 * worse}
    assert judge(BEFORE, changed(**{name: 0.4 * worse}), budget).passed
    assert judge(BEFORE, changed(**{name: 5.0 * better}), budget).passed
    verdict = judge(BEFORE, changed(**{name: 0.6 * worse}), budget)
    assert not verdict.passed
    assert verdict.violations == (
        f"{name} changed by {0.6 * worse:+.3f}, allowed {0.5 * worse:+.3f}",
    )


def test_exactly_the_allowed_change_passes():
    after = changed(hse=-0.5)
    change = after.hse - BEFORE.hse
    assert judge(BEFORE, after, {"hse": change}).passed
    assert not judge(BEFORE, after, {"hse": math.nextafter(change, 1)}).passed


def test_without_budget_nothing_is_violated():
    verdict = judge(BEFORE, changed(hse=-50.0, pd=-80.0), {})
    assert verdict.passed
    assert verdict.accuracy is not None
    assert verdict.accuracy.change["hse"] == pytest.approx(-50)


def test_verdict_as_json_says_whether_it_passed():
    found = judge(BEFORE, changed(pd=-10.0), {"pd": -1.0}).to_dict()
    assert found["passed"] is False
    assert found["accuracy"]["fp32"]["hse"] == 72.0
    assert set(found["accuracy"]["change"]) == set(BUDGET_METRICS)
    assert unmeasured([]).to_dict() == {
        "frames": 0, "labelled": False, "accuracy": None, "budget": {}, "violations": (),
        "passed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    # Computed by hand from the score formula, z = 1.96.
    [
        (0.5, 10, 23.66, 76.34),
        (0.9, 10, 59.58, 98.21),
        (0.0, 10, 0.0, 27.75),
        (1.0, 10, 72.25, 100),
    ],
)
def test_wilson_interval(share, count, low, high):
    assert wilson_interval(share, count) == (
        pytest.approx(low, abs=0.01),
        pytest.approx(high, abs=0.01),
    )


@settings(max_examples=40)
@given(count=st.integers(0, 2000), data=st.data())
def test_wilson_interval_holds_the_share_within_percent(count, data):
    share = data.draw(st.integers(0, count)) / count if count else 0.0
    low, high = wilson_interval(share, count)
    assert 0 <= low <= 100 * share + 1e-9
    assert 100 * share - 1e-9 <= high <= 100


def brightness(frame):
    """Logits of a detector that takes the grey level for it."""
    return (frame.astype(np.float32) - 150) / 20


def read(file):
    return read_frame(file.image)


def test_scores_are_those_of_the_metrics(make_data):
    files = list_labelled(make_data(frames=4))
    found = score_frames(files, read, brightness, 0.5)
    maps = [1 / (1 + np.exp(-brightness(read(file)))) for file in files]
    masks = [read_frame(file.mask) for file in files]
    assert found == evaluate(maps, masks, 0.5)
    assert found.pd == 100.0  # the dots are bright


def test_progress_is_told_of_every_frame(make_data):
    files = list_labelled(make_data(frames=3))
    seen = []

    class Counting:
        def track(self, items, what):
            for item in items:
                seen.append((what, item.stem))
                yield item

    score_frames(files, read, brightness, 0.5, Counting(), "scoring fp32")
    assert seen == [("scoring fp32", file.stem) for file in files]


def test_mask_of_another_size_is_named(make_data):
    data = make_data(frames=3)
    cv2.imwrite(str(data / "masks" / "001.png"), np.full((5, 6), 255, np.uint8))
    with pytest.raises(InputError, match=r"001\.png: 5x6 px, wanted the size of its frame, 32x32"):
        score_frames(list_labelled(data), read, brightness, 0.5)


def test_labelled_frames_without_any_target(make_data):
    data = make_data(frames=3)
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    with pytest.raises(InputError, match="none of the 3 labelled frames to verify on"):
        score_frames(list_labelled(data), read, brightness, 0.5)


def test_labelled_means_some_frames_and_all_with_masks():
    with_mask = LabelledFiles(Path("a.png"), Path("m.png"))
    without = LabelledFiles(Path("b.png"), None)
    assert is_labelled([with_mask])
    assert not is_labelled([with_mask, without])
    assert not is_labelled([])
