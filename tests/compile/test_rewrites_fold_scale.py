import numpy as np
import pytest
from onnx import helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import fold_scale, remove_dead_code

node = helper.make_node
CONV = {"pads": [1] * 4}


def constants(**scalars):
    rng = np.random.default_rng(0)
    return {
        "weight": rng.normal(0, 1, (1, 1, 3, 3)).astype(np.float32),
        "bias": np.float32([0.7]),
        **{name: np.float32(value) for name, value in scalars.items()},
    }


def muls(model):
    return sum(item.op_type == "Mul" for item in model.graph.node)


def assert_identical(model, folded, image):
    np.testing.assert_array_equal(run_graph(folded, image), run_graph(model, image))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_fusion_blocks_lose_their_factors(network, norm, make_graph, make_image):
    graph = remove_dead_code(make_graph(network, norm, 1))
    before = copy_of(graph)
    folded = fold_scale(graph)
    assert graph == before
    assert muls(graph) - muls(folded) == 4  # two fusions of two products
    assert_identical(graph, folded, make_image(1, 32, 48))


def test_factor_goes_through_what_keeps_it(make_small, make_image):
    model = make_small(
        [
            node("Mul", ["half", "image"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
            node("Sigmoid", ["image"], ["gate"]),
            node("Mul", ["c", "gate"], ["d"]),
            node("Conv", ["d", "weight", "bias"], ["logits"], **CONV),
        ],
        constants(half=0.5),
    )
    folded = fold_scale(model)
    assert muls(folded) == 1
    assert_identical(model, folded, make_image(1, 9, 12))


def test_shared_weight_is_scaled_for_one_reader(make_small, make_image):
    model = make_small(
        [
            node("Mul", ["image", "two"], ["a"]),
            node("Conv", ["a", "weight"], ["b"], **CONV),
            node("Conv", ["image", "weight"], ["c"], **CONV),
            node("Add", ["b", "c"], ["logits"]),
        ],
        constants(two=2),
    )
    folded = fold_scale(model)
    assert muls(folded) == 0
    assert_identical(model, folded, make_image(1, 9, 12))


def test_two_factors_fold_where_only_one_can(make_small, make_image):
    model = make_small(
        [
            node("Mul", ["image", "two"], ["a"]),
            node("Conv", ["a", "weight"], ["b"], **CONV),
            node("Mul", ["b", "two"], ["c"]),
            node("Sigmoid", ["c"], ["logits"]),
        ],
        constants(two=2),
    )
    folded = fold_scale(model)
    assert muls(folded) == 1
    assert_identical(model, folded, make_image(1, 9, 12))


def test_factor_of_a_factor_folds_both_or_neither(make_small, make_image):
    model = make_small(
        [
            node("Mul", ["image", "two"], ["a"]),
            node("Mul", ["a", "two"], ["b"]),
            node("Conv", ["b", "weight"], ["logits"], **CONV),
        ],
        constants(two=2),
    )
    folded = fold_scale(model)
    assert muls(folded) < 2
    assert_identical(model, folded, make_image(1, 9, 12))


TO_CONV = node("Conv", ["b", "weight", "bias"], ["logits"], **CONV)


@pytest.mark.parametrize(
    ("nodes", "scalars"),
    [
        ([node("Mul", ["image", "c"], ["b"]), TO_CONV], {"c": 3}),  # would round otherwise
        ([node("Mul", ["image", "c"], ["b"]), TO_CONV], {"c": -2}),
        ([node("Mul", ["image", "c"], ["b"]), TO_CONV], {"c": 0}),
        ([node("Mul", ["image", "c"], ["b"]), TO_CONV], {"c": np.inf}),
        ([node("Mul", ["image", "c"], ["b"]), TO_CONV], {"c": np.ones((1, 1, 1, 12)) * 2}),
        (
            [node("Mul", ["image", "c"], ["a"]), node("Sigmoid", ["a"], ["b"]), TO_CONV],
            {"c": 2},
        ),
        (
            [node("Mul", ["image", "c"], ["a"]), node("Add", ["a", "image"], ["b"]), TO_CONV],
            {"c": 2},
        ),
        (
            [node("Mul", ["image", "c"], ["a"]), node("Mul", ["a", "a"], ["b"]), TO_CONV],
            {"c": 2},
        ),
        ([node("Mul", ["image", "c"], ["logits"])], {"c": 2}),
        (
            [
                node("Mul", ["image", "c"], ["a"]),
                node("Add", ["a", "bias"], ["b"]),
                TO_CONV,
            ],
            {"c": 2},
        ),
        (
            [
                node("Mul", ["image", "c"], ["a"]),
                node("Conv", ["a", "weight"], ["b"], **CONV),
                node("Add", ["a", "b"], ["logits"]),
            ],
            {"c": 2},
        ),
    ],
)
def test_factor_that_cannot_move_exactly_stays(nodes, scalars, make_small):
    model = make_small(nodes, constants(**scalars))
    assert fold_scale(model) == model
