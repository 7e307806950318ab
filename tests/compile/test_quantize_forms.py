"""The two forms of INT8 graphs: one scale table; what each asks of residual sums and scales."""

import numpy as np
import pytest
from onnx import helper

from irstd.calibration.scales import ScaleTable, TensorRange
from irstd.compile.lower import calibrate_graph
from irstd.compile.onnx_graph import constants, producers
from irstd.compile.quantize import FORMS, plan_int8, quantize, tensors_to_calibrate
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


def of_type(model, *kinds):
    return [item for item in model.graph.node if item.op_type in kinds]


def residual_graph(make_small, tail):
    """A residual block: conv, and its input added to it; `tail` makes logits of the sum "s"."""
    weight = np.random.default_rng(0).normal(0, 0.3, (1, 1, 3, 3)).astype(np.float32)
    return make_small(
        [
            node("Conv", ["image", "w"], ["a"], "conv1", pads=[1] * 4),
            node("Conv", ["a", "w"], ["b"], "conv2", pads=[1] * 4),
            node("Add", ["b", "a"], ["s"], "add"),
            *tail,
        ],
        {"w": weight, "one": np.ones((1, 1, 1, 1), np.float32)},
        opset=19,
    )


@pytest.fixture
def one_channel_is_many(monkeypatch):
    take_one_channel_for_many(monkeypatch)


READ_BY_CONVOLUTION = [
    node("Relu", ["s"], ["t"], "relu"),
    node("Conv", ["t", "w"], ["u"], "conv3", pads=[1] * 4),
    node("Conv", ["u", "w"], ["logits"], "head", pads=[1] * 4),
]
READ_BY_GATE = [
    node("GlobalAveragePool", ["s"], ["g"], "pool"),
    node("Mul", ["s", "g"], ["t"], "gate"),
    node("Conv", ["t", "one"], ["logits"], "head"),
]


@pytest.mark.parametrize(
    ("form", "tail", "wanted"),
    [
        ("cpu", READ_BY_CONVOLUTION, ["Conv", "Conv"]),
        # The shortcut becomes codes; the convolution, which the sum is fused with, does not.
        ("nvidia", READ_BY_CONVOLUTION, ["Conv", "DequantizeLinear"]),
        # Nothing computes on the sum's codes: only what is quantized anyway is read so.
        ("nvidia", READ_BY_GATE, ["Conv", "DequantizeLinear"]),
    ],
)
@pytest.mark.usefixtures("one_channel_is_many")
def test_residual_addition(form, tail, wanted, make_small):
    model = residual_graph(make_small, tail)
    plan = plan_int8(model, form, make_spec(size=9))
    ranges = {name: TensorRange(-9, 9, -9, 9, 0) for name in tensors_to_calibrate(model, plan)}
    graph = quantize(model, ScaleTable("minmax", 1, ranges), plan, make_spec(size=9))
    made_by = producers(graph)
    assert [made_by[name].op_type for name in of_type(graph, "Add")[0].input] == wanted


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.usefixtures("one_channel_is_many")
def test_of_a_sum_of_two_convolutions_the_second_becomes_codes(swapped, make_small):
    """As in a block that changes the number of channels: its shortcut is a convolution, too."""
    weight = np.ones((1, 1, 3, 3), np.float32)
    model = make_small(
        [
            node("Conv", ["image", "w"], ["a"], "conv1", pads=[1] * 4),
            node("Conv", ["a", "w"], ["b"], "conv2", pads=[1] * 4),
            node("Conv", ["a", "w"], ["c"], "project", pads=[1] * 4),
            node("Add", ["c", "b"] if swapped else ["b", "c"], ["s"], "add"),
            *READ_BY_CONVOLUTION,
        ],
        {"w": weight},
        opset=19,
    )
    wanted = "b" if swapped else "c"
    plan = plan_int8(model, "nvidia", make_spec(size=9))
    assert tensors_to_calibrate(model, plan) == ["a", wanted, "t"]


@pytest.mark.usefixtures("one_channel_is_many")
def test_a_convolution_that_others_read_too_does_not_fuse(make_small):
    """Then nothing is gained, and only what is quantized anyway is read as codes."""
    weight = np.ones((1, 1, 3, 3), np.float32)
    model = make_small(
        [
            node("Relu", ["image"], ["a"], "relu1"),
            node("Conv", ["a", "w"], ["b"], "conv1", pads=[1] * 4),
            node("Sigmoid", ["b"], ["g"], "sigmoid"),
            node("Mul", ["a", "g"], ["c"], "gate"),
            node("Add", ["b", "c"], ["s"], "add"),
            *READ_BY_CONVOLUTION,
        ],
        {"w": weight},
        opset=19,
    )
    plan = plan_int8(model, "nvidia", make_spec(size=9))
    assert tensors_to_calibrate(model, plan) == ["a", "t"]


