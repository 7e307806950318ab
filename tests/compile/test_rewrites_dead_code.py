import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of
from irstd.compile.rewrites import remove_dead_code

node = helper.make_node


def operators(model):
    return [item.op_type for item in model.graph.node]


def assert_same(before, after, image):
    np.testing.assert_array_equal(run_graph(before, image), run_graph(after, image))


def test_everything_useless_goes_at_once(make_small, make_image):
    two = numpy_helper.from_array(np.float32(2))
    model = make_small(
        [
            node("Constant", [], ["two"], value=two),
            node("Identity", ["two"], ["factor"]),
            node("Dropout", ["image"], ["kept", "mask"]),
            node("Mul", ["kept", "factor"], ["double"]),
            node("Neg", ["double"], ["unread"]),
            node("Abs", ["unread"], ["unread_too"]),
            node("Identity", ["double"], ["once"]),
            node("Identity", ["once"], ["logits"]),
        ],
        {"unused": np.float32([1, 2, 3])},
    )
    before = copy_of(model)
    lean = remove_dead_code(model)
    assert model == before
    assert operators(lean) == ["Mul"]
    assert [tensor.name for tensor in lean.graph.initializer] == ["two"]
    assert [value.name for value in lean.graph.output] == ["logits"]
    assert_same(model, lean, make_image(1, 9, 12))
    assert remove_dead_code(lean) == lean


def test_copied_value_that_others_read_takes_the_output_name(make_small, make_image):
    model = make_small(
        [
            node("Relu", ["image"], ["a"]),
            node("Identity", ["a"], ["b"]),
            node("Add", ["a", "b"], ["c"]),
            node("Identity", ["c"], ["logits"]),
        ]
    )
    lean = remove_dead_code(model)
    assert operators(lean) == ["Relu", "Add"]
    assert_same(model, lean, make_image(1, 9, 12))


def test_image_straight_to_the_output_keeps_its_copy(make_small, make_image):
    model = make_small([node("Identity", ["image"], ["logits"])])
    lean = remove_dead_code(model)
    assert operators(lean) == ["Identity"]
    assert_same(model, lean, make_image(1, 9, 12))


@pytest.mark.parametrize(("training", "left"), [(False, ["Relu"]), (True, ["Dropout", "Relu"])])
def test_dropout_goes_unless_it_trains(training, left, make_small):
    model = make_small(
        [node("Dropout", ["image", "", "mode"], ["a"]), node("Relu", ["a"], ["logits"])],
        {"mode": np.bool_(training)},
    )
    assert operators(remove_dead_code(model)) == left


def test_constants_are_no_inputs(make_small, make_image):
    model = make_small([node("Add", ["image", "one"], ["logits"])], {"one": np.float32([1])})
    listed = copy_of(model)
    listed.graph.input.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, [1]))
    lean = remove_dead_code(listed)
    assert [value.name for value in lean.graph.input] == ["image"]
    assert_same(model, lean, make_image(1, 9, 12))


def test_network_stays_bit_for_bit(make_graph, make_image):
    graph = make_graph("acm", "group", 3)
    lean = remove_dead_code(graph)
    assert set(operators(lean)).isdisjoint({"Constant", "Identity", "Dropout"})
    assert_same(graph, lean, make_image(3, 32, 48))
