import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import ChannelAffine, take_input_affine

node = helper.make_node
CONV = node("Conv", ["normal", "weight"], ["logits"], pads=[1] * 4)


def weight(channels, seed=0):
    rng = np.random.default_rng(seed)
    return {"weight": rng.normal(0, 1, (1, channels, 3, 3)).astype(np.float32)}


def apply(affine, image):
    scale, offset = (np.array(part).reshape(-1, 1, 1) for part in (affine.scale, affine.offset))
    return (image * scale + offset).astype(np.float32)


def assert_same(model, rest, affine, image):
    wanted, got = run_graph(model, image), run_graph(rest, apply(affine, image))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))


STEP = st.tuples(
    st.sampled_from(["Mul", "Add", "Sub", "Div", "Sub_from", "Mul_by", "BatchNormalization"]),
    st.sampled_from([(), (1,), ("C", 1, 1), (1, "C", 1, 1), (1, 1, 1, 1)]),
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, max_size=4), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_any_chain_of_constants_moves_out(make_small, make_image, steps, channels, seed):
    rng = np.random.default_rng(seed)
    constants, nodes, value = weight(channels), [], "image"
    for index, (kind, shape) in enumerate(steps):
        operator, result, name = kind.split("_")[0], f"v{index}", f"c{index}"
        sides = [channels if side == "C" else side for side in shape]
        constants[name] = rng.uniform(0.5, 2, sides).astype(np.float32)
        inputs = [name, value] if "_" in kind else [value, name]
        if operator == "BatchNormalization":
            inputs = [value, *(f"{name}_{part}" for part in range(4))]
            for part in inputs[1:]:
                constants[part] = rng.uniform(0.5, 2, channels).astype(np.float32)
        nodes.append(node(operator, inputs, [result]))
        value = result
    conv = node("Conv", [value, "weight"], ["logits"], pads=[1] * 4)
    model = make_small([*nodes, conv], constants, channels=channels)
    before = copy_of(model)
    rest, affine = take_input_affine(model)
    assert model == before
    assert [item.op_type for item in rest.graph.node] == ["Conv"]
    assert_same(model, rest, affine, make_image(channels, 9, 12))


def test_border_is_right_because_nothing_is_folded(make_small):
    """With offset 5 and zero padding, a corner sees 4 pixels of 5, not 9."""
    model = make_small(
        [node("Add", ["image", "five"], ["normal"]), CONV],
        {"five": np.float32(5), "weight": np.ones((1, 1, 3, 3), np.float32)},
    )
    rest, affine = take_input_affine(model)
    result = run_graph(rest, apply(affine, np.zeros((1, 1, 9, 12), np.float32)))
    assert affine == ChannelAffine((1.0,), (5.0,))
    assert result[0, 0, 0, 0] == 20
    assert result[0, 0, 0, 5] == 30
    assert result[0, 0, 4, 5] == 45


@pytest.mark.parametrize(("network", "channels"), [("acm", 1), ("alcnet", 3)])
def test_norm_on_the_raw_input_of_a_network(network, channels, make_graph, make_module, make_image):
    from irstd.compile.rewrites import remove_dead_code

    graph = remove_dead_code(make_graph(network, "batch", channels))
    rest, affine = take_input_affine(graph)
    norm = make_module(network, "batch", channels).stem[0]
    assert norm.eps == 0.9  # the trap of models.md 1.1; the wrong eps is off by a third here
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    np.testing.assert_allclose(affine.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(
        affine.offset, norm.bias.detach().numpy() - norm.running_mean.numpy() * scale, rtol=1e-5
    )
    assert "BatchNormalization" not in {item.op_type for item in rest.graph.node}
    assert_same(graph, rest, affine, make_image(channels, 32, 48))


def left_alone(model):
    rest, affine = take_input_affine(model)
    return rest == model and affine == ChannelAffine.identity(len(affine.scale))


def test_second_reader_of_the_image_keeps_it(make_small):
    nodes = [
        node("Mul", ["image", "two"], ["normal"]),
        node("Conv", ["normal", "weight"], ["a"], pads=[1] * 4),
        node("Add", ["a", "image"], ["logits"]),
    ]
    assert left_alone(make_small(nodes, weight(1) | {"two": np.float32(2)}))


@pytest.mark.parametrize(
    ("operator", "inputs", "constant", "channels"),
    [
        ("Div", ["c", "image"], np.float32(2), 1),  # not affine
        ("Div", ["image", "c"], np.zeros((1, 1, 1), np.float32), 1),
        ("Add", ["image", "c"], np.ones((9, 12), np.float32), 1),  # another for each pixel
        ("Add", ["image", "c"], np.ones(12, np.float32), 1),
        ("Mul", ["image", "c"], np.ones((3, 1, 1), np.float32), 1),  # makes 3 channels of 1
        ("Mul", ["image", "image"], np.float32(2), 1),
        ("Pow", ["image", "c"], np.float32(2), 1),
    ],
)
def test_what_is_no_affine_of_a_channel_stays(operator, inputs, constant, channels, make_small):
    made = 3 if constant.shape == (3, 1, 1) else channels
    nodes = [node(operator, inputs, ["normal"]), CONV]
    assert left_alone(make_small(nodes, weight(made) | {"c": constant}, channels=channels))


def test_graph_that_is_only_an_affine_stays(make_small):
    nodes = [node("Mul", ["image", "two"], ["logits"])]
    assert left_alone(make_small(nodes, {"two": np.float32(2)}))


def test_affines_compose_in_order():
    normalise, norm = ChannelAffine((0.5,), (-2.0,)), ChannelAffine((3.0,), (1.0,))
    assert normalise.then(norm) == ChannelAffine((1.5,), (-5.0,))
    assert norm.then(normalise) == ChannelAffine((1.5,), (-1.5,))
