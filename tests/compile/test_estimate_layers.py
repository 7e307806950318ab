import numpy as np
import onnx
import pytest
from onnx import helper

from irstd.compile.estimate_layers import graph_cost, is_known
from irstd.compile.graph_facts import count_macs
from irstd.errors import ExportError

node = helper.make_node


def weight(*shape):
    return np.ones(shape, np.float32)


def layers(model):
    return [("+".join(layer.operators)) for layer in graph_cost(model).layers]


@pytest.fixture
def conv():
    return node("Conv", ["image", "w", "b"], ["a"], "conv", pads=[1] * 4)


CONSTANTS = {"w": weight(8, 4, 3, 3), "b": weight(8), "v": weight(8, 8, 3, 3)}


def small(make_small, nodes, out_channels=8, **constants):
    return make_small(nodes, {**CONSTANTS, **constants}, channels=4, out_channels=out_channels)


def test_a_convolution_counts_what_it_multiplies_and_moves(make_small, conv):
    model = small(make_small, [conv, node("Relu", ["a"], ["logits"], "relu")])
    cost = graph_cost(model)
    (layer,) = cost.layers
    assert (layer.name, layer.kind, layer.nodes) == ("conv", "Conv", ("conv", "relu"))
    assert layer.macs == cost.macs == count_macs(model) == 9 * 12 * 8 * 4 * 9
    assert layer.operations == 9 * 12 * 8  # the ReLU
    assert layer.read_bytes == 4 * 4 * 9 * 12
    assert layer.weight_bytes == 4 * (8 * 4 * 9 + 8)
    assert layer.write_bytes == 4 * 8 * 9 * 12
    assert layer.moved_bytes == layer.read_bytes + layer.weight_bytes + layer.write_bytes
    assert (layer.reduction, layer.in_channels, layer.out_channels) == (36, 4, 8)
    assert layer.pixels == 9 * 12
    assert cost.compulsory_bytes == layer.moved_bytes  # one layer: nothing lies between
    assert cost.unknown == {}


def test_geometry_of_the_other_products(make_small):
    grouped = node("Conv", ["image", "g"], ["a"], "c", pads=[1] * 4, group=4)
    up = node("ConvTranspose", ["a", "u"], ["logits"], "t", strides=[2, 2], pads=[1] * 4)
    first, second = graph_cost(
        small(make_small, [grouped, up], g=weight(8, 1, 3, 3), u=weight(8, 8, 4, 4))
    ).layers
    assert (first.reduction, first.in_channels, first.out_channels) == (9, 1, 2)
    assert first.pixels == 9 * 12 * 4
    assert (second.reduction, second.pixels) == (8 * 4, 18 * 24)  # every other tap of 4 x 4
    assert second.macs == 18 * 24 * 8 * second.reduction
    (product,) = graph_cost(
        small(make_small, [node("MatMul", ["image", "m"], ["logits"], "m")], 4, m=weight(12, 5))
    ).layers
    assert (product.reduction, product.out_channels, product.pixels) == (12, 5, 4 * 9)


def test_a_product_with_a_vector(make_small):
    nodes = [
        node("MatMul", ["image", "m"], ["a"], "m"),
        node("Unsqueeze", ["a", "axis"], ["logits"], "u"),
    ]
    constants = {"m": weight(12), "axis": np.array([3], np.int64)}
    (layer,) = graph_cost(make_small(nodes, constants, channels=4, out_channels=4)).layers
    assert (layer.reduction, layer.out_channels, layer.pixels) == (12, 1, 4 * 9)
    assert layer.macs == 4 * 9 * 12


def test_a_residual_addition_goes_into_the_longer_convolution(make_small, conv):
    nodes = [
        conv,
        node("Relu", ["a"], ["r"], "relu"),
        node("Conv", ["r", "v"], ["c"], "second", pads=[1] * 4),
        node("Conv", ["image", "d"], ["e"], "shortcut"),
        node("Add", ["c", "e"], ["f"], "add"),
        node("Relu", ["f"], ["logits"], "last"),
    ]
    model = small(make_small, nodes, d=weight(8, 4, 1, 1))
    assert layers(model) == ["Conv+Relu", "Conv+Add+Relu", "Conv"]
    second = graph_cost(model).layers[1]
    assert second.name == "second"
    assert second.read_bytes == 2 * 4 * 8 * 9 * 12  # both operands


def test_what_two_read_is_stored(make_small, conv):
    nodes = [
        conv,
        node("Relu", ["a"], ["r"], "relu"),
        node("Sigmoid", ["a"], ["s"], "sigmoid"),
        node("Mul", ["r", "s"], ["logits"], "mul"),
    ]
    assert layers(small(make_small, nodes)) == ["Conv", "Relu+Sigmoid+Mul"]
    first, second = graph_cost(small(make_small, nodes)).layers
    assert first.write_bytes == second.read_bytes == 4 * 8 * 9 * 12


def test_a_product_with_another_map_is_no_part_of_a_convolution(make_small, conv):
    other = node("Conv", ["image", "w"], ["o"], "other", pads=[1] * 4)
    mul = node("Mul", ["a", "o"], ["logits"], "mul")
    assert layers(small(make_small, [conv, other, mul])) == ["Conv", "Conv", "Mul"]


