"""CUDA sources of nodes whose kernels need more than whole numbers: the rest is compiled in.

TensorRT passes no structure and no float to a kernel. What `ms_deform_attn_launch.hpp` computes for
a launch becomes a constant of a kernel made for one shape.
"""

import ctypes
import tempfile
from pathlib import Path

from irstd.files import cache_dir, sha256_hex
from irstd.runtime.kernels.compiling import compiled, keep, version_of
from irstd.runtime.kernels.cuda.compiler import FLAGS, FOLDER
from irstd.runtime.kernels.cuda.toolchain import find_nvcc
from irstd.runtime.kernels.ms_deform_attn.cuda import Plan
from irstd.runtime.kernels.ms_deform_attn.shapes import MAX_LEVELS, Shapes

PAD_KERNEL, GATHER_KERNEL = "irstd_quick_pad", "irstd_quick_gather"
_LEVEL_FLOATS, _LEVEL_INTS = 5, 2  # of ms_deform_attn::Geometry
_KEY_DIGITS = 32


# The kernels of ms_deform_attn.cu as functions that another kernel can call.
_FUNCTIONS = """#include <cuda_fp16.h>
#pragma push_macro("__global__")
#pragma push_macro("__launch_bounds__")
#undef __global__
#undef __launch_bounds__
#define __global__ __device__ __forceinline__
#define __launch_bounds__(...)
#define __grid_constant__
#include "ms_deform_attn/ms_deform_attn.cu"
#pragma pop_macro("__launch_bounds__")
#pragma pop_macro("__global__")
// Whatever a parameter points to.
struct Pointer {
    const void* address;
    template <class T> __device__ __forceinline__ operator T*() const {
        return static_cast<T*>(const_cast<void*>(address));
    }
};
"""


def pad_source(plan: Plan) -> str:
    """Return the kernel from (value) to (records)."""
    words = ", ".join(map(str, plan.pad_geometry.words))
    return f"""{_FUNCTIONS}
__constant__ const ms::PadGeometry GEOMETRY = {{{words}}};
extern "C" __global__ void {PAD_KERNEL}(const void* value, void* records) {{
    {plan.pad_kernel.decode()}(Pointer{{value}}, Pointer{{records}}, GEOMETRY);
}}
"""


def gather_source(plan: Plan, shapes: Shapes, half: bool, has_reference_points: bool) -> str:
    """Return the kernel from (records, offsets, logits[, reference_points]) to (out)."""
    kernel = plan.gather_kernel.decode()
    bounds = "ms::BLOCK_THREADS"
    if kernel.endswith("_p4"):
        number = f"ms::Number::{'F16' if half else 'F32'}, {shapes.d_head}, {shapes.levels}"
        bounds += f", ms::blocks_per_multiprocessor({number})"
    given = "const void* reference_points, " if has_reference_points else ""
    passed = "reference_points" if has_reference_points else "nullptr"
    return f"""{_FUNCTIONS}
__constant__ const ms::Geometry GEOMETRY = {{{_geometry(plan)}}};
extern "C" __global__ void __launch_bounds__({bounds}) {GATHER_KERNEL}(
    const void* records, const void* offsets, const void* logits, {given}void* out) {{
    {kernel}(Pointer{{records}}, Pointer{{offsets}}, Pointer{{logits}}, Pointer{{{passed}}},
             Pointer{{out}}, GEOMETRY);
}}
"""


def compile_ptx(stem: str, source: str, architecture: int) -> str:
    """Compile a source to PTX, or find it in the cache.

    Raises:
        MissingDependency: No nvcc of CUDA 13.
        BuildError: It refuses the source, or the cache cannot be written.
    """
    nvcc, flags = find_nvcc(), [*FLAGS, "-ptx", f"-arch=compute_{architecture}", f"-I{FOLDER}"]
    headers = sorted([*FOLDER.glob("*.hpp"), *FOLDER.glob("ms_deform_attn/*.[hc][pu]*")])
    content = [sha256_hex(path.read_bytes()) for path in headers]
    parts = [version_of(*nvcc), *nvcc[1:], *flags, source, *content]
    key = sha256_hex("\0".join(parts).encode())[:_KEY_DIGITS]
    path = cache_dir() / "cuda" / f"{stem}-{key}.ptx"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / "unit.cu"
            unit.write_text(source)
            made, _ = compiled([*nvcc, *flags, str(unit)])
        keep(path, made)
    return path.read_text()


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
