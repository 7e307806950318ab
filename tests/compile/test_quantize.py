"""INT8 graphs: what is quantized and how, against numpy, ONNX's own rules and both CPU engines."""

import numpy as np
import onnx
import pytest
from onnx import helper

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.compile.graph_facts import run_graph
from irstd.compile.lower import calibrate_graph
from irstd.compile.onnx_graph import constants, consumers, producers
from irstd.compile.quantize import (
    FORMS,
    plan_int8,
    quantize,
    tensors_to_calibrate,
)
from irstd.errors import CalibrationError
from irstd.manifest_json import INT8_FORMS
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import open_session
from tests.compile.quantize_inputs import (
    make_spec,
    prepare_tiny,
    take_one_channel_for_many,
    three_frames,
)

node = helper.make_node


@pytest.fixture(scope="module")
def frames():
    return three_frames()


@pytest.fixture(scope="module")
def plain(make_tiny):
    return prepare_tiny(make_tiny())


@pytest.fixture(scope="module", params=list(FORMS))
def quantized(request, plain, frames):
    """(form, plan, scales, INT8 graph)."""
    plan = plan_int8(plain.model, request.param, plain.spec)
    scales = calibrate_graph(plain, plan, frames, "minmax")
    return request.param, plan, scales, quantize(plain.model, scales, plan, plain.spec)


def tensor_of(frame, spec):
    return next(Preprocessor(spec).tensors(frame)).copy()


def run_plainly(model, x):
    """Node by node: on CPUs without 8-bit dot products, fused integer products saturate."""
    session = open_session("reference", model.SerializeToString())
    result = session.run(x)[0].copy()
    session.close()
    return result


def of_type(model, *kinds):
    return [item for item in model.graph.node if item.op_type in kinds]


def test_forms_are_those_that_a_manifest_may_name():
    assert tuple(FORMS) == INT8_FORMS


def test_onnx_and_both_engines_accept_it(quantized, plain, frames):
    _, _, _, model = quantized
    onnx.checker.check_model(model, full_check=True)
    data, x = model.SerializeToString(), tensor_of(frames[0], plain.spec)
    for engine in ("onnxruntime", "openvino", "reference"):
        session = open_session(engine, data, threads=1)
        assert np.isfinite(session.run(x)[0]).all()
        session.close()


def test_result_is_near_fp32_and_not_it(quantized, plain, frames):
    _, _, _, model = quantized
    for frame in frames:
        x = tensor_of(frame, plain.spec)
        wanted = run_graph(plain.model, x)
        error = np.abs(run_plainly(model, x) - wanted).max() / np.ptp(wanted)
        assert 1e-5 < error < 0.05


def test_argument_is_left_alone(plain, frames):
    before = plain.model.SerializeToString()
    plan = plan_int8(plain.model, "cpu", plain.spec)
    quantize(plain.model, calibrate_graph(plain, plan, frames, "minmax"), plan, plain.spec)
    assert plain.model.SerializeToString() == before


def test_same_inputs_give_the_same_graph_and_scales(plain, frames):
    def build():
        plan = plan_int8(plain.model, "cpu", plain.spec)
        scales = calibrate_graph(plain, plan, frames, "entropy")
        return scales, quantize(plain.model, scales, plan, plain.spec).SerializeToString()

    assert build() == build()


def test_every_planned_convolution_reads_dequantized_tensors_only(quantized):
    form, plan, _, model = quantized
    made_by = producers(model)
    convolutions = {item.name: item for item in of_type(model, "Conv", "ConvTranspose")}
    others = {"first", "up"} if form == "cpu" else set()
    assert set(plan.int8_nodes) == {"left", "right", "middle"} | others
    for name in plan.int8_nodes:
        for read in convolutions[name].input[:2]:
            assert made_by[read].op_type == "DequantizeLinear", (name, read)


def test_convolutions_on_pooled_vectors_and_the_last_one_stay_float(quantized):
    form, plan, _, model = quantized
    reasons = dict(plan.float_nodes)
    assert "pooled vector" in reasons.pop("gate")
    if form == "nvidia":
        assert "TensorRT for RTX computes it in float" in reasons.pop("up")
        assert "reads 1 channel" in reasons.pop("first")
    assert set(reasons) == {"head"}
    assert "logits" in reasons["head"]
    for item in model.graph.node:
        if item.name in plan.float_nodes:
            assert item.input[1] in constants(model)


