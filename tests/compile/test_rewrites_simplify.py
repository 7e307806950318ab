import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import copy_of, opset_of
from irstd.compile.rewrites import fix_shape, simplify
from irstd.errors import ExportError, MissingDependency

node = helper.make_node


def operators(model):
    return {item.op_type for item in model.graph.node}


@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_same_result_from_a_plainer_graph(network, make_graph, make_image):
    fixed = fix_shape(make_graph(network, "group", 1), 48, 32)
    before = copy_of(fixed)
    simple = simplify(fixed)
    assert fixed == before
    assert operators(simple).isdisjoint({"Shape", "Gather", "Identity"})
    assert opset_of(simple) == 17
    image = make_image(1, 48, 32)
    wanted = run_graph(fixed, image)
    assert np.abs(run_graph(simple, image) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_same_graph_gives_the_same_bytes(make_graph):
    fixed = fix_shape(make_graph("acm", "batch", 1), 32, 32)
    first, second = (simplify(fixed).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def branch(name, sign):
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([node(sign, ["image"], [name])], name, [], [value])


def test_a_branch_on_the_image_is_refused(make_small):
    model = make_small(
        [
            node("ReduceMax", ["image"], ["peak"], keepdims=0),
            node("Greater", ["peak", "zero"], ["bright"]),
            node(
                "If",
                ["bright"],
                ["logits"],
                name="choose",
                then_branch=branch("yes", "Relu"),
                else_branch=branch("no", "Neg"),
            ),
        ],
        {"zero": np.float32(0)},
    )
    with pytest.raises(ExportError, match=r"If 'choose' depends on the image; wanted"):
        simplify(model)


def test_failure_of_onnxsim_is_one_line(monkeypatch, make_small):
    import onnxsim

    def fail(_):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    with pytest.raises(ExportError, match=r"onnxsim cannot simplify the graph \(first second\)"):
        simplify(make_small([node("Relu", ["image"], ["logits"])]))


def test_missing_onnxsim_names_the_extra(monkeypatch, make_small):
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(MissingDependency, match=r"irstd-sdk\[compile\]"):
        simplify(make_small([node("Relu", ["image"], ["logits"])]))
