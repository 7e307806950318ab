"""Graphs move to another opset only with the same result."""

import numpy as np
import pytest
from onnx import helper, version_converter

from irstd.compile.graph_facts import run_graph, value_shapes
from irstd.compile.onnx_graph import copy_of, opset_of
from irstd.compile.opset import convert_opset, to_opset19
from irstd.compile.rewrites import fix_shape
from irstd.errors import ExportError

node = helper.make_node


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_opset_19_is_the_same_graph(network, norm, make_graph, make_image):
    model = fix_shape(make_graph(network, norm, 1), 48, 64)
    before = copy_of(model)
    newer = to_opset19(model)
    assert model == before
    assert opset_of(newer) == 19
    assert newer.ir_version == 9
    assert value_shapes(newer) == value_shapes(model)  # names too: calibration goes by them
    image = make_image(1, 48, 64)
    np.testing.assert_array_equal(run_graph(newer, image), run_graph(model, image))


def test_newer_opset_stays(make_small):
    model = make_small([node("Gelu", ["image"], ["logits"])], opset=20)
    assert opset_of(to_opset19(model)) == 20


@pytest.fixture
def net(make_small):
    return make_small([node("Relu", ["image"], ["a"]), node("Neg", ["a"], ["logits"])])


def test_same_opset_is_a_copy(net):
    copy = convert_opset(net, 17)
    assert copy == net
    assert copy is not net


def test_wrong_conversion_is_caught(net, monkeypatch):
    """Converters have had bugs; a changed result is refused, not shipped."""
    convert = version_converter.convert_version

    def wrong(model, version):
        converted = convert(model, version)
        converted.graph.node[1].op_type = "Abs"
        return converted

    monkeypatch.setattr(version_converter, "convert_version", wrong)
    with pytest.raises(ExportError, match="changes what the graph computes; export the network"):
        convert_opset(net, 19)


def test_impossible_conversion_says_what_to_do(net, monkeypatch):
    def fail(*_):
        raise RuntimeError("no adapter\nfor Neg")

    monkeypatch.setattr(version_converter, "convert_version", fail)
    with pytest.raises(ExportError, match=r"\(no adapter for Neg\); export .* opset_version=19$"):
        convert_opset(net, 19)


def test_shape_must_be_fixed(make_graph):
    with pytest.raises(ExportError, match="needs a fixed shape"):
        convert_opset(make_graph("acm", "batch", 1), 19)
