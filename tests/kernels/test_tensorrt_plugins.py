"""The TensorRT plugins: C++ that NVIDIA's headers accept, and that computes the definition.

With `TENSORRT_INCLUDE`, folders of those headers, every plugin is compiled against each; then it
goes through all that TensorRT does with one (tests/tensorrt_host), its kernels running on the CPU.
"""

import functools
import os
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from irstd.runtime.kernels.compiling import compile_with
from irstd.runtime.kernels.haar_gate.reference import haar_gate
from irstd.runtime.kernels.ms_deform_attn.reference import ms_deform_attn
from irstd.runtime.kernels.spectral_split.reference import spectral_split
from irstd.runtime.kernels.tensorrt.plugin_library import (
    build_plugin,
    find_cuda_include,
    plugin_defines,
    plugin_sources,
)
from tests.kernels.tensorrt_headers import each_operator, with_headers

HOST = Path(__file__).resolve().parents[1] / "tensorrt_host"
TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}  # nvinfer1::DataType
TOLERANCES = {np.float32: 1e-5, np.float16: 2e-3}
each_precision = pytest.mark.parametrize("dtype", [np.float32, np.float16])


class Refused(Exception):
    """The plugin refused; the message is what it and the host said."""


@dataclass(frozen=True)
class Ran:
    output: np.ndarray
    formats: list[str]
    workspace_bytes: int
    timing: str
    launches: list[str]  # names of kernels


@pytest.fixture(scope="session")
def plugin_host(tmp_path_factory):
    """A function of the headers' folder: the program of tests/tensorrt_host."""

    @functools.cache
    def build(headers):
        program = tmp_path_factory.mktemp("host") / "host"
        compile_with([
            "g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-isystem", str(headers),
            "-isystem", str(find_cuda_include()), str(HOST / "main.cpp"),
            "-ldl", "-o", str(program),
        ])  # fmt: skip
        return program

    return build


