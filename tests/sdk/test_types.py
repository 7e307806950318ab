import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from irstd.errors import InputError, UsageError
from irstd.types import BIT_DEPTHS, Detections, Fit, InputSpec, Precision


def spec(**changes: Any) -> InputSpec:
    values = {
        "height": 256,
        "width": 320,
        "scale": (0.02,),
        "offset": (-2.0,),
        "pad_level": (95.0,),
    }
    return InputSpec(**{**values, **changes})


def test_an_input_spec_says_its_tensor() -> None:
    assert (spec().channels, spec().shape) == (1, (1, 1, 256, 320))
    three = spec(scale=(1.0,) * 3, offset=(0.0,) * 3, pad_level=(0.0,) * 3)
    assert (three.channels, three.shape) == (3, (1, 3, 256, 320))
    assert (spec().bit_depth, spec().fit, spec().per_frame_max) == (8, Fit.PAD, False)


@pytest.mark.parametrize(("depth", "top"), list(zip(BIT_DEPTHS, (255, 16383, 65535), strict=True)))
def test_the_highest_level_follows_the_bit_depth(depth: int, top: int) -> None:
    assert spec(bit_depth=depth).max_level == top


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "0x320"),
        ({"width": -1}, "256x-1"),
        ({"bit_depth": 12}, "bit depth 12"),
        ({"scale": ()}, "1 or 3 channels"),
        ({"scale": (1.0, 1.0)}, "1 or 3 channels"),
        ({"offset": (0.0,) * 3}, "1 or 3 channels"),
        ({"pad_level": ()}, "1 or 3 channels"),
        ({"scale": (math.nan,)}, "finite"),
        ({"offset": (math.inf,)}, "finite"),
        ({"pad_level": (-math.inf,)}, "finite"),
    ],
)
def test_a_spec_that_no_engine_could_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec(**changes)


def test_precisions_are_the_words_of_the_command_line() -> None:
    assert {p.value for p in Precision} == {"fp32", "fp16", "int8"}
    assert Precision("int8") is Precision.INT8


def test_values_are_frozen() -> None:
    for value, name in ((spec(), "height"), (Detections.empty(), "score")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)


def test_no_detections_are_shaped_like_some() -> None:
    none = Detections.empty()
    assert len(none) == 0
    shapes = {field.name: np.shape(getattr(none, field.name)) for field in dataclasses.fields(none)}
    assert shapes == {
        "centroid_yx": (0, 2),
        "box_xyxy": (0, 4),
        "score": (0,),
        "area_px": (0,),
        "covariance_yx": (0, 2, 2),
        "peak_logit": (0,),
        "frame_index": (),
        "captured_at_s": (),
        "ready_at_s": (),
    }
    assert none.area_px.dtype == np.int32
    assert none.centroid_yx.dtype == none.score.dtype == np.float32
    assert math.isnan(none.captured_at_s)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("centroid_yx", (3, 2)),
        ("centroid_yx", (2, 3)),
        ("box_xyxy", (2, 2)),
        ("area_px", (2, 1)),
        ("covariance_yx", (2, 2)),
        ("peak_logit", (1,)),
    ],
)
def test_arrays_that_disagree_are_refused(name: str, shape: tuple[int, ...]) -> None:
    floats = np.float32
    arrays: dict[str, Any] = {
        "centroid_yx": np.zeros((2, 2), floats),
        "box_xyxy": np.zeros((2, 4), floats),
        "score": np.zeros(2, floats),
        "area_px": np.zeros(2, np.int32),
        "covariance_yx": np.zeros((2, 2, 2), floats),
        "peak_logit": np.zeros(2, floats),
    }
    assert len(Detections(**arrays)) == 2
    with pytest.raises(InputError, match=name):
        Detections(**{**arrays, name: np.zeros(shape, arrays[name].dtype)})
