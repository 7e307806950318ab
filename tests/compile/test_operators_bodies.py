"""What fused operators mean in standard ones, against their definitions, in ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from irstd.compile.onnx_graph import checked
from irstd.compile.operators.nodes import attach_bodies, fused_nodes
from irstd.compile.operators.single import fused_graph, plain_graph
from irstd.runtime.kernels.haar_gate.reference import haar_gate
from irstd.runtime.kernels.ms_deform_attn.reference import ms_deform_attn
from irstd.runtime.kernels.spectral_split.reference import spectral_split
from tests.operator_inputs import assert_close, attention_inputs, haar_inputs, split_inputs

MAPS = [(1, 4, 12, 10), (2, 4, 12, 10), (1, 1, 12, 10), (1, 4, 1, 1), (1, 4, 1, 9), (1, 3, 7, 13)]
# levels, queries (None: reference points), images, heads, d_head, points
ATTENTION = {
    "default": ((8, 8, 4, 4), (8, 8), 1, 2, 8, 4),
    "two images": ((8, 8, 4, 4), (8, 8), 2, 2, 8, 4),
    "one level": ((8, 6), (8, 6), 1, 2, 8, 4),
    "four odd levels": ((9, 7, 5, 3, 2, 1, 1, 1), (5, 7), 1, 2, 8, 4),
    "reference points": ((8, 8, 4, 4), None, 2, 2, 8, 4),
    "one head of one": ((8, 8, 4, 4), (8, 8), 1, 1, 1, 4),
    "no kernel for 12": ((8, 8, 4, 4), (8, 8), 1, 3, 12, 4),
    "one point": ((8, 8, 4, 4), (8, 8), 1, 2, 8, 1),
    "one pixel": ((1, 1), (1, 1), 1, 2, 8, 4),
}


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = {item.name for item in session.get_inputs()}
    return session.run(None, {k: v for k, v in inputs.items() if k in names})[0]


def assert_same(operator, inputs, wanted, **attributes):
    """The body as a local function, and written out, with weights given and with weights fixed."""
    fused = fused_graph(operator, inputs, wanted.shape, **attributes)
    assert [node.op_type for node in fused_nodes(fused)] == [operator]
    weights = {"HaarGate": {"weight", "bias"}, "MSDeformAttn": set()}.get(operator, {"cutoff"})
    plain = plain_graph(operator, inputs, wanted.shape, constants=weights, **attributes)
    assert not plain.functions
    assert {node.domain for node in plain.graph.node} == {""}
    for model in (fused, plain):
        assert_close(run(model, inputs), wanted)


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_haar_gate(shape, rng):
    inputs = haar_inputs(rng, shape)
    assert_same("HaarGate", inputs, haar_gate(*inputs.values()))


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_spectral_split(shape, rng):
    inputs = split_inputs(rng, shape)
    assert_same("SpectralSplit", inputs, spectral_split(*inputs.values()))


def test_spectral_split_of_a_wide_map(rng):
    """The phases k n / S are exact where k n no longer fits float32.

    Written out it is the same body with its matrices folded, of 0.1 GB here: the small maps show
    that folding is right.
    """
    inputs = split_inputs(rng, (1, 1, 2, 6000))
    wanted = spectral_split(*inputs.values())
    assert_close(run(fused_graph("SpectralSplit", inputs, wanted.shape), inputs), wanted)


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case, rng):
    level_hw, query_hw, *_ = ATTENTION[case]
    attributes = {"level_hw": level_hw, "query_hw": query_hw or ()}
    inputs = attention_inputs(rng, *ATTENTION[case])
    wanted = ms_deform_attn(*inputs.values(), **attributes)
    assert_same("MSDeformAttn", inputs, wanted, **attributes)


@pytest.mark.parametrize("spread_px", [0, 0.5, 8, 1e4])
def test_attention_far_outside_and_on_pixel_centres(spread_px, rng):
    inputs = attention_inputs(rng, *ATTENTION["default"], spread_px=spread_px)
    if spread_px == 8:
        inputs["offsets"] = np.round(inputs["offsets"])
    attributes = {"level_hw": (8, 8, 4, 4), "query_hw": (8, 8)}
    wanted = ms_deform_attn(*inputs.values(), **attributes)
    assert_same("MSDeformAttn", inputs, wanted, **attributes)


@pytest.mark.parametrize("opset", [17, 18, 19, 20, 21])
def test_bodies_are_sound_in_every_opset(opset, rng):
    """Axes became inputs in 18, GridSample's mode another name in 20."""
    value = helper.make_tensor_value_info
    attributes = {"level_hw": (8, 8, 4, 4), "query_hw": (8, 8)}
    for operator, inputs, reference, given in (
        ("HaarGate", haar_inputs(rng, MAPS[0]), haar_gate, {}),
        ("SpectralSplit", split_inputs(rng, MAPS[0]), spectral_split, {}),
        ("MSDeformAttn", attention_inputs(rng, *ATTENTION["default"]), ms_deform_attn, attributes),
    ):
        wanted = reference(*inputs.values(), **given)
        node = helper.make_node(operator, list(inputs), ["y"], "op", domain="irstd", **given)
        shaped = [value(k, TensorProto.FLOAT, v.shape) for k, v in inputs.items()]
        graph = helper.make_graph([node], "g", shaped, [value("y", TensorProto.FLOAT, None)])
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        attach_bodies(model)
        del model.graph.output[0].type.tensor_type.shape.dim[:]
        model.graph.output[0].CopyFrom(value("y", TensorProto.FLOAT, wanted.shape))
        assert_close(run(checked(model, "test"), inputs), wanted)
