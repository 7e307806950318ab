"""The FP16 form: typed by its own Casts, close to FP32, with reasons for what stays FP32."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from irstd.compile.graph_facts import run_graph
from irstd.compile.half import to_float16
from irstd.compile.onnx_graph import dimensions
from irstd.compile.rewrites import rewrite
from irstd.errors import ExportError

node = helper.make_node
# Of the largest logit. Float16 rounds each of about 30 chained layers to 2**-11.
RELATIVE = 1e-2


def run_rounded(model, image):
    """Compute as a device does; ONNX Runtime's CPU kernels compute typed FP16 in float32."""
    with np.errstate(all="ignore"):  # float16 overflows inside its sigmoid, harmlessly
        return ReferenceEvaluator(model).run(None, {"image": image})[0]


def types(model):
    graph = model.graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def node_types(model):
    """Element types that each operator reads and makes."""
    known = types(model)
    return {
        item.name: {known[name] for name in (*item.input, *item.output) if name}
        for item in model.graph.node
        if item.op_type != "Cast"
    }


@pytest.fixture(scope="module")
def plain(make_graph):
    return lambda network, norm: rewrite(make_graph(network, norm, 1), 48, 64)[0]


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_half_is_close_to_single(network, norm, plain, make_image):
    model = plain(network, norm)
    half, kept = to_float16(model)
    image = make_image(1, 48, 64)
    wanted = run_graph(model, image)
    for got in (run_graph(half, image), run_rounded(half, image)):
        assert got.dtype == np.float32
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        assert 1e-6 < error < RELATIVE  # not zero: something is rounded
    assert len(kept) == (0 if norm == "batch" else 10)
    assert set(kept.values()) <= {"sums a whole map"}


def test_precision_is_in_the_graph(plain):
    half, kept = to_float16(plain("acm", "group"))
    assert (half.graph.input[0].name, half.graph.output[0].name) == ("image", "logits")
    known = types(half)
    assert known["image"] == known["logits"] == TensorProto.FLOAT
    for name, used in node_types(half).items():
        floats = used & {TensorProto.FLOAT, TensorProto.FLOAT16}
        wanted = TensorProto.FLOAT if name in kept else TensorProto.FLOAT16
        if "Resize" in name:
            floats.discard(TensorProto.FLOAT)  # its scales, by definition
        assert floats == {wanted}, name


def test_weights_take_half_the_space(plain):
    model = plain("acm", "batch")
    half, _ = to_float16(model)
    ratio = len(half.SerializeToString()) / len(model.SerializeToString())
    assert 0.5 < ratio < 0.55


def test_one_cast_serves_every_reader(make_small):
    nodes = [
        node("Relu", ["image"], ["a"], name="a"),
        node("Neg", ["image"], ["b"], name="b"),
        node("Add", ["a", "b"], ["logits"], name="sum"),
    ]
    half, _ = to_float16(make_small(nodes))
    assert [item.op_type for item in half.graph.node] == ["Cast", "Relu", "Neg", "Add", "Cast"]


def chain(make_small, weight):
    nodes = [
        node("Conv", ["image", "weight"], ["a"], name="first", pads=[1] * 4),
        node("Relu", ["a"], ["b"], name="second"),
        node("Mul", ["b", "small"], ["c"], name="third"),
        node("Neg", ["c"], ["logits"], name="fourth"),
    ]
    return make_small(nodes, {"weight": weight, "small": np.float32(1e-3)})


@pytest.mark.parametrize("size", [65504, 65536, np.inf])
def test_weight_beyond_the_range_stays_single(size, make_small):
    weight = np.zeros((1, 1, 3, 3), np.float32)
    weight[0, 0, 1, 1] = size
    half, kept = to_float16(chain(make_small, weight))
    assert set(kept) == (set() if size <= 65504 else {"first"})
    if kept:
        assert "'weight' reaches" in kept["first"]
        assert node_types(half)["first"] == {TensorProto.FLOAT}
    assert TensorProto.FLOAT16 in node_types(half)["fourth"]


def test_activation_near_the_range_stays_single(make_small):
    """Reached 81000 on calibration frames: its maker and its reader compute in float32."""
    weight = np.full((1, 1, 3, 3), 9000, np.float32)
    model = chain(make_small, weight)
    image = np.ones((1, 1, 9, 12), np.float32)
    overflown, _ = to_float16(model)
    assert np.isinf(run_rounded(overflown, image)).any()
    half, kept = to_float16(model, {"a": 81_000.0, "b": 81_000.0, "c": 81.0})
    assert set(kept) == {"first", "second", "third"}
    assert "'a' reaches 81000" in kept["first"]
    np.testing.assert_allclose(run_rounded(half, image), run_graph(model, image), rtol=1e-3)


def test_maxima_within_half_the_range_change_nothing(make_small):
    model = chain(make_small, np.ones((1, 1, 3, 3), np.float32))
    assert to_float16(model, {"a": 32_000.0, "b": 32_000.0})[1] == {}


def test_result_made_in_single_needs_no_cast(make_small):
    nodes = [
        node("Relu", ["image"], ["a"], name="a"),
        node("InstanceNormalization", ["a", "one", "zero"], ["logits"], name="norm"),
    ]
    half, kept = to_float16(make_small(nodes, {"one": np.float32([1]), "zero": np.float32([0])}))
    assert list(kept) == ["norm"]
    assert half.graph.node[-1].name == "norm"


def test_output_that_others_read_inside(make_small, make_image):
    nodes = [
        node("Relu", ["image"], ["a"], name="a"),
        node("ReduceSum", ["a"], ["b"], name="b", keepdims=1),
        node("Add", ["a", "b"], ["logits"], name="sum"),
    ]
    model = make_small(nodes)
    half, kept = to_float16(model)
    assert list(kept) == ["b"]
    image = make_image(1, 9, 12)
    np.testing.assert_allclose(run_graph(half, image), run_graph(model, image), rtol=2e-3)


def test_integers_are_left(make_small, make_image):
    nodes = [
        node("Shape", ["image"], ["shape"], name="shape"),
        node("Reshape", ["image", "flat"], ["a"], name="flatten"),
        node("Reshape", ["a", "shape"], ["b"], name="back"),
        node("Cast", ["b"], ["i"], name="round", to=TensorProto.INT32),
        node("Cast", ["i"], ["f"], name="float", to=TensorProto.FLOAT),
        node("Neg", ["f"], ["logits"], name="neg"),
    ]
    model = make_small(nodes, {"flat": np.int64([1, -1])})
    half, kept = to_float16(model)
    assert kept.pop("float") == "its type is set by an attribute"
    assert kept.keys() == {"flatten", "back", "round"}  # indices come from what these compute
    assert all("coordinates" in reason for reason in kept.values())
    image = make_image(1, 9, 12)
    np.testing.assert_array_equal(run_graph(half, image), run_graph(model, image))


def test_resize_with_sizes(make_small, make_image):
    nodes = [
        node("MaxPool", ["image"], ["a"], kernel_shape=[3, 3], strides=[3, 3]),
        node("Resize", ["a", "", "", "sizes"], ["logits"], name="up", mode="linear"),
    ]
    model = make_small(nodes, {"sizes": np.int64([1, 1, 9, 12])})
    half, _ = to_float16(model)
    image = make_image(1, 9, 12)
    np.testing.assert_allclose(run_graph(half, image), run_graph(model, image), atol=1e-2)


def sampling_graph(make_small):
    """A map sampled at places that a convolution shifts."""
    return make_small(
        [
            node("Conv", ["image", "shift"], ["a"], "offsets", pads=[1] * 4),
            node("Transpose", ["a"], ["b"], "last", perm=[0, 2, 3, 1]),
            node("Tanh", ["b"], ["c"], "limit"),
            node("Add", ["c", "grid"], ["d"], "places"),
            node("Relu", ["image"], ["e"], "features"),
            node("GridSample", ["e", "d"], ["f"], "sample", mode="bilinear"),
            node("Neg", ["f"], ["logits"], "neg"),
        ],
        {
            "shift": np.random.default_rng(0).normal(0, 0.1, (2, 1, 3, 3)).astype(np.float32),
            "grid": np.random.default_rng(1).uniform(-1, 1, (1, 9, 12, 2)).astype(np.float32),
        },
    )


