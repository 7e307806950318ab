"""Scale tables survive JSON, and nothing else is taken for one."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.errors import CalibrationError

numbers = st.floats(-1e30, 1e30)


@st.composite
def ranges(draw):
    low, high = sorted((draw(numbers), draw(numbers)))
    return TensorRange(low, high, draw(numbers), draw(numbers), draw(st.floats(0, 1)))


@settings(max_examples=30)
@given(found=st.dictionaries(st.text(min_size=1), ranges(), max_size=5))
def test_json_and_back(found):
    table = ScaleTable("mse", 12, found)
    again = ScaleTable.from_json(table.to_json())
    assert again == table
    assert list(again.ranges) == list(found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"ranges": 3}', "[" * 100_000])
def test_other_json_is_refused(text):
    with pytest.raises(CalibrationError, match="not a scale table"):
        ScaleTable.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [("low", math.nan), ("high", math.inf), ("low", 3.0), ("seen_low", -math.inf)],
)
def test_impossible_range_is_refused_by_name(field, value):
    table = json.loads(ScaleTable("minmax", 1, {"conv1": TensorRange(0, 1, 0, 1, 0)}).to_json())
    table["ranges"]["conv1"][field] = value
    with pytest.raises(CalibrationError, match="'conv1'"):
        ScaleTable.from_json(json.dumps(table))


@pytest.mark.parametrize("change", [{"extra": 1.0}, {"low": "wide"}, {"low": None}])
def test_range_of_another_shape_is_refused(change):
    table = json.loads(ScaleTable("minmax", 1, {"a": TensorRange(0, 1, 0, 1, 0)}).to_json())
    table["ranges"]["a"] |= change
    with pytest.raises(CalibrationError, match="not a scale table"):
        ScaleTable.from_json(json.dumps(table))


def test_equal_low_and_high_are_a_constant_tensor():
    constant = TensorRange(0.5, 0.5, 0.5, 0.5, 0.0)
    table = ScaleTable("minmax", 1, {"a": constant})
    assert ScaleTable.from_json(table.to_json()).ranges["a"] == constant