def test_what_convolutions_do_not_share_stays_float_on_a_cpu(plain, frames):
    """The residual sum and the gate read the float value beside the convolution's quantized one."""
    plan = plan_int8(plain.model, "cpu", plain.spec)
    scales = calibrate_graph(plain, plan, frames, "minmax")
    model = quantize(plain.model, scales, plan, plain.spec)
    made_by = producers(model)
    for item in of_type(model, "Add", "Mul", "GlobalAveragePool", "Relu"):
        for name in item.input:
            assert name not in made_by or made_by[name].op_type != "DequantizeLinear"


@pytest.mark.parametrize(("channels", "head"), [(2, {"middle", "head"}), (4, {"head"})])
def test_convolutions_of_the_head_that_make_few_channels_stay_float(channels, head, make_small):
    weights = [
        np.ones(shape, np.float32)
        for shape in ((8, 1, 3, 3), (channels, 8, 3, 3), (1, channels, 1, 1))
    ]
    model = make_small(
        [
            node("Conv", ["image", "w0"], ["a"], "first", pads=[1] * 4),
            node("Conv", ["a", "w1"], ["b"], "middle", pads=[1] * 4),
            node("Relu", ["b"], ["c"], "relu"),
            node("Conv", ["c", "w2"], ["logits"], "head"),
        ],
        {f"w{index}": weight for index, weight in enumerate(weights)},
    )
    assert plan_int8(model, "cpu", make_spec(size=9)).float_nodes.keys() == head


def test_the_last_convolution_is_quantized_where_it_is_the_only_one(make_small):
    weight = np.ones((1, 1, 3, 3), np.float32)
    model = make_small(
        [node("Conv", ["image", "w"], ["logits"], "conv", pads=[1] * 4)], {"w": weight}
    )
    assert plan_int8(model, "cpu", make_spec(size=9)).int8_nodes == ("conv",)


def test_weights_are_symmetric_int8_with_one_scale_an_output_channel(quantized, plain):
    form, plan, _, model = quantized
    made_by, values, original = producers(model), constants(model), constants(plain.model)
    sources = {item.name: item for item in of_type(plain.model, "Conv", "ConvTranspose")}
    for item in of_type(model, "Conv", "ConvTranspose"):
        if item.name not in plan.int8_nodes:
            continue
        dequantize = made_by[item.input[1]]
        levels, scale, zero = (values[name] for name in dequantize.input)
        axis = 0 if item.op_type == "Conv" else 1
        assert next(a.i for a in dequantize.attribute if a.name == "axis") == axis
        assert (levels.dtype, zero.dtype, scale.dtype) == (np.int8, np.int8, np.float32)
        assert not zero.any()
        assert scale.shape == (levels.shape[axis],)
        assert np.abs(levels).max() == FORMS[form].weight_levels
        weight = original[sources[item.name].input[1]]
        step = scale.reshape([-1 if i == axis else 1 for i in range(4)])
        assert np.abs(levels * step - weight).max() <= step.max() / 2 * 1.001


def test_biases_stay_float(quantized):
    _, _, _, model = quantized
    values = constants(model)
    for item in of_type(model, "Conv", "ConvTranspose"):
        if len(item.input) > 2:
            assert values[item.input[2]].dtype == np.float32
    assert not [name for name, value in values.items() if value.dtype == np.int32]
    assert all(
        values[item.input[0]].dtype == np.int8
        for item in of_type(model, "DequantizeLinear")
        if item.input[0] in values
    )


def test_activations_have_the_types_of_the_form(quantized):
    form, _, _, model = quantized
    values = constants(model)
    for item in of_type(model, "QuantizeLinear"):
        zero = values[item.input[2]]
        assert zero.dtype == FORMS[form].dtype
        assert values[item.input[1]].shape == zero.shape == ()
        if form == "nvidia":
            assert zero == 0