def test_only_one_residual_goes_into_a_convolution(make_small):
    nodes = [
        node("Conv", ["image", "w"], ["a"], "conv", pads=[1] * 4),
        node("MaxPool", ["image"], ["p"], "pool", kernel_shape=[1, 1]),
        node("Conv", ["p", "w"], ["q"], "side", pads=[1] * 4),
        node("Softmax", ["q"], ["s"], "softmax"),
        node("Softmax", ["q"], ["t"], "softmax2", axis=1),
        node("Add", ["a", "s"], ["c"], "add"),
        node("Add", ["c", "t"], ["logits"], "add2"),
    ]
    found = layers(small(make_small, nodes))
    assert "Conv+Add" in found
    assert found.count("Add") == 1


def test_views_and_constants_are_free(make_small, conv):
    nodes = [
        node("Identity", ["w"], ["w2"], "copy"),
        node("Conv", ["image", "w2", "b"], ["a"], "conv", pads=[1] * 4),
        node("Identity", ["a"], ["i"], "view"),
        node("Relu", ["i"], ["j"], "relu"),
        node("Identity", ["j"], ["logits"], "end"),
    ]
    cost = graph_cost(small(make_small, nodes))
    assert [layer.operators for layer in cost.layers] == [("Conv", "Relu")]
    assert cost.layers[0].weight_bytes == 4 * (8 * 4 * 9 + 8)
    assert cost.layers[0].write_bytes == 4 * 8 * 9 * 12


def test_quantized_values_are_one_byte_and_quantizing_is_free(make_small):
    scale, zero = np.float32(0.1), np.int8(0)
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        node("DequantizeLinear", ["w8", "s", "z"], ["dw"], "dw"),
        node("Conv", ["d", "dw"], ["a"], "first", pads=[1] * 4),
        node("Relu", ["a"], ["r"], "relu"),
        node("QuantizeLinear", ["r", "s", "z"], ["q2"], "q2"),
        node("DequantizeLinear", ["q2", "s", "z"], ["d2"], "d2"),
        node("Conv", ["d2", "v"], ["logits"], "second", pads=[1] * 4),
    ]
    model = small(make_small, nodes, s=scale, z=zero, w8=np.ones((8, 4, 3, 3), np.int8))
    first, second = graph_cost(model).layers
    assert first.operators == ("Conv", "Relu", "QuantizeLinear")
    assert first.precision == "int8"
    assert first.read_bytes == 4 * 4 * 9 * 12  # the image itself is float32
    assert first.write_bytes == second.read_bytes == 8 * 9 * 12
    assert second.precision == "fp32"  # its weights are


def test_casts_belong_to_the_layer_before(make_small):
    half = onnx.TensorProto.FLOAT16
    nodes = [
        node("Cast", ["image"], ["h"], "in", to=half),
        node("Conv", ["h", "wh"], ["a"], "conv", pads=[1] * 4),
        node("Cast", ["a"], ["logits"], "out", to=onnx.TensorProto.FLOAT),
    ]
    model = small(make_small, nodes, wh=np.ones((8, 4, 3, 3), np.float16))
    (layer,) = graph_cost(model).layers
    assert layer.operators == ("Conv", "Cast")
    assert layer.write_bytes == 4 * 8 * 9 * 12
    assert layer.weight_bytes == 2 * 8 * 4 * 9


def test_operators_whose_arithmetic_is_not_known_are_counted_and_listed(make_small, conv):
    nodes = [conv, node("Mish", ["a"], ["m"], "mish"), node("Mish", ["m"], ["logits"], "mish2")]
    cost = graph_cost(make_small(nodes, CONSTANTS, channels=4, out_channels=8, opset=18))
    assert cost.unknown == {"Mish": 2}
    assert [layer.kind for layer in cost.layers] == ["Conv", "Mish", "Mish"]
    assert all(layer.moved_bytes == 2 * 4 * 8 * 9 * 12 for layer in cost.layers[1:])
    assert not is_known("Mish")
    assert is_known("Conv")


def test_moving_a_part_reads_that_part(make_small):
    ints = {"begin": [0], "end": [2], "axis": [1]}
    nodes = [node("Slice", ["image", "begin", "end", "axis"], ["logits"], "cut")]
    constants = {name: np.array(value, np.int64) for name, value in ints.items()}
    (layer,) = graph_cost(make_small(nodes, constants, channels=4, out_channels=2)).layers
    assert layer.read_bytes == layer.write_bytes == 4 * 2 * 9 * 12
    assert layer.operations == 0


def test_a_symbolic_size_is_an_error_that_says_so(make_small):
    convolution = node("Conv", ["image", "w"], ["logits"], "conv", pads=[1] * 4)
    model = make_small(
        [convolution], CONSTANTS, channels=4, out_channels=8, size_hw=("H", "W"), check=False
    )
    with pytest.raises(ExportError, match="is not fixed"):
        graph_cost(model)


def test_branches_are_refused(make_small):
    body = helper.make_graph(
        [node("Identity", ["image"], ["y"])],
        "body",
        [],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 1, 9, 12))],
    )
    chosen = node("If", ["flag"], ["logits"], "if", then_branch=body, else_branch=body)
    model = make_small([chosen], {"flag": np.array(True)})
    with pytest.raises(ExportError, match="loops or branches"):
        graph_cost(model)


@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_of_a_network_every_operator_is_known_and_every_product_counted(make_graph, network):
    from irstd.compile.rewrites import rewrite

    plain, _ = rewrite(make_graph(network, "batch", 1), 64, 64)
    cost = graph_cost(plain)
    assert cost.unknown == {}
    assert cost.macs == count_macs(plain)
    counted = [name for layer in cost.layers for name in layer.nodes]
    assert len(counted) == len(set(counted))
    assert len(cost.layers) < len(plain.graph.node) / 2
