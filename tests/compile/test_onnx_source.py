"""Foreign ONNX files that are accepted, and what is found out about them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of, dimensions, opset_of
from irstd.compile.onnx_source import load_onnx_source
from irstd.compile.rewrites import rewrite

node = helper.make_node
WEIGHT = np.random.default_rng(0).normal(0, 1, (1, 3, 3, 3)).astype(np.float32)
CONV = node("Conv", ["image", "weight"], ["a"], pads=[1] * 4)
TWICE = np.float32([1, 1, 2, 2])
NET = [CONV, node("Relu", ["a"], ["logits"])]


@pytest.fixture
def load(tmp_path):
    def save_and_load(model, size_hw=None):
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        return load_onnx_source(path, size_hw)

    return save_and_load


@pytest.fixture
def make_net(make_small):
    def make(nodes=NET, **options):
        return make_small(nodes, {"weight": WEIGHT}, channels=3, **options)

    return make


def rename(model, image, mask):
    renamed = copy_of(model)
    for item in renamed.graph.node:
        item.input[:] = [image if name == "image" else name for name in item.input]
        item.output[:] = [mask if name == "logits" else name for name in item.output]
    renamed.graph.input[0].name, renamed.graph.output[0].name = image, mask
    return renamed


def test_own_export_is_a_source(load, make_graph, make_image):
    graph = make_graph("acm", "batch", 1)
    source = load(graph, (48, 32))
    assert source.size_hw == (48, 32)
    assert source.pools_globally
    image = make_image(1, 48, 32)
    np.testing.assert_array_equal(run_graph(source.model, image), run_graph(graph, image))
    plain, _ = rewrite(source.model, 48, 32)
    assert dimensions(plain.graph.output[0]) == (1, 1, 48, 32)


@pytest.mark.parametrize("given", [None, (9, 12)])
def test_static_size_needs_no_flag(given, load, make_net):
    source = load(make_net(), given)
    assert source.size_hw == (9, 12)
    assert dimensions(source.model.graph.input[0])[1] == 3
    assert not source.pools_globally


@pytest.mark.parametrize("size", [("H", "W"), (9, "W"), ("H", 12)])
def test_symbolic_sides_and_batch_take_the_given_size(size, load, make_net):
    model = make_net(size_hw=size)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    source = load(model, (9, 12))
    assert dimensions(source.model.graph.input[0]) == (1, 3, 9, 12)
    assert dimensions(source.model.graph.output[0]) == (1, 1, 9, 12)


@pytest.mark.parametrize(("image", "mask"), [("x", "y"), ("logits", "image"), ("image", "a.1")])
def test_any_names_become_ours(image, mask, load, make_net, make_image):
    model = rename(make_net(), image, mask)
    source = load(model)
    assert [value.name for value in source.model.graph.input] == ["image"]
    assert [value.name for value in source.model.graph.output] == ["logits"]
    frame = make_image(3, 9, 12)
    np.testing.assert_array_equal(run_graph(source.model, frame), run_graph(model, frame))


def test_inner_values_of_our_names_step_aside(load, make_net, make_image):
    nodes = [
        node("Conv", ["image", "weight"], ["image_inner"], pads=[1] * 4),
        node("Relu", ["image_inner"], ["logits"]),
        node("Neg", ["logits"], ["image_inner_1"]),
        node("Abs", ["image_inner_1"], ["last"]),
    ]
    model = make_net([*nodes[:2]])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "last"
    frame = make_image(3, 9, 12)
    np.testing.assert_array_equal(run_graph(load(model).model, frame), run_graph(model, frame))


def test_constants_listed_as_inputs_are_no_inputs(load, make_net):
    model = make_net()
    model.graph.input.append(helper.make_tensor_value_info("weight", 1, WEIGHT.shape))
    assert len(load(model).model.graph.input) == 1


@pytest.mark.parametrize("opset", [11, 13, 16, 17, 18, 19, 21])
def test_opsets(opset, load, make_net, make_image):
    model = make_net(
        [
            CONV,
            node(
                "Constant", [], ["scales"], value=numpy_helper.from_array(np.float32([1, 1, 2, 2]))
            ),
            node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
            node(
                "Resize",
                ["b", "", "scales"] if opset > 11 else ["b", "roi", "scales"],
                ["logits"],
                mode="linear",
                coordinate_transformation_mode="align_corners",
            ),
        ],
        opset=opset,
        size_hw=(8, 12),
        check=False,
    )
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), "roi"))
    source = load(model)
    assert opset_of(source.model) == max(17, opset)
    assert source.model.ir_version == {18: 8, 19: 9, 21: 10}.get(opset, 8)
    image = make_image(3, 8, 12)
    np.testing.assert_allclose(
        run_graph(source.model, image), run_graph(model, image), rtol=0, atol=1e-5
    )


def test_newest_ir_version_is_lowered_for_older_engines(load, make_net):
    model = make_net()
    model.ir_version = onnx.IR_VERSION
    assert load(model).model.ir_version == 8


def test_local_functions_are_inlined(load, make_net, make_image):
    double = helper.make_function(
        "mine",
        "Double",
        ["x"],
        ["y"],
        [node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    model = make_net()
    model.graph.node.append(node("Double", ["last"], ["logits"], domain="mine"))
    model.graph.node[1].output[0] = "last"
    model.functions.append(double)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    source = load(model)
    assert [item.op_type for item in source.model.graph.node] == ["Conv", "Relu", "Add"]
    image = make_image(3, 9, 12)
    np.testing.assert_array_equal(run_graph(source.model, image), 2 * run_graph(make_net(), image))


ADD = node("Add", ["a", "g"], ["logits"])


@pytest.mark.parametrize(
    ("nodes", "pools"),
    [
        ([node("GlobalAveragePool", ["a"], ["g"]), ADD], True),
        ([node("ReduceMean", ["a"], ["g"], axes=[2, 3]), ADD], True),
        ([node("ReduceMean", ["a"], ["g"], axes=[1]), ADD], False),
        ([node("ReduceMax", ["a"], ["g"], axes=[-1]), ADD], True),
        (
            [
                node("Transpose", ["a"], ["t"], perm=[0, 1, 3, 2]),
                node("MatMul", ["a", "t"], ["m"]),
                node("MatMul", ["m", "a"], ["logits"]),
            ],
            True,
        ),
        ([node("Softplus", ["a"], ["logits"])], False),
    ],
)
def test_global_pooling_is_seen(nodes, pools, load, make_net):
    assert load(make_net([CONV, *nodes])).pools_globally == pools


def test_double_constants_inside_are_fine(load, make_net, make_image):
    nodes = [
        CONV,
        node("Cast", ["a"], ["d"], to=TensorProto.DOUBLE),
        node("Cast", ["d"], ["logits"], to=TensorProto.FLOAT),
    ]
    image = make_image(3, 9, 12)
    model = make_net(nodes)
    np.testing.assert_array_equal(run_graph(load(model).model, image), run_graph(model, image))