@pytest.fixture
def run_plugin(image, tmp_path, host_driver, plugin_host):
    """A function (op, headers, *inputs, **attributes) -> Ran."""

    def run(op, headers, *inputs, image=image, **attributes):
        plugin = build_plugin(op, image, tensorrt_include=headers)
        request, result = tmp_path / "request", tmp_path / "result"
        request.write_bytes(pack(inputs, attributes))
        done = subprocess.run(
            [plugin_host(headers), plugin, request, result],
            env={**os.environ, "LD_LIBRARY_PATH": str(host_driver(op))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr)
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        return Ran(
            read_result(result.read_bytes(), inputs[0].dtype),
            said["formats"].split(" "),
            int(said["workspace"]),
            said["timing"],
            re.findall(r"^launch (\w+)", done.stderr, re.MULTILINE),
        )

    return run


def pack(inputs, attributes):
    packed = struct.pack("<I", len(attributes))
    for name, values in attributes.items():
        packed += struct.pack("<I", len(name)) + name.encode()
        packed += struct.pack(f"<I{len(values)}i", len(values), *values)
    packed += struct.pack("<I", len(inputs))
    for array in inputs:
        packed += struct.pack(f"<II{array.ndim}q", TYPES[array.dtype], array.ndim, *array.shape)
        packed += array.tobytes()
    return packed


def read_result(data, dtype):
    (rank,) = struct.unpack_from("<I", data)
    shape = struct.unpack_from(f"<{rank}q", data, 4)
    return np.frombuffer(data, dtype, offset=4 + 8 * rank).reshape(shape)


def assert_near(result, wanted, dtype):
    assert result.shape == wanted.shape
    error = np.abs(result.astype(np.float64) - wanted).max() / np.abs(wanted).max()
    assert error <= TOLERANCES[dtype]


@with_headers
@each_operator
def test_the_headers_accept_the_sources(op, headers, image):
    for source in plugin_sources(op):
        said = compile_with([
            "g++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
            *plugin_defines(image), "-isystem", str(headers),
            "-isystem", str(find_cuda_include()), str(source),
        ])  # fmt: skip
        assert said == ""


def haar_inputs(rng, shape, dtype):
    return (
        rng.standard_normal(shape).astype(dtype),
        (0.2 * rng.standard_normal((4, 2, 7, 7))).astype(np.float32),
        rng.standard_normal(4).astype(np.float32),
    )


@with_headers
@each_precision
@pytest.mark.parametrize("shape", [(1, 16, 24, 40), (2, 3, 7, 5), (1, 1, 1, 1)])
def test_haar_gate_computes_the_definition(run_plugin, headers, dtype, shape, rng):
    inputs = haar_inputs(rng, shape, dtype)
    ran = run_plugin("haar_gate", headers, *inputs)
    assert_near(ran.output, haar_gate(*inputs), dtype)
    assert ran.launches == [f"irstd_haar_gate_{'f32' if dtype == np.float32 else 'f16'}"]
    assert ran.workspace_bytes == 0


@with_headers
def test_weights_stay_float32_in_half_precision(run_plugin, headers, rng):
    ran = run_plugin("haar_gate", headers, *haar_inputs(rng, (1, 1, 4, 4), np.float16))
    assert ran.formats == ["fh", "f", "f", "h"]


@with_headers
@pytest.mark.parametrize(
    ("position", "shape", "said"),
    [
        (0, (4, 4, 4), r"x is not \(N, C, H, W\)"),
        (0, (1, 4, 0, 4), r"x is not \(N, C, H, W\), all at least 1"),
        (1, (4, 2, 5, 5), r"weight is not \(4, 2, 7, 7\)"),
        (2, (3,), r"bias is not \(4\)"),
    ],
)
def test_haar_gate_refuses_other_shapes(run_plugin, headers, position, shape, said, rng):
    inputs = list(haar_inputs(rng, (1, 4, 4, 4), np.float32))
    inputs[position] = np.zeros(shape, np.float32)
    with pytest.raises(Refused, match=f"irstd::HaarGate: {said}"):
        run_plugin("haar_gate", headers, *inputs)


LEVEL_HW, QUERY_HW = [6, 8, 3, 4], [3, 4]


def attention_inputs(rng, dtype, heads=2, d_head=8, points=4, images=1):
    positions, queries, levels = 6 * 8 + 3 * 4, 3 * 4, 2
    shape = (images, queries, heads, levels, points)
    return (
        rng.standard_normal((images, positions, heads, d_head)).astype(dtype),
        (2 * rng.standard_normal((*shape, 2))).astype(dtype),
        rng.standard_normal(shape).astype(dtype),
    )


@with_headers
@each_precision
@pytest.mark.parametrize(
    "shape",
    [{}, {"d_head": 1}, {"d_head": 32, "heads": 8}, {"points": 1}, {"images": 2, "heads": 1}],
    ids=str,
)
def test_ms_deform_attn_computes_the_definition(run_plugin, headers, dtype, shape, rng):
    inputs = attention_inputs(rng, dtype, **shape)
    attributes = {"level_hw": LEVEL_HW, "query_hw": QUERY_HW}
    ran = run_plugin("ms_deform_attn", headers, *inputs, **attributes)
    assert_near(ran.output, ms_deform_attn(*inputs, **attributes), dtype)
    pad, gather = ran.launches
    kind = "f32" if dtype == np.float32 else "f16"
    assert pad.startswith("irstd_ms_deform_attn_pad")
    assert gather.startswith(f"irstd_ms_deform_attn_{kind}_d{shape.get('d_head', 8)}")
    assert ran.workspace_bytes > inputs[0].nbytes
    assert ran.timing.endswith(":4:6:8:3:4:2:3:4")


@with_headers
def test_ms_deform_attn_takes_float32_reference_points(run_plugin, headers, rng):
    inputs = (*attention_inputs(rng, np.float16), rng.random((1, 12, 2)).astype(np.float32))
    ran = run_plugin("ms_deform_attn", headers, *inputs, level_hw=LEVEL_HW)
    assert_near(ran.output, ms_deform_attn(*inputs, level_hw=LEVEL_HW), np.float16)
    assert ran.formats == ["fh", "h", "h", "f", "h"]


@with_headers
@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "level_hw is not H0, W0 to H3, W3"),
        ({"level_hw": [6, 8, 3]}, "level_hw is not H0, W0 to H3, W3"),
        ({"level_hw": [6, 0, 3, 4]}, "level_hw has a side below 1"),
        ({"level_hw": list(range(1, 11))}, "no list of at most 8 whole numbers"),
        ({"level_hw": LEVEL_HW, "query_hw": [12]}, "query_hw is neither Hq, Wq nor empty"),
        ({"level_hw": LEVEL_HW, "query_hw": [12, -1]}, "query_hw has a side below 1"),
        ({"level_hw": LEVEL_HW}, "without reference_points query_hw must be Hq, Wq"),
        ({"level_hw": LEVEL_HW, "query_hw": [3, 5]}, "without reference_points query_hw must be"),
        ({"level_hw": [6, 8, 3, 5], "query_hw": QUERY_HW}, "not as many positions as level_hw"),
        ({"level_hw": [60, 1], "query_hw": QUERY_HW}, "offsets is not .* of value and level_hw"),
        ({"level_hw": [50000] * 4, "query_hw": QUERY_HW}, "not as many positions as level_hw"),
    ],
    ids=str,
)
def test_ms_deform_attn_refuses_other_attributes(run_plugin, headers, attributes, said, rng):
    with pytest.raises(Refused, match=f"irstd::MSDeformAttn: .*{said}"):
        run_plugin("ms_deform_attn", headers, *attention_inputs(rng, np.float32), **attributes)


