"""The rules for NVIDIA's graphs: each finds what violates it, and nothing in what mends that."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from irstd.compile.lint import RULES, lint
from irstd.compile.lower import lower
from irstd.compile.onnx_graph import checked
from irstd.compile.prepare import prepare
from irstd.compile.settings import LoweringSettings, Normalization, SourceSettings
from irstd.compile.sources import open_source
from irstd.targets import TARGETS
from irstd.types import Precision

node = helper.make_node
PADS = {"pads": [1] * 4}
CONSTANTS = {
    "s": np.float32(0.1), "z": np.int8(0), "unsigned": np.uint8(0), "three": np.int8(3),
    "nothing": np.float32(0), "w": np.ones((1, 1, 3, 3), np.float32),
    "w8": np.ones((1, 1, 3, 3), np.int8), "ws": np.float32([0.1]), "wz": np.int8([0]),
    "b32": np.int32([5]), "z32": np.int32(0), "grid": np.zeros((1, 9, 12, 2), np.float32),
    "huge": np.float16([np.inf]), "scales": np.float32([1, 1, 2, 2]), "axes": np.int64([2, 3]),
}  # fmt: skip


def pair(source, result, scale="s", zero="z"):
    return [
        node("QuantizeLinear", [source, scale, zero], [f"{result}_q"], f"{result}_quantize"),
        node("DequantizeLinear", [f"{result}_q", scale, zero], [result], f"{result}_dequantize"),
    ]


def weight(result="wd", scale="ws", zero="wz", **axis):
    return node("DequantizeLinear", ["w8", scale, zero], [result], result, **axis)


def convolution(source, result, weights="wd", **options):
    return node("Conv", [source, weights], [result], result, **{**PADS, **options})


def head(source):
    return node("Neg", [source], ["logits"], "head")


def cast(source, result, kind=TensorProto.FLOAT16):
    return node("Cast", [source], [result], f"{result}_cast", to=kind)


W = weight(axis=0)
SUM = [W, *pair("image", "x"), convolution("x", "c"), *pair("c", "d"), convolution("d", "e")]
SUM_END = [*pair("g", "h"), convolution("h", "i"), head("i")]
# By rule: what violates it, where, and the same mended.
CASES = {
    "signed-codes": (
        [*pair("image", "x", zero="unsigned"), W, convolution("x", "c"), head("c")],
        ["x_quantize", "x_dequantize"],
        [*pair("image", "x"), W, convolution("x", "c"), head("c")],
    ),
    "float-bias": (
        [node("DequantizeLinear", ["b32", "s", "z32"], ["b"], "bias"),
         node("Conv", ["image", "w", "b"], ["c"], "conv", **PADS), head("c")],
        ["bias"],
        [node("Conv", ["image", "w", "ws"], ["c"], "conv", **PADS), head("c")],
    ),
    "positive-scale": (
        [*pair("image", "x", "nothing"), W, convolution("x", "c"), head("c")],
        ["x_quantize", "x_dequantize"],
        [*pair("image", "x"), W, convolution("x", "c"), head("c")],
    ),
    "channel-scales": (
        [*pair("image", "x"), weight(scale="s", zero="z"), convolution("x", "c"), head("c")],
        ["c"],
        [*pair("image", "x"), W, convolution("x", "c"), head("c")],
    ),
    "both-operands": (
        [W, convolution("image", "c"), head("c")],
        ["c"],
        [convolution("image", "c", "w"), head("c")],
    ),
    "transposed-float": (
        [*pair("image", "x"), weight(axis=1),
         node("ConvTranspose", ["x", "wd"], ["c"], "up", **PADS), head("c")],
        ["up"],
        [node("ConvTranspose", ["image", "w"], ["c"], "up", **PADS), head("c")],
    ),
    "no-lonely-pair": (
        [*pair("image", "x"), node("Resize", ["x", "", "scales"], ["r"], "resize", mode="linear"),
         head("r")],
        ["x_quantize"],
        [*pair("image", "x"), W, convolution("x", "c"),
         node("Resize", ["x", "", "scales"], ["r"], "resize", mode="linear"),
         node("Resize", ["c", "", "scales"], ["t"], "other", mode="linear"),
         node("Add", ["r", "t"], ["u"], "add"), head("u")],
    ),
    "residual-sum": (
        [*SUM, *pair("e", "f"), node("Add", ["f", "d"], ["g"], "add"), *SUM_END],
        ["add"],
        [*SUM, node("Add", ["e", "d"], ["g"], "add"), *SUM_END],
    ),
    "coordinates-float32": (
        [cast("image", "x"), cast("grid", "y"), node("GridSample", ["x", "y"], ["g"], "sample"),
         cast("g", "h", TensorProto.FLOAT), head("h")],
        ["y_cast", "sample"],
        [node("GridSample", ["image", "grid"], ["g"], "sample"), head("g")],
    ),
    "sums-float32": (
        [cast("image", "x"), node("ReduceSum", ["x", "axes"], ["g"], "sum"),
         cast("g", "h", TensorProto.FLOAT), head("h")],
        ["sum"],
        [node("ReduceSum", ["image", "axes"], ["g"], "sum"), head("g")],
    ),
    "float16-range": (
        [cast("image", "x"), node("Mul", ["x", "huge"], ["g"], "mul"),
         cast("g", "h", TensorProto.FLOAT), head("h")],
        ["mul"],
        [cast("image", "x"), node("Mul", ["x", "x"], ["g"], "mul"),
         cast("g", "h", TensorProto.FLOAT), head("h")],
    ),
}  # fmt: skip


@pytest.fixture
def findings(make_small):
    def find(nodes, **options):
        used = {name for item in nodes for name in item.input}
        constants = {name: value for name, value in CONSTANTS.items() if name in used}
        model = make_small(nodes, constants, opset=19, check=False, **options)
        return lint(checked(model, "test"))

    return find


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_violates_it_alone(rule, findings):
    violating, wanted, mended = CASES[rule]
    found = findings(violating)
    assert [finding.node for finding in found if finding.rule == rule] == wanted
    assert {finding.rule for finding in found} == {rule}
    assert all(finding.reason and "\n" not in str(finding) for finding in found)
    assert findings(mended) == ()


def test_a_zero_point_is_found(findings):
    found = findings([*pair("image", "x", zero="three"), W, convolution("x", "c"), head("c")])
    assert {finding.rule for finding in found} == {"signed-codes"}
    assert "zero point 3" in str(found[0])


@pytest.mark.parametrize("size", [("H", 12), (None, 12)])
def test_a_symbolic_side_is_found(size, findings):
    found = findings([head("image")], size_hw=size)
    assert [(finding.rule, finding.node) for finding in found] == [("fixed-shape", "head")]


def test_codes_that_are_pooled_and_concatenated_are_no_islands(findings):
    pool = {"kernel_shape": [3, 3], "pads": [1] * 4}
    assert not findings([
        W, *pair("image", "x"), node("MaxPool", ["x"], ["p"], "pool", **pool), *pair("p", "q"),
        convolution("q", "c"), head("c"),
    ])  # fmt: skip


def test_a_float_shortcut_is_found(findings):
    found = findings([*SUM, node("Add", ["e", "c"], ["g"], "add"), *SUM_END])
    assert [(finding.rule, finding.node) for finding in found] == [("residual-sum", "add")]
    assert "shortcut is float" in found[0].reason


def test_of_two_convolutions_one_becomes_codes(findings):
    both = [*SUM, convolution("d", "o"), *pair("o", "p")]
    assert not findings([*both, node("Add", ["e", "p"], ["g"], "add"), *SUM_END])
    found = findings([
        *both, *pair("e", "f"), node("Add", ["f", "p"], ["g"], "add"), *SUM_END,
    ])  # fmt: skip
    assert [(finding.rule, finding.node) for finding in found] == [("residual-sum", "add")]


def test_a_convolution_that_others_read_too_cannot_fuse(findings):
    assert not findings([
        *SUM, *pair("e", "f"), convolution("f", "o"), node("Add", ["f", "d"], ["g"], "add"),
        *pair("g", "h"), convolution("h", "i"), node("Add", ["i", "o"], ["n"], "last"), head("n"),
    ])  # fmt: skip


def test_every_rule_has_a_case():
    assert RULES.keys() - {"fixed-shape"} == CASES.keys()


@pytest.fixture
def lowered(make_graph, make_fused, tmp_path):
    def make(network, norm, precision, target):
        model = make_fused(channels=32) if network == "fused" else make_graph(network, norm, 1)
        path = tmp_path / "network.onnx"
        path.write_bytes(model.SerializeToString())
        size = None if network == "fused" else (48, 64)
        given = SourceSettings(str(path), imgsz=size, normalize=Normalization((80.0,), (40.0,)))
        prepared = prepare(open_source(given), given, tmp_path)
        frame = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
        return lower(prepared, LoweringSettings(target, precision), [frame], tmp_path)

    return make


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
@pytest.mark.parametrize(
    ("network", "norm"),
    [("acm", "batch"), ("acm", "group"), ("alcnet", "batch"), ("alcnet", "group"), ("fused", "")],
)
def test_our_own_graphs_keep_every_rule(network, norm, precision, lowered):
    assert lowered(network, norm, precision, "rtx-40").findings == ()


@pytest.mark.parametrize("precision", list(Precision))
def test_one_graph_serves_every_nvidia_target(precision, lowered):
    nvidia = [name for name, target in TARGETS.items() if target.compute_capability is not None]
    graphs = {lowered("acm", "batch", precision, name).model for name in nvidia[::3]}
    assert len(nvidia) > 8
    assert len(graphs) == 1
