"""Grey levels on their way into an INT8 graph: none may be lost without somebody saying so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import consumers
from irstd.compile.opset import to_opset19
from irstd.compile.quantize import (
    FORMS,
    MAX_LEVELS_PER_CODE,
    grey_levels_per_code,
    image_range,
    plan_int8,
    quantize,
    scale_and_zero,
    tensors_to_calibrate,
)
from irstd.compile.rewrites import rewrite
from irstd.runtime.preprocess import Preprocessor
from tests.compile.quantize_inputs import make_spec, take_one_channel_for_many

node = helper.make_node


def tensor_of(frame, spec):
    return next(Preprocessor(spec).tensors(frame)).copy()


@pytest.mark.parametrize("form", list(FORMS))
@settings(max_examples=60)
@given(low=st.floats(-1e4, 1e4), width=st.floats(0, 1e4))
def test_zero_is_exact_and_the_range_is_covered(form, low, width):
    scale, zero = scale_and_zero(TensorRange(low, low + width, 0, 0, 0), FORMS[form])
    lowest, highest = FORMS[form].lowest, FORMS[form].highest
    assert scale > 0
    assert lowest <= int(zero) <= highest
    assert (np.rint(np.float32(0) / scale) + int(zero) - int(zero)) * scale == 0
    ends = np.float32([min(low, 0), max(low + width, 0)])
    codes = np.clip(np.rint(ends / scale) + int(zero), lowest, highest)
    # Half a step is what rounding costs anyway; a little more where codes are finer by 1e-4.
    assert np.abs((codes - int(zero)) * scale - ends).max() <= 0.52 * scale + 1e-9


def codes_of(spec, form="cpu"):
    """The code of every grey level, through the real preprocessing and ONNX's QuantizeLinear."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = np.zeros((spec.height, spec.width), np.uint8)
    frame[:16, :16] = levels
    x = tensor_of(frame, spec)
    scale, zero = scale_and_zero(image_range(spec), FORMS[form])
    graph = helper.make_graph(
        [node("QuantizeLinear", ["image", "s", "z"], ["codes"])],
        "codes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("codes", helper.np_dtype_to_tensor_dtype(zero.dtype), None)],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return run_graph(model, x)[0, 0, :16, :16].ravel().astype(int), float(scale)


@settings(max_examples=40)
@given(mean=st.floats(0, 255), std=st.floats(1, 300))
def test_eight_bit_frames_pass_the_input_without_loss(mean, std):
    if abs(mean % 1 - 0.5) < 1e-3:
        return  # the next test
    codes, _ = codes_of(make_spec((mean,), (std,), 16))
    np.testing.assert_array_equal(codes, np.arange(256))


@pytest.mark.parametrize("mean", [127.5, 0.5, 99.5, 127.50001])
def test_grey_levels_halfway_between_codes_do_not_collapse_in_pairs(mean):
    """The popular (x / 255 - 0.5) / 0.5: rounding to even would leave 128 of 256 levels."""
    codes, _ = codes_of(make_spec((mean,), (127.5,), 16))
    assert len(set(codes)) >= 255
    assert (np.diff(codes)[:254] >= 1).all()  # only the highest two may share one


@pytest.mark.parametrize("form", list(FORMS))
def test_inverted_normalisation_keeps_order(form):
    spec = make_spec(scale=(-1 / 40,), offset=(2.0,), size=16)
    codes, _ = codes_of(spec, form)
    assert (np.diff(codes) <= 0).all()


@pytest.mark.parametrize(
    ("changes", "form", "wanted"),
    [
        ({}, "cpu", 1.0),
        ({}, "nvidia", 175 / 127),  # of -80..175 the larger side takes 127 codes
        ({"bit_depth": 14, "scale": (1 / 40,)}, "cpu", 16383 / 255),
        ({"bit_depth": 16, "scale": (1 / 40,)}, "cpu", 65535 / 255),
        ({"per_frame_max": True, "scale": (1.0,), "offset": (0.0,)}, "cpu", 1.0),
        ({"scale": (0.0,), "offset": (1.0,)}, "cpu", 0.0),
    ],
)
def test_grey_levels_per_code(changes, form, wanted):
    assert grey_levels_per_code(make_spec(**changes), form) == pytest.approx(wanted, rel=1e-3)


def test_finest_of_three_channels_counts():
    spec = make_spec((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    # From (0 - 123.675) / 58.395 to (255 - 103.53) / 57.375 in 255 codes.
    assert grey_levels_per_code(spec, "cpu") == pytest.approx(4.758 / 255 * 58.395, rel=1e-3)


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(("bit_depth", "keeps_float"), [(8, False), (14, True), (16, True)])
def test_deep_frames_keep_the_first_convolution_float(
    form, bit_depth, keeps_float, make_tiny, monkeypatch
):
    take_one_channel_for_many(monkeypatch)
    model, _ = rewrite(make_tiny(), 32, 32)
    factor = ((1 << bit_depth) - 1) / 255
    spec = make_spec((80 * factor,), (40 * factor,), bit_depth=bit_depth)
    assert (grey_levels_per_code(spec, form) > MAX_LEVELS_PER_CODE) == keeps_float
    plan = plan_int8(model, form, spec)
    assert ("first" in plan.float_nodes) == keeps_float
    assert ("first" in plan.int8_nodes) != keeps_float
    if keeps_float:
        assert f"{bit_depth} bit" in plan.float_nodes["first"]
        scales = {name: TensorRange(0, 1, 0, 1, 0) for name in tensors_to_calibrate(model, plan)}
        graph = quantize(to_opset19(model), ScaleTable("minmax", 1, scales), plan, spec)
        readers = consumers(graph)[graph.graph.input[0].name]
        assert [item.op_type for item in readers] == ["Conv"]
