"""Quickly deployable plugins: what TensorRT's own Python makes of them, and what they refuse."""

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from irstd.errors import BuildError, MissingDependency, UsageError
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.kernels.cuda.toolchain import find_nvcc
from irstd.runtime.kernels.tensorrt.quick import (
    STATIC_SHARED_BYTES,
    Kernel,
    Node,
    register,
)
from irstd.runtime.kernels.tensorrt.quick_nodes import quick_nodes
from tests.contract.bindings import environment, missing

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "tensorrt_host" / "quick.py"
MULTIPROCESSORS = 3
# The oldest bindings here that embed kernels ahead of time (10.9), and the newest.
with_bindings = pytest.mark.parametrize("version", ["10.13.3.9", "11.4.0.106"])
each_type = pytest.mark.parametrize("kind", ["HALF", "FLOAT"])


@pytest.fixture(scope="session")
def ask(require):
    """A function (version, node, attributes, *(type, shape)) -> what TensorRT would embed."""
    try:
        find_nvcc()
    except MissingDependency as error:
        require("nvcc", str(error))

    def run(version, node, attributes, *inputs):
        if reason := missing(version):
            require("bindings", reason)
        done = subprocess.run(
            [sys.executable, WORKER, *map(json.dumps, (node, attributes, *inputs))],
            env=environment(version),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]))

    return run


def parameters(ptx, kernel):
    """Return the types of a kernel's parameters."""
    (declared,) = re.findall(rf"\.entry {kernel}\(([^)]*)\)", ptx)
    return re.findall(r"\.param \.(\w+)", declared)


