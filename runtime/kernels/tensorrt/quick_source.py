"""CUDA sources of nodes whose kernels need more than whole numbers: the rest is compiled in.

TensorRT passes no structure and no float to a kernel. What `ms_deform_attn_launch.hpp` computes for a
launch becomes a constant of a kernel made for one shape.
"""

import ctypes
import os
import tempfile
from pathlib import Path

from irstd.errors import BuildError
from irstd.files import cache_dir, sha256_hex, write_atomic
from irstd.runtime.kernels.cpu_library import compile_with
from irstd.runtime.kernels.cuda.compiler import FLAGS, FOLDER
from irstd.runtime.kernels.cuda.toolchain import find_nvcc
from irstd.runtime.kernels.ms_deform_attn.cuda import Plan
from irstd.runtime.kernels.ms_deform_attn.shapes import MAX_LEVELS

PAD_KERNEL, GATHER_KERNEL = "irstd_quick_pad", "irstd_quick_gather"
_LEVEL_FLOATS, _LEVEL_INTS = 5, 2  # of ms_deform_attn::Geometry
_KEY_DIGITS = 32


def pad_source(plan: Plan, d_head: int, half: bool) -> str:
    """Return the kernel from (value) to (records)."""
    words = ", ".join(map(str, plan.pad_geometry.words))
    one, zero = ("__half", "__float2half_rn(0.0f)") if half else ("float", "0.0f")
    part, written = ("uint4", "uint4") if d_head > 1 else (one, "void")
    call = (
        "ms::pad(value, uint4{}, records, GEOMETRY, [](const auto& at) { return at(0, 0); });"
        if d_head > 1
        else f"ms::pad_quads(value, {zero}, records, GEOMETRY);"
    )
    return f"""#include <cuda_fp16.h>
#include "ms_deform_attn/ms_deform_attn_pad.hpp"
namespace ms = irstd::ms_deform_attn;
__constant__ const ms::PadGeometry GEOMETRY = {{{words}}};
extern "C" __global__ void {PAD_KERNEL}(const {part}* value, {written}* records) {{
    {call}
}}
"""


def gather_source(plan: Plan, d_head: int, half: bool, has_reference_points: bool) -> str:
    """Return the kernel from (records, offsets, logits[, reference_points]) to (out)."""
    kind, one, two = ("F16", "__half", "__half2") if half else ("F32", "float", "float2")
    levels, points = _levels_and_points(plan)
    unrolled = plan.gather_kernel.decode().endswith("_p4")
    function = (
        f"ms::gather<ms::Number::{kind}, {d_head}, {levels}, {points}>"
        if unrolled
        else f"ms::gather_any<ms::Number::{kind}, {d_head}>"
    )
    bounds = "ms::BLOCK_THREADS"
    if unrolled:
        bounds += f", ms::blocks_per_multiprocessor(ms::Number::{kind}, {d_head}, {levels})"
    given = "const float2* reference_points, " if has_reference_points else ""
    passed = "reference_points" if has_reference_points else "static_cast<const float2*>(nullptr)"
    return f"""#include "ms_deform_attn/ms_deform_attn_device.hpp"
namespace ms = irstd::ms_deform_attn;
__constant__ const ms::Geometry GEOMETRY = {{{_geometry(plan)}}};
extern "C" __global__ void __launch_bounds__({bounds}) {GATHER_KERNEL}(
    const char* records, const {two}* offsets, const {one}* logits, {given}{one}* out) {{
    {function}(
        records, offsets, logits, {passed}, nullptr, nullptr, out, GEOMETRY);
}}
"""


def compile_ptx(stem: str, source: str, architecture: int) -> str:
    """Compile a source to PTX, or find it in the cache.

    Raises:
        MissingDependency: No nvcc of CUDA 13.
        BuildError: It refuses the source, or the cache cannot be written.
    """
    nvcc, flags = find_nvcc(), [*FLAGS, "-ptx", f"-arch=compute_{architecture}", f"-I{FOLDER}"]
    headers = sorted([*FOLDER.glob("*.hpp"), *FOLDER.glob("ms_deform_attn/*.hpp")])
    content = [sha256_hex(path.read_bytes()) for path in headers]
    modified = str(os.stat(nvcc[0]).st_mtime_ns)
    key = sha256_hex("\0".join([*nvcc, modified, *flags, source, *content]).encode())[:_KEY_DIGITS]
    path = cache_dir() / "cuda" / f"{stem}-{key}.ptx"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            unit, output = Path(folder) / "unit.cu", Path(folder) / "unit.ptx"
            unit.write_text(source)
            compile_with([*nvcc, *flags, str(unit), "-o", str(output)])
            try:
                write_atomic(path, output.read_bytes())
            except OSError as error:
                raise BuildError(
                    f"{path}: the cache cannot be written ({error.strerror or error}); "
                    "set IRSTD_CACHE to a folder that can"
                ) from error
    return path.read_text()


def _levels_and_points(plan: Plan) -> tuple[int, int]:
    levels, points = plan.geometry.words[_geometry_levels() : _geometry_levels() + 2]
    return levels, points


def _geometry_levels() -> int:
    return MAX_LEVELS * (_LEVEL_FLOATS + _LEVEL_INTS)


def _geometry(plan: Plan) -> str:
    """Return the words of a Geometry as C++, floats to the last bit."""
    words = list(plan.geometry.words)
    texts = []
    for position, word in enumerate(words):
        level, place = divmod(position, _LEVEL_FLOATS + _LEVEL_INTS)
        is_float = level < MAX_LEVELS and place < _LEVEL_FLOATS
        value = ctypes.c_float.from_buffer_copy(ctypes.c_int32(word)).value
        texts.append(f"{value.hex()}f" if is_float else str(word))
    return ", ".join(texts)
