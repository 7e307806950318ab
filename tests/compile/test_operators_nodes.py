"""Fused nodes of strange graphs: each is refused in one line that says what was wanted."""

import numpy as np
import onnx
import pytest
from onnx import helper

from irstd.compile.onnx_graph import checked, copy_of, known_shapes
from irstd.compile.operators.nodes import attach_bodies, fused_nodes
from irstd.errors import ExportError


def named(model, name):
    return next(node for node in model.graph.node if node.name == name)


def replace(model, name, **attributes):
    node = named(model, name)
    del node.attribute[:]
    for key, value in attributes.items():
        kind = None if value else onnx.AttributeProto.INTS
        node.attribute.append(helper.make_attribute(key, value, attr_type=kind))


def constant(model, name, array):
    tensor = next(item for item in model.graph.initializer if item.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), name))


def refused(model):
    with pytest.raises(ExportError) as error:
        checked(model, "test")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shapes_behind_fused_nodes_are_inferred(make_fused):
    model = checked(make_fused(), "test")
    shapes = known_shapes(model)
    assert (shapes["c"], shapes["f"], shapes["g"]) == (
        (1, 16, 32, 32),
        (1, 16, 16, 16),
        (1, 256, 16),
    )
    assert [body.name for body in model.functions] == ["HaarGate", "SpectralSplit", "MSDeformAttn"]
    assert named(model, "attention").overload == "16x16_at_16x16"


def test_a_pass_may_drop_the_bodies(make_fused):
    model = checked(make_fused(), "test")
    bare = copy_of(model)
    del bare.functions[:]
    assert checked(bare, "test") == model


def test_bodies_that_nothing_needs_any_more_go(make_fused):
    model = checked(make_fused(), "test")
    for node in fused_nodes(model):
        node.domain = "other"
    attach_bodies(model)
    assert not model.functions


def test_two_attentions_have_two_bodies(make_fused):
    model = make_fused()
    first = named(model, "attention")
    second = copy_of_node(first, "second")
    second.attribute[0].ints[:] = [8, 32]
    model.graph.node.insert(list(model.graph.node).index(first), second)
    overloads = {body.overload for body in checked(model, "test").functions}
    assert overloads == {"", "16x16_at_16x16", "8x32_at_16x16"}


def copy_of_node(node, name):
    fresh = onnx.NodeProto()
    fresh.CopyFrom(node)
    fresh.name, fresh.output[0] = name, name
    return fresh


@pytest.mark.parametrize("name", ["level_hw", "query_hw"])
def test_missing_attribute(name, make_fused):
    model = make_fused()
    kept = {"level_hw": [16, 16], "query_hw": [16, 16]}
    del kept[name]
    replace(model, "attention", **kept)
    assert refused(model).startswith(f"MSDeformAttn 'attention': no attribute {name}; wanted [H0")


@pytest.mark.parametrize(
    ("level_hw", "query_hw", "finding"),
    [
        ([16, 8], [16, 16], "value is (1, 256, 2, 8); wanted (N, S = 128, M, D)"),
        ([16, 16, 8, 8], [16, 16], "value is (1, 256, 2, 8); wanted (N, S = 320, M, D)"),
        ([16, 8, 16, 8], [16, 16], "offsets is (1, 256, 2, 1, 4, 2); wanted (N = 1, Lq = 256, "
                                   "M = 2, L = 2, P, 2)"),
        ([16, 16], [16, 15], "offsets is (1, 256, 2, 1, 4, 2); wanted (N = 1, Lq = 240, M = 2, "
                             "L = 1, P, 2)"),
        ([16], [16, 16], "level_hw is [16]; wanted [H0, W0, H1, W1, ...], px, all above 0"),
        ([16, -16], [16, 16], "level_hw is [16, -16]; wanted [H0"),
        ([16, 0], [16, 16], "level_hw is [16, 0]; wanted [H0"),
        ([16.0, 16.0], [16, 16], "level_hw is []; wanted [H0"),
        ([], [16, 16], "0 levels, 1 grids of queries and no reference_points; wanted"),
        ([16, 16], [], "1 levels, 0 grids of queries and no reference_points; wanted"),
        ([16, 16], [16, 16, 1, 1], "1 levels, 2 grids of queries and no reference_points; wanted"),
    ],
)  # fmt: skip
def test_attributes_that_do_not_fit(level_hw, query_hw, finding, make_fused):
    model = make_fused()
    replace(model, "attention", level_hw=level_hw, query_hw=query_hw)
    assert finding in refused(model)


def test_a_grid_of_queries_and_reference_points(make_fused):
    model = make_fused()
    named(model, "attention").input.append("cutoff")
    assert "1 grids of queries and reference_points; wanted" in refused(model)


@pytest.mark.parametrize(
    ("name", "array", "finding"),
    [
        ("gate", np.zeros((3, 2, 7, 7), np.float32),
         "HaarGate 'haar': weight is (3, 2, 7, 7); wanted (4, 2, 7, 7)"),
        ("gate", np.zeros((4, 2, 49), np.float32), "weight is (4, 2, 49); wanted (4, 2, 7, 7)"),
        ("gate_bias", np.zeros(5, np.float32), "HaarGate 'haar': bias is (5); wanted (4)"),
        ("cutoff", np.zeros(15, np.float32),
         "SpectralSplit 'split': cutoff is (15); wanted (C = 16)"),
        ("gamma", np.zeros((2, 1), np.float32),
         "SpectralSplit 'split': gamma is (2, 1); wanted (2, C = 16)"),
        ("tokens", np.int64([1, 2, 256, 8]),
         "MSDeformAttn 'attention': value is (1, 8, 2, 256); wanted (N, S = 256, M, D)"),
        ("tokens", np.int64([1, 4, 4, 256]),
         "offsets is (1, 256, 2, 1, 4, 2); wanted (N = 1, Lq = 256, M = 4, L = 1, P, 2)"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(name, array, finding, make_fused):
    model = make_fused()
    constant(model, name, array)
    assert finding in refused(model)


@pytest.mark.parametrize(
    ("inputs", "count"), [([], 0), (["b"], 1), (["b", "gate", ""], 2), (["b"] * 4, 4)]
)
def test_number_of_inputs(inputs, count, make_fused):
    model = make_fused()
    node = named(model, "haar")
    del node.input[:]
    node.input.extend(inputs)
    assert refused(model) == f"HaarGate 'haar': {count} inputs; wanted x, weight, bias"
