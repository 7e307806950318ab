import numpy as np
import pytest
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import append_logit, strip_sigmoid

node = helper.make_node
SCALE = {"three": np.float32(3)}


def test_final_sigmoid_goes_and_the_name_stays(make_small, make_image):
    model = make_small(
        [node("Mul", ["image", "three"], ["a"]), node("Sigmoid", ["a"], ["logits"])], SCALE
    )
    before = copy_of(model)
    stripped, had_one = strip_sigmoid(model)
    assert model == before
    assert had_one
    assert [item.op_type for item in stripped.graph.node] == ["Mul"]
    image = make_image(1, 9, 12)
    logits = run_graph(stripped, image)
    np.testing.assert_array_equal(logits, 3 * image)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), run_graph(model, image), atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", ["image", "three"], ["logits"])],
        [node("Sigmoid", ["image"], ["a"]), node("Mul", ["a", "three"], ["logits"])],
        [node("Sigmoid", ["image"], ["logits"])],  # a network that is only this has no logits
    ],
)
def test_graph_without_a_final_sigmoid_is_left(nodes, make_small):
    model = make_small(nodes, SCALE)
    assert strip_sigmoid(model) == (model, False)


def test_logits_of_other_probabilities(make_small):
    """append_logit undoes a sigmoid that is not the last operator."""
    model = make_small(
        [
            node("Sigmoid", ["image"], ["a"]),
            node("Clip", ["a", "", "most"], ["logits"]),
        ],
        {"most": np.float32(1)},
    )
    image = np.linspace(-9, 9, 9 * 12, dtype=np.float32).reshape(1, 1, 9, 12)
    logits = run_graph(append_logit(model), image)
    np.testing.assert_allclose(logits, image, atol=2e-3)  # float32 near 1 has steps of 6e-8


def test_certainty_stays_finite(make_small):
    model = make_small(
        [node("Clip", ["image", "zero", "one"], ["logits"])],
        {"zero": np.float32(0), "one": np.float32(1)},
    )
    image = np.repeat(np.float32([0, 0.5, 1]), 36).reshape(1, 1, 9, 12)
    logits = np.unique(run_graph(append_logit(model), image))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits, [-15.94, 0, 15.94], atol=0.01)