@with_headers
@pytest.mark.parametrize(
    ("shape", "said"),
    [({"d_head": 4}, "D is not 1, 8, 16 or 32"), ({"points": 9}, "P is more than 8"),
     ({"heads": 80, "d_head": 32}, "too many heads")],
    ids=str,
)  # fmt: skip
def test_ms_deform_attn_refuses_other_shapes(run_plugin, headers, shape, said, rng):
    inputs = attention_inputs(rng, np.float32, **shape)
    with pytest.raises(Refused, match=f"irstd::MSDeformAttn: {said}"):
        run_plugin("ms_deform_attn", headers, *inputs, level_hw=LEVEL_HW, query_hw=QUERY_HW)


def split_inputs(rng, shape, dtype):
    channels = shape[1]
    return (
        (rng.standard_normal(shape) + 1).astype(dtype),
        rng.uniform(0.05, 0.4, channels).astype(np.float32),
        (0.2 * rng.standard_normal((2, 2, 7, 7))).astype(np.float32),
        rng.standard_normal(2).astype(np.float32),
        rng.uniform(0.5, 1.5, (2, channels)).astype(np.float32),
    )


@with_headers
@each_precision
@pytest.mark.parametrize(
    ("shape", "kernels"),
    [
        ((2, 3, 32, 64), ["whole", "gate"]),
        ((1, 1, 256, 128), ["rows", "columns", "rows_back", "gate"]),
    ],
)
def test_spectral_split_computes_the_definition(run_plugin, headers, dtype, shape, kernels, rng):
    inputs = split_inputs(rng, shape, dtype)
    ran = run_plugin("spectral_split", headers, *inputs)
    assert_near(ran.output, spectral_split(*inputs), dtype)
    kind = "f32" if dtype == np.float32 else "f16"
    assert ran.launches == [f"irstd_spectral_split_{kernel}_{kind}" for kernel in kernels]
    assert ran.workspace_bytes == inputs[0].nbytes


@with_headers
@pytest.mark.parametrize(
    ("position", "shape", "said"),
    [
        (0, (1, 4, 32), "x is not"), (0, (1, 4, 32, 48), "no power of two from 32 to 512"),
        (0, (1, 4, 16, 32), "no power of two from 32 to 512"), (1, (3,), "cutoff is not"),
        (2, (2, 2, 7, 5), "gate_weight is not"), (3, (4,), "gate_bias is not"),
        (4, (4, 2), "gamma is not"),
    ],
)  # fmt: skip
def test_spectral_split_refuses_other_shapes(run_plugin, headers, position, shape, said, rng):
    inputs = list(split_inputs(rng, (1, 4, 32, 32), np.float32))
    inputs[position] = np.zeros(shape, np.float32)
    with pytest.raises(Refused, match=f"irstd::SpectralSplit: .*{said}"):
        run_plugin("spectral_split", headers, *inputs)


@with_headers
def test_another_number_of_inputs_is_refused(run_plugin, headers, rng):
    with pytest.raises(Refused, match="wrong number of inputs"):
        run_plugin("haar_gate", headers, *haar_inputs(rng, (1, 4, 4, 4), np.float32)[:2])


@with_headers
def test_kernels_that_do_not_load_are_named(run_plugin, headers, tmp_path, rng):
    (tmp_path / "other").write_bytes(b"of another architecture")
    inputs = haar_inputs(rng, (1, 4, 4, 4), np.float32)
    with pytest.raises(Refused, match="the kernels do not load: device kernel image is invalid"):
        run_plugin("haar_gate", headers, *inputs, image=tmp_path / "other")