def test_max_pool_runs_on_integers_of_one_scale_where_the_form_pools(quantized):
    form, _, _, model = quantized
    made_by, read_by, values = producers(model), consumers(model), constants(model)
    pool = of_type(model, "MaxPool")[0]
    before = made_by[pool.input[0]]
    after = [item for item in read_by[pool.output[0]] if item.op_type == "QuantizeLinear"]
    assert len(after) == 1
    if not FORMS[form].pools:
        assert before.op_type == "Relu"
        return
    assert before.op_type == "DequantizeLinear"
    for one, other in zip(before.input[1:], after[0].input[1:], strict=True):
        np.testing.assert_array_equal(values[one], values[other])


def test_no_two_products_of_the_cpu_form_saturate_16_bits():
    form = FORMS["cpu"]
    assert 2 * form.highest * form.weight_levels <= np.iinfo(np.int16).max


def test_the_cpu_form_is_computed_the_same_by_an_engine_that_fuses(make_small):
    """Weights and frames as bright as can be, on whatever CPU this is."""
    model = make_small(
        [
            node("Conv", ["image", "w1"], ["a"], "conv1", pads=[1] * 4),
            node("Relu", ["a"], ["b"], "relu"),
            node("Conv", ["b", "w2"], ["c"], "conv2", pads=[1] * 4),
            node("Conv", ["c", "w3"], ["logits"], "conv3"),
        ],
        {
            "w1": np.ones((8, 3, 3, 3), np.float32),
            "w2": np.ones((4, 8, 3, 3), np.float32),
            "w3": np.ones((1, 4, 1, 1), np.float32),
        },
        channels=3,
        size_hw=(16, 16),
        opset=19,
    )
    spec = make_spec((0.0,) * 3, (255.0,) * 3, size=16)
    plan = plan_int8(model, "cpu", spec)
    assert plan.int8_nodes == ("conv1", "conv2")
    scales = ScaleTable("minmax", 1, {"b": TensorRange(0, 27, 0, 27, 0)})
    graph = quantize(model, scales, plan, spec)
    frame = np.full((16, 16), 255, np.uint8)
    frame[::3, ::2] = 250
    x = tensor_of(frame, spec)
    wanted = run_plainly(graph, x)
    for engine in ("onnxruntime", "openvino"):
        session = open_session(engine, graph.SerializeToString(), threads=1)
        np.testing.assert_allclose(session.run(x)[0], wanted, rtol=0.01)
        session.close()


def test_missing_range_is_refused(plain):
    plan = plan_int8(plain.model, "cpu", plain.spec)
    with pytest.raises(CalibrationError, match=r"no range for .*another graph"):
        quantize(plain.model, ScaleTable("minmax", 1, {}), plan, plain.spec)


def quantize_numpy(x, scale, zero, low, high):
    return np.clip(np.rint(x / scale) + zero, low, high)


@pytest.mark.parametrize("form", list(FORMS))
def test_one_convolution_against_numpy(form, make_small, monkeypatch):
    """The meaning of the graph, spelt out: fake-quantized image and weights, float32 sums."""
    take_one_channel_for_many(monkeypatch)
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 1, (2, 1, 3, 3)).astype(np.float32)
    weight[1] *= 10  # a scale for each channel
    bias = np.float32([0.25, -3])
    model = make_small(
        [node("Conv", ["image", "w", "b"], ["logits"], "conv", pads=[1] * 4)],
        {"w": weight, "b": bias},
        size_hw=(16, 16),
        out_channels=2,
        opset=19,
    )
    spec = make_spec(size=16)
    plan = plan_int8(model, form, spec)
    graph = quantize(model, ScaleTable("minmax", 0, {}), plan, spec)
    x = tensor_of(rng.integers(0, 256, (16, 16), dtype=np.uint8), spec)
    got = run_plainly(graph, x)[0]

    low, high = (-2.0, 4.375)  # (0 - 80) / 40 and (255 - 80) / 40
    if form == "cpu":
        scale, zero, lowest, highest = (high - low) / 255, 80, 0, 255
    else:
        scale, zero, lowest, highest = high / 127, 0, -127, 127
    image = (quantize_numpy(x[0, 0], scale, zero, lowest, highest) - zero) * scale
    padded = np.pad(image, 1)
    for channel in range(2):
        step = np.abs(weight[channel]).max() / (63 if form == "cpu" else 127)
        kernel = np.rint(weight[channel, 0] / step) * step
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        wanted = np.einsum("hwij,ij->hw", windows, kernel) + bias[channel]
        np.testing.assert_allclose(got[channel], wanted, rtol=1e-5, atol=1e-4)


