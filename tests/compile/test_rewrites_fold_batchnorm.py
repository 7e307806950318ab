import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import fold_batchnorm

node = helper.make_node
BN = ("gamma", "beta", "mean", "variance")


def statistics(channels, rng):
    return {
        "gamma": rng.normal(0, 1, channels).astype(np.float32),  # negative ones occur
        "beta": rng.normal(0, 1, channels).astype(np.float32),
        "mean": rng.normal(0, 1, channels).astype(np.float32),
        "variance": rng.uniform(0.01, 4, channels).astype(np.float32),
    }


def operators(model):
    return [item.op_type for item in model.graph.node]


def assert_close(before, after, image):
    wanted, got = run_graph(before, image), run_graph(after, image)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))


@settings(max_examples=25, deadline=None)
@given(
    transposed=st.booleans(),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    stride=st.sampled_from([1, 2]),
    epsilon=st.sampled_from([None, 1e-5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_folded_equals_unfolded(
    make_small, make_image, transposed, groups, bias, stride, epsilon, seed
):
    rng = np.random.default_rng(seed)
    inputs, outputs = 4, 6
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    constants = statistics(outputs, rng) | {
        "weight": rng.normal(0, 1, (*shape, 3, 3)).astype(np.float32),
        "bias": rng.normal(0, 1, outputs).astype(np.float32),
    }
    layer = "ConvTranspose" if transposed else "Conv"
    given_bias = ["bias"] if bias else []
    given_epsilon = {} if epsilon is None else {"epsilon": epsilon}
    model = make_small(
        [
            node(
                layer,
                ["image", "weight", *given_bias],
                ["a"],
                group=groups,
                strides=[stride] * 2,
                pads=[1] * 4,
            ),
            node("BatchNormalization", ["a", *BN], ["b"], **given_epsilon),
            node("Relu", ["b"], ["logits"]),
        ],
        constants,
        channels=inputs,
        out_channels=outputs,
    )
    before = copy_of(model)
    folded = fold_batchnorm(model)
    assert model == before
    assert operators(folded) == [layer, "Relu"]
    assert_close(model, folded, make_image(inputs, 9, 12))


def test_shared_weights_fold_separately(make_small, make_image):
    """onnxsim lets equal constants share one tensor; folding must not change the other reader."""
    rng = np.random.default_rng(0)
    constants = statistics(1, rng) | {"weight": rng.normal(0, 1, (1, 1, 3, 3)).astype(np.float32)}
    model = make_small(
        [
            node("Conv", ["image", "weight"], ["a"], pads=[1] * 4),
            node("BatchNormalization", ["a", *BN], ["b"]),
            node("Conv", ["b", "weight"], ["logits"], pads=[1] * 4),
        ],
        constants,
    )
    folded = fold_batchnorm(model)
    assert operators(folded) == ["Conv", "Conv"]
    assert_close(model, folded, make_image(1, 9, 12))


@pytest.mark.parametrize("reader", ["Relu", "output"])
def test_value_that_others_read_is_left(reader, make_small, make_image):
    rng = np.random.default_rng(1)
    constants = statistics(1, rng) | {"weight": rng.normal(0, 1, (1, 1, 3, 3)).astype(np.float32)}
    other = [node("Relu", ["a"], ["c"])] if reader == "Relu" else []
    names = ("c", "b") if reader == "Relu" else ("a", "b")
    model = make_small(
        [
            node("Conv", ["image", "weight"], ["a"], pads=[1] * 4),
            node("BatchNormalization", ["a", *BN], ["b"]),
            *other,
            node("Add", names, ["logits"]),
        ],
        constants,
    )
    folded = fold_batchnorm(model)
    assert "BatchNormalization" in operators(folded)
    assert_close(model, folded, make_image(1, 9, 12))


def test_norm_before_a_padded_convolution_is_left(make_small):
    """Folding it forward would be wrong in the outermost pixels: padding comes after it."""
    rng = np.random.default_rng(2)
    constants = statistics(1, rng) | {"weight": rng.normal(0, 1, (1, 1, 3, 3)).astype(np.float32)}
    model = make_small(
        [
            node("BatchNormalization", ["image", *BN], ["a"]),
            node("Conv", ["a", "weight"], ["logits"], pads=[1] * 4),
        ],
        constants,
    )
    assert fold_batchnorm(model) == model