@with_bindings
@each_type
def test_haar_gate_becomes_one_kernel(ask, version, kind):
    said = ask(
        version, "HaarGate", {}, (kind, [1, 64, 96, 120]), ("FLOAT", [4, 2, 7, 7]), ("FLOAT", [4])
    )
    assert (said.type, said.shape) == (kind, [1, 64, 96, 120])
    assert said.kernel == f"irstd_haar_gate_{'f16' if kind == 'HALF' else 'f32'}"
    assert said.integers[:3] == [64, 96, 120]
    rows, strip_px = said.integers[3], 64 if kind == "HALF" else 32
    assert said.grid == [-(-120 // strip_px), -(-96 // rows), 1]
    assert 0 < said.shared_bytes <= STATIC_SHARED_BYTES
    assert parameters(said.ptx, said.kernel) == ["u64"] * 3 + ["u32"] * 4 + ["u64"]


LARGE, SMALL = [1, 2, 128, 64], [2, 3, 64, 32]


@with_bindings
@each_type
@pytest.mark.parametrize(
    ("node", "inputs", "kernel", "words"),
    [
        ("SpectralSplitLow", [SMALL, [3]], "whole", 3),
        ("SpectralSplitRows", [LARGE], "rows", 2),
        ("SpectralSplitColumns", [LARGE, [2]], "columns", 3),
        ("SpectralSplitRowsBack", [LARGE, LARGE], "rows_back", 2),
        ("SpectralSplitGate", [LARGE, LARGE, [2, 2, 7, 7], [2], [2, 2]], "gate", 4),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_spectral_split_becomes_nodes_of_one_kernel(
    ask, version, kind, node, inputs, kernel, words
):
    typed = [(kind if len(shape) == 4 and shape[2] > 7 else "FLOAT", shape) for shape in inputs]
    said = ask(version, node, {}, *typed)
    assert (said.type, said.shape) == (kind, inputs[0])
    assert said.kernel == f"irstd_spectral_split_{kernel}_{'f16' if kind == 'HALF' else 'f32'}"
    assert min(said.grid) > 0
    assert 0 < said.shared_bytes <= STATIC_SHARED_BYTES
    pointers = ["u64"] * len(inputs)
    assert parameters(said.ptx, said.kernel) == pointers + ["u32"] * words + ["u64"]
    assert said.integers[: min(words, 3)] == [*inputs[0][4 - min(words, 3) :]]


ATTENTION = {"level_hw": [24, 20, 12, 10, 6, 5], "d_head": [32]}


@with_bindings
@each_type
@pytest.mark.parametrize("d_head", [1, 32])
def test_deformable_attention_becomes_records_and_a_gather(ask, version, kind, d_head):
    attributes = {**ATTENTION, "d_head": [d_head]}
    records = ask(version, "MSDeformAttnRecords", attributes, (kind, [2, 630, 8, d_head]))
    numbers = 4 if d_head == 1 else d_head
    assert records.shape[0] > 2 * 8 * 630 * numbers
    assert records.shape[0] % numbers == 0
    assert parameters(records.ptx, records.kernel) == ["u64"] * 2
    queries = (kind, [2, 120, 8, 3, 4, 2]), (kind, [2, 120, 8, 3, 4])
    gathered = ask(
        version, "MSDeformAttnGather", {**attributes, "query_hw": [12, 10]},
        (kind, records.shape), *queries,
    )  # fmt: skip
    at_points = ask(
        version, "MSDeformAttnGatherAt", attributes,
        (kind, records.shape), *queries, ("FLOAT", [2, 120, 2]),
    )  # fmt: skip
    for said, inputs in ((gathered, 3), (at_points, 4)):
        assert (said.type, said.shape) == (kind, [2, 120, 8 * d_head])
        assert parameters(said.ptx, said.kernel) == ["u64"] * (inputs + 1)
        assert (said.integers, said.shared_bytes) == ([], 0)


@pytest.mark.parametrize(
    ("node", "shapes", "attributes", "said"),
    [
        ("SpectralSplitLow", [(1, 8, 128, 64), (8,)], {}, "wanted at most 4096 px, or Spectral"),
        (
            "SpectralSplitRows",
            [(1, 8, 32, 64)],
            {},
            "wanted more than 4096 px, or SpectralSplitLow",
        ),
        ("SpectralSplitGate", [(1, 8, 48, 64)] * 5, {}, r"wanted \(N, C, H, W\), sides of"),
        ("MSDeformAttnRecords", [(1, 630, 8, 16)], ATTENTION, r"d_head is 16 in value"),
        (
            "MSDeformAttnGather",
            [(99,), (1, 4, 8, 2, 4, 2), (1, 4, 8, 2, 4)],
            {**ATTENTION, "query_hw": [2, 2]},
            "2 levels in offsets",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_nodes_refuse_what_their_kernels_cannot(node, shapes, attributes, said):
    (found,) = [one for one in quick_nodes(MULTIPROCESSORS) if one.name == node]
    with pytest.raises(BuildError, match=said):
        found.kernel(shapes, True, attributes)


class FakePlugin:
    """`tensorrt.plugin` as far as `register` uses it; sizes are plain numbers."""

    class TensorDesc:
        def __init__(self, shape, kind="HALF", is_static=True):
            self.shape_expr = [
                SimpleNamespace(is_constant=is_static, constant_value=lambda v=v: v) for v in shape
            ]
            self.dtype = SimpleNamespace(name=kind)

        def like(self):
            return self

    class KernelLaunchParams(SimpleNamespace):
        def __init__(self, *sizes):
            super().__init__(sizes=sizes, shared_mem=0)

    class SymIntExprs(list):
        def __init__(self, length):
            super().__init__([None] * length)

    SymInt32 = int

    def __init__(self):
        self.described, self.implemented = {}, {}

    def from_shape_expr(self, shape, dtype):
        return shape, dtype

    def register(self, name, lazy_register):
        return lambda function: self.described.setdefault(name, function)

    def aot_impl(self, name):
        return lambda function: self.implemented.setdefault(name, function)


def launch(shared_bytes=0):
    return Launch(
        (ctypes.c_uint * 3)(2, 3, 4), (ctypes.c_uint * 3)(32, 1, 1), ctypes.c_uint(shared_bytes)
    )


def doubling(shared_bytes=0):
    return Node(
        "Double",
        ("x", "y"),
        ("sides",),
        lambda shapes, attributes: (*shapes[1][:1], attributes["sides"][0]),
        lambda shapes, half, attributes: Kernel(
            f"double_{half}", "ptx", launch(shared_bytes), (shapes[0][1], *attributes["sides"])
        ),
    )


def test_shapes_attributes_and_arguments_reach_the_kernel():
    plugin = FakePlugin()
    register(plugin, doubling())
    x, y = plugin.TensorDesc((5, 6)), plugin.TensorDesc((7,))
    sides = np.array([8, 9], np.int32)
    shape, kind = plugin.described["irstd::Double"](x, y, sides=sides)
    assert (shape[0].constant_value(), shape[1], kind.name) == (7, 8, "HALF")
    name, ptx, params, integers = plugin.implemented["irstd::Double"](x, y, sides, [None], 0)
    assert (name, ptx, list(integers)) == ("double_True", "ptx", [6, 8, 9])
    assert params.sizes == (2, 3, 4, 32, 1, 1)


def test_dynamic_shapes_are_refused():
    plugin = FakePlugin()
    register(plugin, doubling())
    x = plugin.TensorDesc((5, 6), is_static=False)
    with pytest.raises(BuildError, match="Double: a shape is not static; build with fixed shapes"):
        plugin.implemented["irstd::Double"](x, x, np.array([1], np.int32), [None], 0)


def test_other_types_are_refused():
    plugin = FakePlugin()
    register(plugin, doubling())
    x = plugin.TensorDesc((5, 6), "INT8")
    with pytest.raises(BuildError, match="Double: got INT8; wanted FLOAT or HALF"):
        plugin.implemented["irstd::Double"](x, x, np.array([1], np.int32), [None], 0)


def test_more_shared_memory_than_an_engine_gives_is_refused():
    plugin = FakePlugin()
    register(plugin, doubling(STATIC_SHARED_BYTES + 16))
    x = plugin.TensorDesc((5, 6))
    with pytest.raises(BuildError, match=r"49168 bytes of shared memory; .* may use 49152"):
        plugin.implemented["irstd::Double"](x, x, np.array([1], np.int32), [None], 0)


def test_older_tensorrt_is_refused():
    with pytest.raises(UsageError, match=r"wanted TensorRT 10\.9 or later"):
        register(SimpleNamespace(register=None), doubling())


def test_what_tensorrt_does_not_take_is_one_clear_line(monkeypatch):
    plugin = FakePlugin()

    def refuse(name, lazy_register):
        raise ValueError("already has a definition")

    monkeypatch.setattr(plugin, "register", refuse)
    with pytest.raises(UsageError, match="irstd::Double: TensorRT does not take it: already has"):
        register(plugin, doubling())


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 4, 4), (4, 2, 7, 7), (4,)),
        ((1, 4, 4, 4), (4, 2, 5, 5), (4,)),
        ((1, 4, 4, 4), (4, 2, 7, 7), (3,)),
    ],
)
def test_haar_gate_refuses_other_shapes(shapes):
    (node,) = [node for node in quick_nodes(MULTIPROCESSORS) if node.name == "HaarGate"]
    with pytest.raises(BuildError, match=r"HaarGate: got \(.*wanted \(N, C, H, W\)"):
        node.kernel(shapes, True, {})
