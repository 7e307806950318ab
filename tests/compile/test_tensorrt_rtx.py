"""TensorRT for RTX takes every network in every precision: its own parser and builder say so.

Each build runs in a process of its own, as it does for users. Without the wheels, which
`make test` installs, these tests skip; IRSTD_REQUIRE=rtx makes that an error.
"""

import hashlib
import importlib.util
import json
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irstd.compile.builders.tensorrt_rtx import build_rtx_engine, rtx_library
from irstd.compile.builders.tensorrt_rtx_layers import convolution_precisions
from irstd.compile.frame_sets import golden_frames
from irstd.compile.lower import lower
from irstd.compile.prepare import prepare
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.sources import open_source
from irstd.errors import BuildError
from irstd.targets import find_target
from irstd.types import Precision

TARGETS = ("rtx-30", "rtx-40", "rtx-50")
node = helper.make_node


@pytest.fixture(scope="module", autouse=True)
def library(require):
    if not importlib.util.find_spec("tensorrt_rtx_bindings"):
        require("rtx", "TensorRT for RTX is not installed")
    return rtx_library()


@pytest.fixture(scope="module")
def prepared(make_graph, tmp_path_factory):
    """Each network at its default size: shipped weights where there are some, else seeded ones."""
    path = tmp_path_factory.mktemp("rtx") / "alcnet.onnx"
    path.write_bytes(make_graph("alcnet", "batch", 1).SerializeToString())
    sources = {
        "acm": SourceSettings("acm"),
        "alcnet": SourceSettings(
            str(path), imgsz=(256, 256), normalize=Normalization((80.0,), (40.0,))
        ),
    }
    return {name: prepare(open_source(given), given) for name, given in sources.items()}


@pytest.fixture(scope="module")
def lowered(prepared):
    """The graph of a network for a target in a precision, and the convolutions planned for INT8."""
    made = {}

    def make(network, precision, target="rtx-40"):
        if (key := (network, precision)) not in made:
            frames = golden_frames([], prepared[network].spec, 0)
            made[key] = lower(prepared[network], LoweringSettings(target, precision), frames)
        return made[key]

    return make


def convolutions(model):
    graph = onnx.load_model_from_string(model).graph
    return [item.name for item in graph.node if item.op_type in ("Conv", "ConvTranspose")]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_every_network_is_accepted_in_every_precision(network, precision, lowered, library, root):
    graph = lowered(network, precision)
    engine = build_rtx_engine(graph.model, (8, 9))
    assert engine.library == library
    assert len(engine.plan) > 100_000
    names = convolutions(graph.model)
    found = convolution_precisions(engine.layers, names)
    # What the graph asks for is what the engine does, convolution by convolution.
    wanted = dict.fromkeys(names, "fp32" if precision is Precision.FP32 else "fp16")
    wanted |= dict.fromkeys(graph.int8_nodes, "int8")
    assert found == wanted
    published = json.loads((root / "benchmarks" / "results" / "rtx-layers.json").read_text())
    if published["library"] == library:  # else scripts/rtx_layers.py is to be run again
        assert found == published["convolutions"][network][precision.value]


@pytest.mark.parametrize("name", TARGETS)
def test_an_engine_is_built_for_the_card_of_each_target(name, lowered):
    capability = find_target(name).compute_capability
    engine = build_rtx_engine(lowered("acm", Precision.FP16).model, capability)
    assert engine.capability == capability
    assert sum(layer.moved_bytes for layer in engine.layers) > 256 * 256 * 4


def test_the_same_build_gives_the_same_bytes(lowered):
    model = lowered("acm", Precision.INT8).model
    digests = {hashlib.sha256(build_rtx_engine(model, (8, 6)).plan).digest() for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", ["acm", "alcnet"])
def test_three_channels_and_other_norms_are_accepted(network, norm, make_graph, tmp_path):
    path = tmp_path / "network.onnx"
    path.write_bytes(make_graph(network, norm, 3).SerializeToString())
    given = SourceSettings(str(path), imgsz=(64, 96), normalize=Normalization((80.0,), (40.0,)))
    prepared = prepare(open_source(given), given)
    frames = golden_frames([], prepared.spec, 0)
    model = lower(prepared, LoweringSettings("rtx-50", Precision.INT8), frames).model
    assert build_rtx_engine(model, (12, 0)).layers


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_fused_operators_are_accepted_written_out(precision, make_fused, tmp_path):
    path = tmp_path / "fused.onnx"
    path.write_bytes(make_fused(channels=32).SerializeToString())
    given = SourceSettings(str(path), normalize=Normalization((80.0,), (40.0,)))
    prepared = prepare(open_source(given), given)
    assert prepared.fused is not None
    frames = golden_frames([], prepared.spec, 0)
    graph = lower(prepared, LoweringSettings("rtx-40", precision), frames)
    assert not graph.kernels
    assert set(graph.written_out) == {"haar", "split", "attention"}
    assert build_rtx_engine(graph.model, (8, 9)).layers


# Stands before the genuine module and tells, instead of building, what it was asked for.
TELLS_TF32 = """
import tensorrt_rtx_bindings as genuine

def __getattr__(name):
    return getattr(genuine, name)

class Builder(genuine.Builder):
    def __init__(self, logger):
        genuine.Builder.__init__(self, logger)

    def build_serialized_network(self, network, config):
        raise SystemExit(f"TF32 is {config.get_flag(genuine.BuilderFlag.TF32)}")
"""


def test_float32_keeps_all_its_bits(lowered, tmp_path, monkeypatch):
    """TF32 is on by default, and golden frames of FP32 allow a hundredth of its rounding."""
    (tmp_path / "tensorrt_rtx.py").write_text(TELLS_TF32)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BuildError, match="TF32 is False"):
        build_rtx_engine(lowered("acm", Precision.FP32).model, (8, 9))