def test_names_that_a_file_has_taken_already(make_small):
    """Foreign graphs may use the names that quantization would give."""
    weight = np.random.default_rng(0).normal(0, 1, (1, 1, 3, 3)).astype(np.float32)
    model = make_small(
        [
            node("Conv", ["image", "w"], ["image_int8"], "conv1", pads=[1] * 4),
            node("Conv", ["image_int8", "w"], ["image_dequantized"], "conv2", pads=[1] * 4),
            node("Mul", ["image_dequantized", "w_axis0_scale"], ["logits"], "mul"),
        ],
        {"w": weight, "w_axis0_scale": np.float32([2.0])},
        opset=19,
    )
    spec = make_spec(size=9)
    plan = plan_int8(model, "cpu", spec)
    scales = ScaleTable("minmax", 1, {"image_int8": TensorRange(-30, 30, -30, 30, 0)})
    graph = quantize(model, scales, plan, spec)
    onnx.checker.check_model(graph, full_check=True)
    image = np.random.default_rng(1).uniform(-2, 4, (1, 1, 9, 12)).astype(np.float32)
    wanted = run_graph(model, image)
    assert np.abs(run_plainly(graph, image) - wanted).max() < 0.05 * np.ptp(wanted)


def test_a_weight_shared_by_convolutions_is_stored_once(make_small):
    weight = np.random.default_rng(0).normal(0, 1, (1, 1, 3, 3)).astype(np.float32)
    model = make_small(
        [
            node("Conv", ["image", "w"], ["a"], "conv1", pads=[1] * 4),
            node("Conv", ["a", "w"], ["b"], "conv2", pads=[1] * 4),
            node("ConvTranspose", ["b", "w"], ["c"], "up", pads=[1] * 4),
            node("Conv", ["c", "w"], ["d"], "head1", pads=[1] * 4),
            node("Conv", ["d", "w"], ["logits"], "head2", pads=[1] * 4),
        ],
        {"w": weight},
        opset=19,
    )
    spec = make_spec(size=9)
    plan = plan_int8(model, "cpu", spec)
    ranges = {name: TensorRange(-9, 9, -9, 9, 0) for name in tensors_to_calibrate(model, plan)}
    graph = quantize(model, ScaleTable("minmax", 1, ranges), plan, spec)
    onnx.checker.check_model(graph, full_check=True)
    stored = [value for value in constants(graph).values() if value.dtype == np.int8]
    # By output channel of the convolutions, and of the transposed one.
    assert [value.shape for value in stored].count((1, 1, 3, 3)) == 2


@pytest.mark.parametrize(("form", "pairs"), [("nvidia", 3), ("cpu", 1)])
def test_max_pools_in_a_row_share_one_scale(form, pairs, make_small, monkeypatch):
    take_one_channel_for_many(monkeypatch)
    weight = np.ones((1, 1, 3, 3), np.float32)
    pool = {"kernel_shape": [3, 3], "pads": [1] * 4}
    model = make_small(
        [
            node("Relu", ["image"], ["a"], "relu"),
            node("MaxPool", ["a"], ["b"], "pool1", **pool),
            node("MaxPool", ["b"], ["c"], "pool2", **pool),
            node("Conv", ["c", "w"], ["logits"], "conv", pads=[1] * 4),
        ],
        {"w": weight},
        opset=19,
    )
    plan = plan_int8(model, form, make_spec(size=9))
    assert tensors_to_calibrate(model, plan) == ["a"]
    ranges = ScaleTable("minmax", 1, {"a": TensorRange(0, 5, 0, 5, 0)})
    graph = quantize(model, ranges, plan, make_spec(size=9))
    steps = [constants(graph)[item.input[1]] for item in of_type(graph, "QuantizeLinear")]
    assert len(steps) == pairs
    assert len(set(map(float, steps))) == 1