@pytest.mark.parametrize(("channels", "form", "is_int8"), [
    (16, "nvidia", False), (17, "nvidia", True), (16, "cpu", True),
])  # fmt: skip
def test_convolutions_that_read_few_channels_stay_float_for_nvidia(
    channels, form, is_int8, make_small
):
    shapes = ((channels, 1, 3, 3), (4, channels, 3, 3), (1, 4, 1, 1))
    model = make_small(
        [
            node("Conv", ["image", "w0"], ["a"], "first", pads=[1] * 4),
            node("Conv", ["a", "w1"], ["b"], "middle", pads=[1] * 4),
            node("Conv", ["b", "w2"], ["logits"], "head"),
        ],
        {f"w{index}": np.ones(shape, np.float32) for index, shape in enumerate(shapes)},
    )
    plan = plan_int8(model, form, make_spec(size=9))
    assert ("middle" in plan.int8_nodes) == is_int8
    assert ("first" in plan.int8_nodes) == (form == "cpu")
    if form == "nvidia":
        assert "reads 1 channel:" in plan.float_nodes["first"]
    if not is_int8:
        assert "reads 16 channels: INT8 pads to 32" in plan.float_nodes["middle"]


@pytest.mark.usefixtures("one_channel_is_many")
def test_a_sum_of_gated_maps_stays_float(make_small):
    """Nothing before it computes in INT8: Q and DQ there would be islands."""
    weight = np.ones((1, 1, 3, 3), np.float32)
    model = make_small(
        [
            node("Sigmoid", ["image"], ["g"], "sigmoid"),
            node("Mul", ["image", "g"], ["a"], "gate1"),
            node("Mul", ["g", "g"], ["b"], "gate2"),
            node("Add", ["a", "b"], ["s"], "add"),
            node("Conv", ["s", "w"], ["c"], "conv", pads=[1] * 4),
            node("Conv", ["c", "w"], ["logits"], "head", pads=[1] * 4),
        ],
        {"w": weight},
        opset=19,
    )
    plan = plan_int8(model, "nvidia", make_spec(size=9))
    assert plan.int8_nodes == ("conv",)
    assert tensors_to_calibrate(model, plan) == ["s"]


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
def test_scales_are_values_of_the_type_that_follows(scale_type, plain, frames):
    plan = plan_int8(plain.model, "nvidia", plain.spec)
    scales = calibrate_graph(plain, plan, frames, "minmax")
    model = quantize(plain.model, scales, plan, plain.spec, scale_type)
    values, original = constants(model), constants(plain.model)
    weights = {item.name: item.input[1] for item in of_type(plain.model, "Conv")}
    made_by = producers(model)
    for item in of_type(model, "QuantizeLinear", "DequantizeLinear"):
        scale = values[item.input[1]]
        assert scale.dtype == np.float32  # `to_float16` writes the type
        assert (scale.astype(scale_type) == scale).all()
        assert (scale > 0).all()
    for item in of_type(model, "Conv"):
        if item.name in plan.int8_nodes:
            levels, scale, _ = (values[name] for name in made_by[item.input[1]].input)
            step = scale.reshape(-1, 1, 1, 1)
            weight = original[weights[item.name]]
            assert np.abs(levels * step - weight).max() <= step.max() / 2 * 1.001


@pytest.mark.usefixtures("one_channel_is_many")
def test_a_channel_of_no_weight_has_a_scale_in_float16(make_small):
    """As in the shipped network: float16 would round its scale to 0, which TensorRT refuses."""
    weight = np.zeros((2, 1, 3, 3), np.float32)
    weight[0] = 1
    model = make_small(
        [
            node("Conv", ["image", "w"], ["a"], "conv", pads=[1] * 4),
            node("Conv", ["a", "v"], ["logits"], "head"),
        ],
        {"w": weight, "v": np.ones((1, 2, 1, 1), np.float32)},
        opset=19,
    )
    plan, spec = plan_int8(model, "nvidia", make_spec(size=9)), make_spec(size=9)
    graph = quantize(model, ScaleTable("minmax", 1, {}), plan, spec, np.float16)
    scale = constants(graph)[of_type(graph, "DequantizeLinear")[1].input[1]]
    assert scale.shape == (2,)
    assert (scale.astype(np.float16) > 0).all()


def test_both_forms_come_from_one_scale_table(plain, frames):
    tables = [
        calibrate_graph(plain, plan_int8(plain.model, form, plain.spec), frames, "minmax")
        for form in FORMS
    ]
    assert tables[0] == tables[1]
    for form, spec in FORMS.items():
        plan = plan_int8(plain.model, form, plain.spec)
        model = quantize(plain.model, tables[0], plan, plain.spec)
        values = constants(model)
        for item in of_type(model, "QuantizeLinear"):
            found = tables[0].ranges.get(item.input[0])
            if found is None:  # the image, and a pool's output: their ranges are known from others
                continue
            scale, zero = (values[name] for name in item.input[1:])
            ends = (np.float32([found.low, found.high]) / scale).round() + zero
            assert ends.min() >= spec.lowest - 1
            assert ends.max() <= spec.highest + 1
            assert max(abs(ends - zero)) >= 126  # the table's range fills the codes


def test_addition_of_a_constant_is_no_residual(make_small):
    weight = np.ones((1, 1, 3, 3), np.float32)
    model = make_small(
        [
            node("Conv", ["image", "w"], ["a"], "conv", pads=[1] * 4),
            node("Add", ["a", "shift"], ["b"], "shift"),
            node("Relu", ["b"], ["logits"], "last"),
        ],
        {"w": weight, "shift": np.float32([3.0])},
    )
    plan = plan_int8(model, "nvidia", make_spec(size=9))
    assert tensors_to_calibrate(model, plan) == []