def test_coordinates_stay_in_float32(make_small, make_image):
    """Back to the layer that makes them, and what samples: TensorRT wants both in one type."""
    model = sampling_graph(make_small)
    half, kept = to_float16(model)
    assert kept.keys() == {"last", "limit", "places", "sample"}
    assert set(kept.values()) == {"coordinates: on 12 px a step of float16 is up to 0.0029 px"}
    known = types(half)
    sample = next(item for item in half.graph.node if item.op_type == "GridSample")
    assert {known[name] for name in (*sample.input, *sample.output)} == {TensorProto.FLOAT}
    assert node_types(half)["features"] == {TensorProto.FLOAT16}
    image = make_image(1, 9, 12)
    assert np.abs(run_graph(half, image) - run_graph(model, image)).max() < 0.02


def quantized_pair(scale):
    """Q and DQ of the image, a convolution with a quantized weight, and one that reads floats."""
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"], "quantize"),
        node("DequantizeLinear", ["q", "s", "z"], ["a"], "dequantize"),
        node("DequantizeLinear", ["codes", "ws", "wz"], ["w"], "weight", axis=0),
        node("Conv", ["a", "w"], ["b"], "conv", pads=[1] * 4),
        node("Neg", ["b"], ["logits"], "neg"),
    ]
    constants = {
        "s": np.float32(scale), "z": np.int8(0), "codes": np.ones((1, 1, 3, 3), np.int8),
        "ws": np.float32([0.25]), "wz": np.int8([0]),
    }  # fmt: skip
    return nodes, constants


def test_quantized_values_are_dequantized_to_half(make_small, make_image):
    model = make_small(*quantized_pair(0.0625), opset=19)
    half, kept = to_float16(model)
    assert kept == {}
    found = node_types(half)
    # The image is quantized as it is: a Cast before it would round twice.
    assert found["quantize"] == {TensorProto.FLOAT, TensorProto.INT8}
    for name in ("dequantize", "weight"):
        assert found[name] == {TensorProto.FLOAT16, TensorProto.INT8}
    assert found["conv"] == {TensorProto.FLOAT16}
    image = make_image(1, 9, 12)
    np.testing.assert_allclose(run_graph(half, image), run_graph(model, image), rtol=2e-3)


@pytest.mark.parametrize("scale", [0.1, 1e-9, 1e6])
def test_scales_that_float16_lacks_stay_float32(scale, make_small, make_image):
    model = make_small(*quantized_pair(scale), opset=19)
    half, kept = to_float16(model)
    assert kept == dict.fromkeys(("quantize", "dequantize"), "scale 's' is no value of float16")
    image = make_image(1, 9, 12)
    wanted = run_graph(model, image)
    np.testing.assert_allclose(run_graph(half, image), wanted, rtol=2e-3)


def test_what_only_float32_reads_is_dequantized_to_it(make_small):
    nodes, constants = quantized_pair(0.0625)
    half, _ = to_float16(make_small(nodes, constants, opset=19), {}, ["conv"])
    found = node_types(half)
    assert found["conv"] == {TensorProto.FLOAT}
    assert found["dequantize"] == found["weight"] == {TensorProto.FLOAT, TensorProto.INT8}
    assert [item.op_type for item in half.graph.node].count("Cast") == 2  # before and after neg


def test_loops_and_branches_are_refused(make_small):
    body = helper.make_graph(
        [node("Neg", ["image"], ["y"])],
        "body",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    nodes = [node("If", ["flag"], ["logits"], then_branch=body, else_branch=body)]
    with pytest.raises(ExportError, match="without loops and branches"):
        to_float16(make_small(nodes, {"flag": np.bool_(True)}))


def test_shape_must_be_fixed(make_graph):
    with pytest.raises(ExportError, match="needs a fixed shape"):
        to_float16(make_graph("acm", "batch", 1))


def test_input_and_output_keep_their_shape(plain):
    half, _ = to_float16(plain("alcnet", "batch"))
    assert dimensions(half.graph.input[0]) == dimensions(half.graph.output[0]) == (1, 1, 48, 64)
