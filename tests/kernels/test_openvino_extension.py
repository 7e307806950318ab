"""The fused operators inside OpenVINO: against their definitions, and what they refuse."""

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import helper

from irstd.compile.onnx_graph import checked
from irstd.compile.operators.single import fused_graph, plain_graph
from irstd.errors import BuildError, MissingDependency
from irstd.runtime.kernels import openvino_extension
from irstd.runtime.kernels.haar_gate.reference import haar_gate
from irstd.runtime.kernels.ms_deform_attn.reference import ms_deform_attn
from irstd.runtime.kernels.openvino_extension import (
    KernelFaults,
    build_openvino_extension,
    has_fused_nodes,
)
from irstd.runtime.kernels.spectral_split.reference import spectral_split
from irstd.runtime.sessions import open_session
from irstd.runtime.sessions.openvino_session import add_kernels, openvino_core
from tests.operator_inputs import assert_close, attention_inputs, haar_inputs, split_inputs

MAPS = [(1, 8, 24, 20), (2, 8, 24, 20), (1, 3, 24, 20), (1, 8, 1, 1), (1, 8, 2, 33), (1, 5, 17, 9)]
# levels, queries (None: reference points), images, heads, d_head, points
ATTENTION = {
    "default": ((12, 10, 6, 5), (12, 10), 1, 2, 8, 4),
    "two images": ((12, 10, 6, 5), (12, 10), 2, 2, 8, 4),
    "d_head 1": ((12, 10, 6, 5), (12, 10), 1, 8, 1, 4),
    "d_head 16": ((12, 10, 6, 5), (12, 10), 1, 2, 16, 4),
    "d_head 32": ((12, 10, 6, 5), (12, 10), 1, 2, 32, 4),
    "four odd levels": ((9, 7, 5, 3, 2, 1, 1, 1), (5, 7), 1, 2, 8, 4),
    "one level, one point": ((9, 7), (5, 7), 1, 2, 8, 1),
    "reference points": ((12, 10, 6, 5), None, 2, 2, 8, 4),
    "one pixel": ((1, 1), (1, 1), 1, 2, 8, 4),
}


@pytest.fixture(scope="module")
def core():
    add_kernels(build_openvino_extension())
    return openvino_core()


def run(core, model, inputs, threads=1):
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    return compiled(list(inputs.values()))[0]


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_haar_gate(shape, core, rng):
    inputs = haar_inputs(rng, shape)
    assert_close(run(core, fused_graph("HaarGate", inputs, shape), inputs),
                 haar_gate(*inputs.values()))  # fmt: skip


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_spectral_split(shape, core, rng):
    inputs = split_inputs(rng, shape)
    assert_close(run(core, fused_graph("SpectralSplit", inputs, shape), inputs),
                 spectral_split(*inputs.values()))  # fmt: skip


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case, core, rng):
    level_hw, query_hw, *_ = ATTENTION[case]
    attributes = {"level_hw": level_hw, "query_hw": query_hw or ()}
    inputs = attention_inputs(rng, *ATTENTION[case])
    wanted = ms_deform_attn(*inputs.values(), **attributes)
    model = fused_graph("MSDeformAttn", inputs, wanted.shape, **attributes)
    assert_close(run(core, model, inputs), wanted)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_work(threads, core, rng):
    for operator, inputs in (
        ("HaarGate", haar_inputs(rng, MAPS[0])),
        ("SpectralSplit", split_inputs(rng, MAPS[0])),
    ):
        model = fused_graph(operator, inputs, MAPS[0])
        np.testing.assert_array_equal(
            run(core, model, inputs, threads), run(core, model, inputs, 1)
        )


def test_requests_of_one_model_run_at_the_same_time(core, rng):
    """Operators keep nothing between calls: requests share them."""
    inputs = [split_inputs(rng, MAPS[0]) for _ in range(4)]
    model = fused_graph("SpectralSplit", inputs[0], MAPS[0])
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"NUM_STREAMS": 2}
    )
    requests = [compiled.create_infer_request() for _ in inputs]
    for request, given in zip(requests, inputs, strict=True):
        request.start_async(list(given.values()))
    for request, given in zip(requests, inputs, strict=True):
        request.wait()
        assert_close(request.get_output_tensor().data, spectral_split(*given.values()))


def said(error):
    line = openvino_extension.said_by_kernel(error)
    assert line is not None, str(error)
    return line


def make_case(operator, rng):
    if operator == "HaarGate":
        inputs = haar_inputs(rng, MAPS[0])
        return inputs, fused_graph(operator, inputs, MAPS[0])
    if operator == "SpectralSplit":
        inputs = split_inputs(rng, MAPS[0])
        return inputs, fused_graph(operator, inputs, MAPS[0])
    inputs = attention_inputs(rng, *ATTENTION["default"])
    sides = {"level_hw": (12, 10, 6, 5), "query_hw": (12, 10)}
    return inputs, fused_graph(operator, inputs, (1, 120, 16), **sides)


def compile_watched(core, model, threads):
    graph = core.read_model(model.SerializeToString())
    faults = KernelFaults(build_openvino_extension())
    faults.watch(graph)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    return core.compile_model(graph, "CPU", settings), faults


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("operator", "name"),
    [("HaarGate", "x"), ("HaarGate", "weight"), ("SpectralSplit", "x"),
     ("SpectralSplit", "gate_weight"), ("MSDeformAttn", "logits"), ("MSDeformAttn", "offsets"),
     ("MSDeformAttn", "value")],
)  # fmt: skip
def test_what_is_not_finite_is_told_and_nothing_breaks(operator, name, value, threads, core, rng):
    """Told beside the result: OpenVINO loses exceptions of kernels, and crashes after them."""
    inputs, model = make_case(operator, rng)
    compiled, faults = compile_watched(core, model, threads)
    other, none = compile_watched(core, model, threads)
    good = compiled(list(inputs.values()))[0].copy()
    assert faults.take() is None
    bad = {key: array.copy() for key, array in inputs.items()}
    bad[name].reshape(-1)[17] = value
    for _ in range(2):
        compiled(list(bad.values()))
        other(list(inputs.values()))
        assert none.take() is None
        assert faults.take() == (
            f"irstd.{operator}: an input holds NaN or infinity; wanted finite numbers, node y"
        )
        assert faults.take() is None
    np.testing.assert_array_equal(compiled(list(inputs.values()))[0], good)
    assert faults.take() is None


def bare(operator, inputs, **attributes):
    """A graph without bodies, which nothing has checked yet."""
    value = helper.make_tensor_value_info
    given = {key: values for key, values in attributes.items() if values is not None}
    node = helper.make_node(operator, list(inputs), ["y"], operator, domain="irstd", **given)
    shaped = [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph([node], "g", shaped, [value("y", onnx.TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("irstd", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


QUERIES = {"offsets": (1, 64, 2, 1, 4, 2), "logits": (1, 64, 2, 1, 4)}


@pytest.mark.parametrize(
    ("model", "finding"),
    [
        (bare("HaarGate", {"x": (1, 8, 9), "w": (4, 2, 7, 7), "b": (4,)}),
         "irstd.HaarGate: input 0 is [1,8,9]; wanted [?,?,?,?]"),
        (bare("HaarGate", {"x": (1, 8, 9, 9), "w": (4, 2, 5, 5), "b": (4,)}),
         "irstd.HaarGate: input 1 is [4,2,5,5]; wanted [4,2,7,7]"),
        (bare("HaarGate", {"x": (1, 8, 9, 9), "w": (4, 2, 7, 7)}),
         "irstd.HaarGate: 2 inputs; wanted 3"),
        (bare("SpectralSplit", {"x": (1, 8, 9, 9), "c": (7,), "w": (2, 2, 7, 7), "b": (2,),
                                "g": (2, 8)}),
         "irstd.SpectralSplit: input 1 is [7]; wanted [8]"),
        (bare("MSDeformAttn", {"value": (1, 64, 2, 8), **QUERIES}, level_hw=[8, 7],
              query_hw=[8, 8]),
         "irstd.MSDeformAttn: input 0 is [1,64,2,8]; wanted [1,56,2,8]"),
        (bare("MSDeformAttn", {"value": (1, 64, 2, 8), **QUERIES}, level_hw=[-8, -8],
              query_hw=[8, 8]),
         "irstd.MSDeformAttn: level_hw and query_hw must be 1 to 16384 px"),
        (bare("MSDeformAttn", {"value": (1, 64, 2, 8), **QUERIES}, level_hw=[8, 8, 8],
              query_hw=[8, 8]),
         "irstd.MSDeformAttn: level_hw has 3 numbers; wanted H and W of 1 to 4 levels"),
        (bare("MSDeformAttn", {"value": (1, 64, 2, 8), **QUERIES}, level_hw=[8, 8],
              query_hw=[8, 7]),
         "irstd.MSDeformAttn: input 1 is [1,64,2,1,4,2]; wanted [1,56,2,1,4,2]"),
        (bare("MSDeformAttn", {"value": (1, 64, 2, 12), **QUERIES}, level_hw=[8, 8],
              query_hw=[8, 8]),
         "irstd.MSDeformAttn: d_head 12; wanted 1, 8, 16 or 32"),
        (bare("MSDeformAttn", {"value": (1, 16777216, 2, 8), **QUERIES}, level_hw=[4096, 4096],
              query_hw=[8, 8]),
         "irstd.MSDeformAttn: a level is 4096 x 4096 px; wanted at most 16777216 px"),
        (bare("HaarGate", {"x": (1, 8, 9, 0), "w": (4, 2, 7, 7), "b": (4,)}),
         "irstd.HaarGate: input 0 is [1,8,9,0]; wanted [?,?,?,?]"),
        (bare("HaarGate", {"x": (1, 1, 16384, 8193), "w": (4, 2, 7, 7), "b": (4,)}),
         "irstd.HaarGate: input 0 is [1,1,16384,8193]; wanted at most 134217728 px in a map"),
        (bare("MSDeformAttn", {"value": (1, 64, 2), **QUERIES}, level_hw=[8, 8], query_hw=[8, 8]),
         "irstd.MSDeformAttn: input 0 is [1,64,2]; wanted [1,64,2,?]"),
    ],
    ids=lambda item: item[6:40] if isinstance(item, str) else "",
)  # fmt: skip
def test_graphs_that_do_not_fit_are_refused(model, finding, core):
    with pytest.raises(RuntimeError) as error:
        core.read_model(model.SerializeToString())
    assert said(error.value) == finding


def test_missing_attribute(core):
    model = bare("MSDeformAttn", {"value": (1, 64, 2, 8), **QUERIES}, query_hw=[8, 8])
    with pytest.raises(RuntimeError, match="level_hw"):
        core.read_model(model.SerializeToString())


def test_session_runs_kernels_and_agrees_with_the_bodies(make_fused, rng):
    model = checked(make_fused(), "test").SerializeToString()
    image = rng.standard_normal((1, 1, 32, 32)).astype(np.float32)
    fused, plain = open_session("openvino", model), open_session("reference", model)
    assert "fused kernels" in fused.description
    assert_close(fused.run(image)[0], plain.run(image)[0])
    image[0, 0, 3, 3] = np.inf  # NaN would not pass the first Relu
    with pytest.raises(BuildError) as error:
        fused.run(image)
    assert str(error.value) == (
        "openvino cannot run the graph: irstd.HaarGate: an input holds NaN or infinity; wanted "
        "finite numbers, node haar"
    )
    image[0, 0, 3, 3] = 0
    assert_close(fused.run(image)[0], plain.run(image)[0])
    fused.close()
    plain.close()


def test_session_says_what_does_not_fit(make_fused):
    model = make_fused()
    node = next(node for node in model.graph.node if node.name == "attention")
    next(item for item in node.attribute if item.name == "level_hw").ints[:] = [16, 8]
    with pytest.raises(BuildError) as error:
        open_session("openvino", model.SerializeToString())
    assert str(error.value) == (
        "openvino refuses the graph: irstd.MSDeformAttn: input 0 is [1,256,2,8]; wanted [1,128,2,8]"
    )


def test_only_nodes_of_the_domain_ask_for_the_extension(make_fused, rng):
    inputs = haar_inputs(rng, MAPS[0])
    plain = plain_graph("HaarGate", inputs, MAPS[0])
    assert has_fused_nodes(make_fused().SerializeToString())
    assert not has_fused_nodes(plain.SerializeToString())
    onnx.helper.set_model_props(plain, {"irstd.network": "irstd"})
    plain.domain = plain.producer_name = "irstd"
    assert not has_fused_nodes(plain.SerializeToString())


def test_without_a_compiler(make_fused, monkeypatch, tmp_path):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    with pytest.raises(MissingDependency, match=r"no C\+\+ compiler .* install g\+\+"):
        open_session("openvino", make_fused().SerializeToString())


def test_without_openvino(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="openvino is not installed; pip install"):
        build_openvino_extension()


def test_without_headers(monkeypatch, tmp_path):
    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Found)
    with pytest.raises(MissingDependency, match="this installation of OpenVINO has no headers"):
        build_openvino_extension()
