"""Costs and results read off small graphs, against counts by hand."""

import sys

import numpy as np
import pytest
from onnx import helper

from irstd.compile.graph_facts import count_macs, run_graph, value_shapes
from irstd.errors import ExportError, MissingDependency

node = helper.make_node


def weight(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "macs"),
    [
        ("Conv", (2, 4, 3, 3), {"pads": [1] * 4}, 2 * 9 * 12 * 4 * 9),
        ("Conv", (2, 4, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}, 2 * 5 * 6 * 4 * 9),
        ("Conv", (4, 1, 3, 3), {"pads": [1] * 4, "group": 4}, 4 * 9 * 12 * 9),
        ("Conv", (2, 4, 3, 3), {"pads": [2] * 4, "dilations": [2, 2]}, 2 * 9 * 12 * 4 * 9),
        ("ConvTranspose", (4, 2, 4, 4), {"pads": [1] * 4, "strides": [2, 2]}, 4 * 9 * 12 * 2 * 16),
        ("ConvTranspose", (4, 1, 2, 2), {"strides": [2, 2], "group": 2}, 4 * 9 * 12 * 4),
        ("MatMul", (12, 5), {}, 4 * 9 * 5 * 12),
    ],
)
def test_macs_by_hand(operator, shape, attributes, macs, make_small):
    groups = attributes.get("group", 1)
    outputs = {"Conv": shape[0], "ConvTranspose": shape[1] * groups, "MatMul": 4}[operator]
    layer = node(operator, ["image", "weight"], ["a"], **attributes)
    model = make_small(
        [layer, node("Relu", ["a"], ["logits"])],
        {"weight": weight(*shape)},
        channels=4,
        out_channels=outputs,
    )
    assert count_macs(model) == macs


@pytest.mark.parametrize("transposed", [0, 1])
def test_macs_of_gemm(transposed, make_small):
    shape = (12, 9) if transposed else (9, 12)
    model = make_small(
        [
            node("Reshape", ["image", "flat"], ["a"]),
            node("Gemm", ["a", "weight"], ["b"], transA=transposed),
            node("Reshape", ["b", "back"], ["logits"]),
        ],
        {
            "flat": np.int64(shape),
            "back": np.int64([1, 1, 9, 5]),
            "weight": weight(12, 5),
        },
    )
    assert count_macs(model) == 9 * 12 * 5


def test_macs_need_a_fixed_shape(make_graph):
    with pytest.raises(ExportError, match="is not fixed; apply fix_shape first"):
        count_macs(make_graph("acm", "batch", 1))


def test_shapes_of_everything(make_small):
    pool = node("MaxPool", ["image"], ["a"], kernel_shape=[2, 2], strides=[2, 2])
    conv = node("Conv", ["a", "weight"], ["logits"])
    model = make_small([pool, conv], {"weight": weight(1, 1, 1, 1)}, size_hw=("H", 12))
    assert value_shapes(model) == {
        "image": (1, 1, None, 12),
        "a": (1, 1, None, 6),
        "weight": (1, 1, 1, 1),
        "logits": (1, 1, None, 6),
    }


def test_image_that_does_not_fit_is_one_line(make_small):
    model = make_small([node("Relu", ["image"], ["logits"])])
    with pytest.raises(ExportError, match="ONNX Runtime cannot run the graph") as caught:
        run_graph(model, np.zeros((1, 3, 9, 12), np.float32))
    assert "\n" not in str(caught.value)


def test_missing_onnxruntime_names_the_extra(monkeypatch, make_small):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"irstd-sdk\[compile\]"):
        run_graph(make_small([node("Relu", ["image"], ["logits"])]), np.zeros((1, 1, 9, 12)))