def test_progress_is_told_in_order(lowered):
    told = []
    build_rtx_engine(
        lowered("acm", Precision.FP32).model, (8, 9), tell=lambda *step: told.append(step)
    )
    counts = Counter(phase for phase, _, _ in told)
    assert {"Building engine", "Optimizing graph"} == set(counts)
    for phase, count in counts.items():
        assert [step for name, step, _ in told if name == phase] == [*range(1, count + 1)]
        assert {steps for name, _, steps in told if name == phase} <= {count, count + 1}


def graph_of(nodes, constants=None, *, opset=19, shape=(1, 4, 16, 16)):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(nodes, "small", [image], [mask], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("irstd", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


WEIGHT = np.full((4, 4, 3, 3), 0.1, np.float32)
SCALE = {"s": np.float32(0.1)}
PAIR = [
    node("QuantizeLinear", ["image", "s", "z"], ["q"], "quantize"),
    node("DequantizeLinear", ["q", "s", "z"], ["mask"], "dequantize"),
]
BIAS = [
    node("DequantizeLinear", ["b", "s", "z"], ["bias"], "bias"),
    node("Conv", ["image", "w", "bias"], ["mask"], "conv"),
]
HALVES = [
    node("Cast", ["image"], ["half"], "to_half", to=TensorProto.FLOAT16),
    node("Add", ["image", "half"], ["mask"], "add"),
]
# What is refused: node, operator, reason and what to do, all of them in the message.
REFUSED = {
    "asymmetric": (
        graph_of(PAIR, {**SCALE, "z": np.int8(3)}),
        ["'quantize' (QuantizeLinear)", "Non-zero zero point", "quantize symmetrically"],
    ),
    "scale": (
        graph_of(PAIR, {"s": np.float32(0), "z": np.int8(0)}),
        ["'quantize' (QuantizeLinear)", "must all be positive", "quantize again"],
    ),
    "bias": (
        graph_of(BIAS, {**SCALE, "b": np.zeros(4, np.int32), "z": np.int32(0), "w": WEIGHT}),
        ["'bias' (DequantizeLinear)", "must have type", "leave biases"],
    ),
    "operator": (
        graph_of([node("DFT", ["image"], ["mask"], "spectrum", axis=2)], opset=17),
        ["'spectrum' (DFT)", "Plugin not found", "standard operators"],
    ),
    "kernel": (
        graph_of([node("HaarGate", ["image"], ["mask"], "gate", domain="irstd")]),
        ["'gate' (HaarGate)", "Plugin not found", "--target rtx-40"],
    ),
    "types": (
        graph_of(HALVES),
        ["'add' (Add)", "same input types", "strongly typed"],
    ),
    "weights": (
        graph_of([node("Conv", ["image", "w"], ["mask"], "conv")], {"w": WEIGHT[:, :3]}),
        ["'conv' (Conv)", "Kernel weight dimension", "replace that operator"],
    ),
    "symbolic": (
        graph_of([node("Relu", ["image"], ["mask"], "relu")], shape=(1, 4, "H", "W")),
        ["optimization profile", "--imgsz HxW"],
    ),
    "no graph": (b"\x08\x09 no graph" * 9, ["the graph", "Failed to parse", "no ONNX graph"]),
    "nothing": (b"", ["at least one output", "no ONNX graph"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_node_operator_reason_and_what_to_do(case):
    model, wanted = REFUSED[case]
    with pytest.raises(BuildError) as caught:
        build_rtx_engine(model, (8, 9))
    message = str(caught.value)
    assert "\n" not in message
    assert "cudaError" not in message  # there is no GPU, which explains nothing
    for part in wanted:
        assert part in message


def test_a_card_that_the_library_does_not_build_for_is_refused():
    model, _ = REFUSED["symbolic"]
    with pytest.raises(BuildError, match=r"no card of capability 8\.7"):
        build_rtx_engine(model, (8, 7))


def test_a_transposed_convolution_computes_in_float_whatever_the_graph_asks():
    """Why the signed form leaves it in float (compile/quantize.py)."""
    pair = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"], "quantize"),
        node("DequantizeLinear", ["q", "s", "z"], ["x"], "dequantize"),
        node("DequantizeLinear", ["codes", "ws", "wz"], ["w"], "weight", axis=1),
        node("ConvTranspose", ["x", "w"], ["mask"], "up", strides=[2, 2]),
    ]
    codes = np.arange(4 * 4 * 4, dtype=np.int8).reshape(4, 4, 2, 2)
    constants = {
        **SCALE, "z": np.int8(0), "codes": codes,
        "ws": np.full(4, 0.01, np.float32), "wz": np.zeros(4, np.int8),
    }  # fmt: skip
    engine = build_rtx_engine(graph_of(pair, constants), (8, 9))
    assert convolution_precisions(engine.layers, ["up"]) == {"up": "fp32"}
