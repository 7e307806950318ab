"""Precisions of the deployed graph: what each keeps, and what a calibration is made of."""

import numpy as np
import onnx
import pytest

from irstd.calibration.scales import ScaleTable
from irstd.compile.graph_facts import run_graph
from irstd.compile.half import ACTIVATION_LIMIT
from irstd.compile.lower import calibrate_graph, expose_tensors, lower
from irstd.compile.onnx_graph import opset_of
from irstd.compile.prepare import prepare
from irstd.compile.quantize import plan_int8, tensors_to_calibrate
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.sources import Source
from irstd.errors import CalibrationError
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import open_session
from irstd.types import Precision


@pytest.fixture(scope="module")
def prepared(make_tiny):
    source = Source("tiny", make_tiny(), Normalization((80.0,), (40.0,)), None, True, {})
    return prepare(source, SourceSettings("tiny"))


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32), dtype=np.uint8) for _ in range(3)]


def settings_of(precision, **changes):
    return LoweringSettings(precision=Precision(precision), **changes)


def ops(model):
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def run(model, prepared, frame):
    session = open_session("reference", model)
    x = next(Preprocessor(prepared.spec).tensors(frame))
    result = session.run(x)[0].copy()
    session.close()
    return result


def test_fp32_is_the_plain_graph_in_the_form_of_the_target(prepared, frames):
    lowered = lower(prepared, settings_of("fp32"), frames)
    assert lowered.precision is Precision.FP32
    assert lowered.scales is None
    assert "MatMul" in ops(lowered.model)
    portable = lower(prepared, settings_of("fp32", target="rtx-40"), frames)
    assert portable.model == prepared.model.SerializeToString()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_result_is_near_fp32(precision, prepared, frames):
    wanted = run(prepared.model.SerializeToString(), prepared, frames[0])
    lowered = lower(prepared, settings_of(precision), frames)
    error = np.abs(run(lowered.model, prepared, frames[0]) - wanted).max() / np.ptp(wanted)
    assert error < (0.01 if precision == "fp16" else 0.05)
    assert opset_of(onnx.load_model_from_string(lowered.model)) == 19


def test_fp16_keeps_what_leaves_its_range_on_the_frames(make_tiny, frames):
    """The same network, the first bias so large that activations pass half of float16's range."""
    model = make_tiny()
    for tensor in model.graph.initializer:
        if tensor.name == "first_bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(24, 4e4, np.float32), tensor.name))
    source = Source("hot", model, Normalization((80.0,), (40.0,)), None, True, {})
    hot = prepare(source, SourceSettings("hot"))
    assert ACTIVATION_LIMIT < 4e4
    reasons = lower(hot, settings_of("fp16"), frames).float_nodes
    assert "first" in reasons
    assert "the limit is half of float16" in reasons["first"]


def test_int8_has_scales_for_exactly_what_it_quantizes(prepared, frames):
    lowered = lower(prepared, settings_of("int8"), frames)
    plan = plan_int8(prepared.model, "cpu", prepared.spec)
    assert list(lowered.scales.ranges) == tensors_to_calibrate(prepared.model, plan)
    assert lowered.scales.frames == 3
    assert lowered.int8_nodes == plan.int8_nodes
    assert lowered.float_nodes == plan.float_nodes


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile", "mse"])
def test_methods_choose_within_what_was_seen(method, prepared, frames):
    scales = lower(prepared, settings_of("int8", calibration=method), frames).scales
    assert scales.method == method
    for found in scales.ranges.values():
        assert found.seen_low <= found.low <= found.high <= found.seen_high
        assert (found.clipped_share == 0) == (method == "minmax") or method != "minmax"


def test_ranges_are_those_of_the_activations(prepared, frames):
    """Against the graph itself, run with each tensor as its output."""
    plan = plan_int8(prepared.model, "cpu", prepared.spec)
    scales = calibrate_graph(prepared, plan, frames, "minmax")
    name = tensors_to_calibrate(prepared.model, plan)[1]
    tapped = expose_tensors(prepared.model, [name])
    preprocessor = Preprocessor(prepared.spec)
    values = [run_graph(tapped, x) for frame in frames for x in preprocessor.tensors(frame)]
    assert scales.ranges[name].low == pytest.approx(min(v.min() for v in values), abs=1e-5)
    assert scales.ranges[name].high == pytest.approx(max(v.max() for v in values), abs=1e-5)


def test_larger_frames_calibrate_by_every_tile(prepared, frames):
    rng = np.random.default_rng(1)
    large = [rng.integers(0, 256, (32, 60), dtype=np.uint8)]
    plan = plan_int8(prepared.model, "cpu", prepared.spec)
    tiles = len(Preprocessor(prepared.spec).tiles((32, 60)))
    assert tiles > 1
    assert calibrate_graph(prepared, plan, large, "minmax").frames == tiles


@pytest.mark.parametrize("change", ["frames", "method"])
def test_cached_scales_are_for_the_same_frames_method_and_tensors(
    change, prepared, frames, tmp_path, monkeypatch
):
    from irstd.compile import lower as module

    def calibrated(kept, method, form):
        plan = plan_int8(prepared.model, form, prepared.spec)
        return calibrate_graph(prepared, plan, kept, method, tmp_path)

    first = calibrated(frames, "minmax", "cpu")
    count = []
    real = module.calibrate
    monkeypatch.setattr(module, "calibrate", lambda *a: count.append(1) or real(*a))
    assert calibrated(frames, "minmax", "cpu") == first
    assert calibrated(frames, "minmax", "nvidia") == first  # one table serves both forms
    assert not count
    asked = {
        "frames": frames,
        "method": "minmax",
        change: {"frames": frames[:2]}.get(change, "mse"),
    }
    calibrated(asked["frames"], asked["method"], "cpu")
    assert len(count) == 1


def test_no_frames(prepared):
    with pytest.raises(CalibrationError, match="no calibration frames"):
        lower(prepared, settings_of("int8"), [])


def test_scale_table_of_a_bundle_is_that_of_the_calibration(prepared, frames):
    scales = lower(prepared, settings_of("int8"), frames).scales
    assert ScaleTable.from_json(scales.to_json()) == scales


def test_exposing_tensors_leaves_the_graph_alone(prepared):
    before = prepared.model.SerializeToString()
    names = [prepared.model.graph.node[1].output[0], prepared.model.graph.node[0].output[0]]
    tapped = expose_tensors(prepared.model, names)
    assert [value.name for value in tapped.graph.output] == names
    assert prepared.model.SerializeToString() == before
