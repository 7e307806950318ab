import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import remove_dead_code, split_conv_transpose

node = helper.make_node


def operators(model):
    return [item.op_type for item in model.graph.node]


def transposed(make_small, kernel, pads, stride, extra, channels, *, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    inputs, outputs = channels
    constants = {
        "weight": rng.normal(0, 1, (inputs, outputs, *kernel)).astype(np.float32),
        "bias": rng.normal(0, 1, outputs).astype(np.float32),
    }
    layer = node(
        "ConvTranspose",
        ["image", "weight", *(["bias"] if bias else [])],
        ["logits"],
        name="up",
        strides=[stride] * 2,
        pads=pads,
        output_padding=extra,
    )
    return make_small([layer], constants, channels=inputs, out_channels=outputs, size_hw=(5, 7))


@st.composite
def enlarging(draw):
    """Draw one axis: kernel, padding before, padding after, output padding, all for `stride`."""
    stride = draw(st.sampled_from([2, 3]))
    axes = []
    for _ in range(2):
        before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        extra = draw(st.integers(0, stride - 1))
        axes.append((stride + before + after - extra, before, after, extra))
    return stride, axes


@settings(max_examples=40, deadline=None)
@given(
    geometry=enlarging(),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equal_at_every_pixel(make_small, make_image, geometry, channels, bias, seed):
    stride, ((high, top, bottom, extra_y), (wide, left, right, extra_x)) = geometry
    model = transposed(
        make_small,
        (high, wide),
        [top, left, bottom, right],
        stride,
        [extra_y, extra_x],
        channels,
        bias=bias,
        seed=seed,
    )
    before = copy_of(model)
    split = split_conv_transpose(model)
    assert model == before
    assert operators(split) == ["Conv", "DepthToSpace"]
    image = make_image(channels[0], 5, 7)
    wanted = run_graph(model, image)
    assert wanted.shape[2:] == (5 * stride, 7 * stride)
    np.testing.assert_allclose(run_graph(split, image), wanted, rtol=0, atol=3e-5)


def test_kernel_of_the_networks_becomes_3x3(make_small):
    model = transposed(make_small, (4, 4), [1] * 4, 2, [0, 0], (2, 3))
    split = remove_dead_code(split_conv_transpose(model))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in split.graph.initializer}
    assert shapes == {"weight_phases": (12, 2, 3, 3), "bias_phases": (12,)}


@pytest.mark.parametrize(
    ("kernel", "pads", "stride"),
    [((3, 3), [1] * 4, 1), ((4, 4), [0] * 4, 2), ((3, 3), [1] * 4, 2), ((4, 3), [1] * 4, 2)],
)
def test_other_sizes_of_output_are_left(kernel, pads, stride, make_small):
    model = transposed(make_small, kernel, pads, stride, [0, 0], (1, 1))
    assert split_conv_transpose(model) == model


@pytest.mark.parametrize(
    "given_attributes",
    [{"group": 2}, {"dilations": [2, 2]}, {"output_shape": [10, 14]}, {"auto_pad": "SAME_UPPER"}],
)
def test_unusual_layers_are_left(given_attributes, make_small):
    weight = np.ones((2, 1, 4, 4), np.float32)
    layer = node("ConvTranspose", ["image", "weight"], ["a"], strides=[2, 2], **given_attributes)
    outputs = given_attributes.get("group", 1)
    nodes = [layer, node("Relu", ["a"], ["logits"])]
    model = make_small(nodes, {"weight": weight}, channels=2, out_channels=outputs)
    assert split_conv_transpose(model) == model


@pytest.mark.parametrize(("network", "count"), [("acm", 2), ("alcnet", 3)])
def test_networks(network, count, make_graph, make_image):
    graph = remove_dead_code(make_graph(network, "batch", 1))
    assert operators(graph).count("ConvTranspose") == count
    split = split_conv_transpose(graph)
    assert "ConvTranspose" not in operators(split)
    image = make_image(1, 32, 48)
    wanted = run_graph(graph, image)
    np.testing.assert_allclose(
        run_graph(split, image), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )
