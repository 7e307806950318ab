"""Networks with fused operators, from a torch module to the graph that a target gets."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from irstd.compile import fused
from irstd.compile.fused import place_kernels, write_out
from irstd.compile.graph_facts import pools_globally, run_graph
from irstd.compile.lower import lower
from irstd.compile.onnx_graph import checked, copy_of
from irstd.compile.onnx_source import load_onnx_source
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.opset import convert_opset
from irstd.compile.prepare import prepare
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.sources import Source
from irstd.errors import BuildError, ExportError, MissingDependency
from irstd.runtime.sessions import open_session
from irstd.targets import find_target
from irstd.types import Precision

CPU, JETSON = find_target("cpu"), find_target("jetson-orin-nano")
OPERATORS = {"haar": "HaarGate", "split": "SpectralSplit", "attention": "MSDeformAttn"}


@pytest.fixture
def with_library(monkeypatch):
    """A machine that can build the extension, without building it."""
    monkeypatch.setattr(fused, "build_openvino_extension", lambda: None)
    monkeypatch.setattr(fused, "installed_sessions", lambda: ["onnxruntime", "openvino"])


@pytest.fixture(scope="module")
def prepared(make_fused):
    model = checked(make_fused(channels=32), "test")
    source = Source("fused", model, Normalization((80.0,), (40.0,)), None, True, {})
    return prepare(source, SourceSettings("fused", output="logits"))


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32, 32), dtype=np.uint8) for _ in range(2)]


@pytest.fixture
def image(rng):
    return rng.standard_normal((1, 1, 32, 32)).astype(np.float32)


def types(model):
    return {node.name: node.op_type for node in fused_nodes(model)}


def assert_near(result, wanted, relative=1e-5):
    assert result.shape == wanted.shape
    assert np.abs(result - wanted).max() <= relative * np.abs(wanted).max()


def test_prepared_has_the_network_both_ways(prepared, image):
    assert types(prepared.fused) == OPERATORS
    assert not fused_nodes(prepared.model)
    assert not prepared.model.functions
    assert {node.domain for node in prepared.model.graph.node} == {""}
    assert [item.domain for item in prepared.model.opset_import] == [""]
    names = [node.name for node in prepared.model.graph.node]
    assert len(set(names)) == len(names)
    assert_near(run_graph(prepared.model, image), run_graph(prepared.fused, image))


def test_written_out_constants_are_folded(prepared):
    """The bases, the response of the filter and all shapes are constants of the plain graph."""
    made = {node.op_type for node in prepared.model.graph.node}
    assert not made & {"Shape", "Range", "Cos", "Mod", "Constant", "Identity", "Reciprocal"}


def test_a_network_without_fused_operators_is_as_before(make_tiny):
    source = Source("tiny", make_tiny(), Normalization((80.0,), (40.0,)), None, True, {})
    found = prepare(source, SourceSettings("tiny"))
    assert found.fused is None
    assert place_kernels(found.model, CPU).model is found.model


def test_cpu_keeps_the_nodes(prepared, with_library):
    placed = place_kernels(prepared.fused, CPU)
    assert placed.kernels == OPERATORS
    assert not placed.written_out
    assert placed.model is prepared.fused


def test_every_engine_of_another_target_takes_its_graph(prepared, image):
    placed = place_kernels(prepared.fused, JETSON)
    assert not fused_nodes(placed.model)
    assert set(placed.written_out.values()) == {"this graph is for engines without plugins"}
    assert placed.written_out.keys() == OPERATORS.keys()
    assert_near(run_graph(placed.model, image), run_graph(prepared.model, image))
    assert placed.bodies
    assert not placed.bodies & {node.name for node in prepared.fused.graph.node}


@pytest.mark.parametrize("error", [MissingDependency("no C++ compiler"), BuildError("g++ refuses")])
def test_a_machine_without_a_compiler_gets_the_plain_graph(prepared, error, monkeypatch, caplog):
    def build():
        raise error

    monkeypatch.setattr(fused, "build_openvino_extension", build)
    placed = place_kernels(prepared.fused, CPU)
    assert not placed.kernels
    assert f"cannot be compiled here: {error}" in caplog.text
    assert set(placed.written_out.values()) == {
        f"their CPU kernels cannot be compiled here: {error}"
    }


def test_a_machine_without_openvino(prepared, monkeypatch):
    monkeypatch.setattr(fused, "installed_sessions", lambda: ["onnxruntime"])
    placed = place_kernels(prepared.fused, CPU)
    assert "OpenVINO, which is not installed" in placed.written_out["haar"]


def test_one_node_without_a_kernel_is_written_out_alone(make_fused, with_library, image):
    """16 channels in four heads: d_head 4 has no kernel; the other two operators do."""
    model = checked(make_fused(heads=4), "test")
    placed = place_kernels(model, CPU)
    assert placed.kernels == {"haar": "HaarGate", "split": "SpectralSplit"}
    assert placed.written_out == {
        "attention": "no kernel of MSDeformAttn fits: value: got d_head 4; wanted one of "
        "(1, 8, 16, 32)"
    }
    assert types(placed.model) == placed.kernels
    assert_near(run_graph(placed.model, image), run_graph(model, image))


@pytest.mark.parametrize(
    ("side_px", "points", "reason"),
    [
        (64, 4, ""),
        (4095, 4, "at most 2^24 pixels in a level"),
        (64, 9, "9 points; wanted at most 8"),
        (64, None, "shapes of its inputs are not known"),
    ],
)
def test_nodes_that_the_kernels_do_not_take_say_why(side_px, points, reason):
    inputs = ["value", "offsets", "logits"]
    node = helper.make_node(
        "MSDeformAttn", inputs, ["y"], level_hw=[side_px] * 2, query_hw=[2, 2], domain="irstd"
    )
    shapes = {"value": (1, side_px**2, 2, 8), "logits": (1, 4, 2, 1, points)}
    said = fused._why_no_kernel(node, shapes)
    assert reason in said
    assert bool(said) == bool(reason)


@pytest.mark.parametrize("target", ["cpu", "jetson-orin-nano"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_of_every_form(precision, target, prepared, frames, with_library, image):
    settings = LoweringSettings(target=target, precision=Precision(precision))
    lowered = lower(prepared, settings, frames)
    model = onnx.load_model_from_string(lowered.model)
    kept = OPERATORS if target == "cpu" else {}
    assert lowered.kernels == types(model) == kept
    assert lowered.written_out.keys() == OPERATORS.keys() - kept.keys()
    session = open_session("reference", lowered.model)
    tolerance = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.3}[precision]
    assert_near(session.run(image)[0], run_graph(prepared.model, image), tolerance)
    session.close()


def test_operators_stay_in_float32(prepared, frames, with_library):
    """As nodes and written out: coordinates in half would be off by an eighth of a pixel."""
    for target in ("cpu", "jetson-orin-nano"):
        settings = LoweringSettings(target=target, precision=Precision.FP16)
        model = checked(onnx.load_model_from_string(lower(prepared, settings, frames).model), "")
        kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*model.graph.value_info, *model.graph.output)
        }
        inside = [
            node
            for node in model.graph.node
            if node.domain == "irstd" or node.op_type in ("GridSample", "ReduceMax", "Softmax")
        ]
        assert inside
        assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT for node in inside)
        assert onnx.TensorProto.FLOAT16 in kinds.values()


def test_nvidia_int8_leaves_written_out_operators_alone(prepared, frames):
    settings = LoweringSettings(target="jetson-orin-nano", precision=Precision.INT8)
    model = onnx.load_model_from_string(lower(prepared, settings, frames).model)
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("GridSample", "Pad", "ReduceMax"):
            sources = [made[name].op_type for name in node.input if name in made]
            assert "DequantizeLinear" not in sources


def test_a_split_sees_the_whole_map(prepared):
    assert pools_globally(prepared.fused)


def test_another_opset_keeps_nodes_and_meaning(prepared, image):
    newer = convert_opset(prepared.fused, 19)
    assert types(newer) == OPERATORS
    assert {item.version for body in newer.functions for item in body.opset_import} == {19}
    assert_near(run_graph(newer, image), run_graph(prepared.fused, image))


def test_write_out_of_one(prepared):
    assert types(write_out(prepared.fused, ["split"])).keys() == {"haar", "attention"}


def load(model, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return load_onnx_source(path).model


def test_a_file_with_our_functions_keeps_its_nodes(make_fused, tmp_path):
    assert types(load(checked(make_fused(), "test"), tmp_path)) == OPERATORS


def test_a_file_with_bare_nodes_gets_functions(make_fused, tmp_path):
    assert types(load(make_fused(), tmp_path)) == OPERATORS


def test_a_file_that_means_something_else_is_taken_at_its_word(make_fused, tmp_path, image):
    """A function of our name with another body: what the file says is computed, by no kernel."""
    model = checked(make_fused(), "test")
    forged = copy_of(model)
    body = next(body for body in forged.functions if body.name == "HaarGate")
    body.node[-1].op_type = "Add"  # x + gate instead of x * gate
    loaded = load(forged, tmp_path)
    assert not fused_nodes(loaded)
    session = onnxruntime.InferenceSession(
        forged.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = session.run(None, {"image": image})[0]
    assert_near(run_graph(loaded, image), wanted)
    assert np.abs(wanted - run_graph(model, image)).max() > 0.1


def test_an_unknown_operator_of_our_domain_is_refused(make_fused, tmp_path):
    model = make_fused()
    next(node for node in model.graph.node if node.name == "haar").op_type = "WaveletGate"
    with pytest.raises(ExportError, match=r"operator irstd\.WaveletGate is not a standard one"):
        load(model, tmp_path)
