"""The graph in which TensorRT's plugins run the fused operators, beside the one without."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from irstd.bundle import read_bundle
from irstd.compile import command
from irstd.compile.fused import place_plugins
from irstd.compile.graph_facts import run_graph
from irstd.compile.half import to_float16
from irstd.compile.lower import lower
from irstd.compile.onnx_graph import attributes, checked, consumers, copy_of, producers
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.plugin_graph import plugin_graph
from irstd.compile.prepare import prepare
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.sources import Source
from irstd.engine_record import PLUGIN_GRAPH
from irstd.runtime.kernels.tensorrt.plugin_library import NODE_ATTRIBUTES
from irstd.types import Precision

OPERATORS = {"haar": "HaarGate", "split": "SpectralSplit", "attention": "MSDeformAttn"}
TYPED_INPUTS = {"haar": 1, "split": 1, "attention": 3}


@pytest.fixture(scope="module")
def prepared(make_fused):
    model = checked(make_fused(size_hw=(64, 64), channels=32), "test")
    source = Source("fused", model, Normalization((80.0,), (40.0,)), None, True, {})
    return prepare(source, SourceSettings("fused", output="logits"))


@pytest.fixture(scope="module")
def both(prepared):
    """A function precision -> (graph in standard operators, graph with plugins)."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 64), dtype=np.uint8) for _ in range(2)]
    made = {}

    def make(precision):
        if precision not in made:
            lowered = lower(prepared, LoweringSettings("jetson-orin-nano", precision), frames)
            assert lowered.plugins == OPERATORS
            made[precision] = [
                onnx.load_model_from_string(data) for data in (lowered.model, lowered.plugin_model)
            ]
        return made[precision]

    return make


def by_name(model):
    return {node.name: node for node in fused_nodes(model)}


@pytest.mark.parametrize("precision", list(Precision))
def test_parser_finds_plugins_and_no_functions(precision, both):
    plain, graph = both(precision)
    assert not fused_nodes(plain)
    assert not graph.functions
    for node in by_name(graph).values():
        told = {name: value for name, value in attributes(node).items() if name in NODE_ATTRIBUTES}
        assert {name: value.decode() for name, value in told.items()} == NODE_ATTRIBUTES
        assert not node.overload
    onnx.checker.check_model(plain, full_check=True)


def test_both_graphs_compute_the_same(both):
    """With their bodies again, the nodes mean what they are written out as."""
    plain, graph = both(Precision.FP32)
    image = np.random.default_rng(1).standard_normal((1, 1, 64, 64)).astype(np.float32)
    meant = checked(copy_of(graph), "test")
    wanted = run_graph(plain, image)
    assert np.abs(run_graph(meant, image) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_plugins_read_and_write_half_where_the_graph_does(both):
    _, graph = both(Precision.FP16)
    makers, readers = producers(graph), consumers(graph)
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    for name, node in by_name(graph).items():
        for index, source in enumerate(node.input):
            if index < TYPED_INPUTS[name]:
                assert makers[source].op_type != "Cast"
            else:
                assert kinds[source] == TensorProto.FLOAT
        assert all(reader.op_type != "Cast" for reader in readers[node.output[0]])


def test_both_graphs_have_one_scale_table(both):
    def scales(model):
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        return {
            node.input[0]: onnx.numpy_helper.to_array(values[node.input[1]]).tolist()
            for node in model.graph.node
            if node.op_type == "QuantizeLinear"
        }

    plain, graph = (list(scales(model).values()) for model in both(Precision.INT8))
    assert len(plain) > 1
    assert sorted(plain) == sorted(graph)


def half_of(prepared, change=None, maxima=None, unseen=()):
    """Return the FP16 plugin graph of a changed network, whose values were seen to be small."""
    model = copy_of(prepared.fused)
    if change:
        change(model)
    half, _ = to_float16(checked(model, "test"), {})
    small = {name: 1.0 for node in model.graph.node for name in node.output if name not in unseen}
    return plugin_graph(half, small | (maxima or {}))


@pytest.mark.parametrize(
    ("name", "beyond"), [("split", 8001.0), ("haar", 8001.0), ("attention", 32753.0)]
)
def test_a_map_too_large_for_half_stays_in_float32(prepared, name, beyond):
    """Sums of four pixels and spectra, which two kernels keep in half, end before their inputs."""
    makers = producers(prepared.fused)
    read = by_name(prepared.fused)[name].input[0]
    assert read in makers

    def reads_cast(seen):
        graph = half_of(prepared, maxima={read: seen})
        return producers(graph)[by_name(graph)[name].input[0]].op_type == "Cast"

    assert reads_cast(beyond)
    assert not reads_cast(beyond - 1)


@pytest.mark.parametrize(("name", "stays"), [("split", True), ("haar", True), ("attention", False)])
def test_a_map_that_nobody_observed_is_taken_for_large(prepared, name, stays):
    read = by_name(prepared.fused)[name].input[0]
    graph = half_of(prepared, unseen=[read])
    assert (producers(graph)[by_name(graph)[name].input[0]].op_type == "Cast") == stays


def test_a_map_that_something_else_reads_in_float32_stays_so(prepared):
    def also_summed(model):
        split = by_name(model)["split"].output[0]
        (output,) = model.graph.output
        model.graph.node.append(helper.make_node("ReduceSum", [split], ["sum"], "sum", keepdims=1))
        model.graph.node.append(helper.make_node("Add", [output.name, "sum"], ["more"], "more"))
        output.name = "more"

    nodes = by_name(half_of(prepared, also_summed))
    kept = half_of(prepared)
    assert nodes["split"].output[0] == by_name(prepared.fused)["split"].output[0]
    assert by_name(kept)["split"].output[0] != nodes["split"].output[0]


def test_maps_that_no_kernel_takes_are_written_out(make_fused, caplog):
    """The split is on 16 px here, and its kernels begin at 32."""
    model = checked(make_fused(size_hw=(32, 32)), "test")
    placed = place_plugins(model)
    assert placed.kernels.keys() == OPERATORS.keys() - {"split"}
    assert "no plugin of SpectralSplit fits: sides (16, 16)" in placed.written_out["split"]
    assert "1 fused operators run as standard ones: no plugin" in caplog.text


def test_only_networks_and_targets_with_plugins_have_one(prepared, make_tiny):
    settings = LoweringSettings("cpu", Precision.FP32)
    assert lower(prepared, settings, []).plugin_model is None
    source = Source("tiny", make_tiny(), Normalization((80.0,), (40.0,)), None, True, {})
    tiny = prepare(source, SourceSettings("tiny"))
    settings = LoweringSettings("jetson-orin-nano", Precision.FP32)
    assert lower(tiny, settings, []).plugin_model is None


def test_the_bundle_carries_it_and_tells(make_fused, tmp_path, capsys):
    source, out = tmp_path / "fused.onnx", tmp_path / "fused.irstd"
    onnx.save(make_fused(size_hw=(64, 64)), source)
    words = [str(source), "--target", "jetson-orin-nano", "--normalize", "80,40", "-o", str(out)]
    assert command.main(["build", *words, "--output", "logits", "--no-cache"]) == 0
    told = "plugins, compiled by finish: 1 HaarGate, 1 SpectralSplit, 1 MSDeformAttn"
    assert told in capsys.readouterr().out
    bundle = read_bundle(out)
    assert by_name(onnx.load_model_from_string(bundle.read(PLUGIN_GRAPH))).keys() == set(OPERATORS)
    assert bundle.manifest.model == "model.fp32.onnx"
    assert command.main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert "run as standard ones" not in shown
