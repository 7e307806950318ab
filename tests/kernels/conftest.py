"""The CUDA kernels on the CPU: the very .cu files as C++ under sanitizers (tests/cuda_host).

    def test_doubles(host_kernel, rng):
        x, out = rng.random(100, np.float32), np.full(100, np.nan, np.float32)
        host_kernel("double", "double_f32", (1,), (128,), x, out, np.int32(100))
        np.testing.assert_allclose(out, 2 * x)

A kernel of `runtime/kernels/double/double.cu` runs with one block of 128 threads. Arrays are global
memory, pointers of the kernel, with exactly as many bytes as the array has; what the kernel wrote
is copied back into them (read-only ones stay). Numpy scalars and `bytes` (a struct) are passed by
value and must have the parameter's size; None is a null pointer. Halves are arrays of float16.
`shared_bytes=` is the dynamic shared memory, which is declared in the .cu file itself; as in the
static one, every block finds NaN there.

`sanitizer=` is "address" (with undefined behaviour; the default), "thread" (races on shared memory)
or None. What one finds is raised as KernelFault with its report. Every call also runs the blocks
and threads in the opposite order and compares: `any_order=False` where sums of atomics may differ.
"""

import functools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from irstd.files import cache_dir, sha256_hex

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "runtime" / "kernels"
HOST = ROOT / "tests" / "cuda_host"
SANITIZERS = {
    None: (),
    "address": (
        "-fsanitize=address,undefined", "-fsanitize=float-cast-overflow",
        "-fsanitize-sections=irstd_shared", "-fno-sanitize-recover=all",
    ),
    "thread": ("-fsanitize=thread",),
}  # fmt: skip
FLAGS = (
    "-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror",
    "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-unused-function",
)  # fmt: skip
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=3",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=3:report_thread_leaks=0",
}
# `extern __shared__ T name[];`, which C++ cannot say.
DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+((?:__align__|alignas)\s*\([^)]*\)\s*)?"
    r"([\w:<> ]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
TIMEOUT_S = 300


class KernelFault(Exception):
    """A kernel did what it must not; the message is the report."""


HostKernel = Callable[..., None]


@pytest.fixture(scope="session")
def host_driver() -> Callable[[str], Path]:
    """Return `build_driver`, or skip without a C++ compiler."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels for the CPU with")
    return build_driver


@pytest.fixture(scope="session")
def host_kernel() -> HostKernel:
    """Return `run_on_host`, or skip without a C++ compiler."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels for the CPU with")
    return run_on_host


def run_on_host(
    op: str | Path,
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    *arguments: object,
    shared_bytes: int = 0,
    sanitizer: str | None = "address",
    any_order: bool = True,
) -> None:
    """Launch a kernel of an operator, or of any .cu file, as the docstring above says."""
    program = build_program(op, sanitizer)
    buffers, packed = pack_arguments(arguments)
    header = struct.pack("<I", len(kernel)) + kernel.encode()
    header += struct.pack("<8I", *_three(grid), *_three(block), shared_bytes, any_order)
    with tempfile.TemporaryDirectory() as folder:
        request, result = Path(folder, "request"), Path(folder, "result")
        with request.open("wb") as file:
            file.write(header + struct.pack("<I", len(buffers)))
            for array in buffers:
                file.write(struct.pack("<Q", array.nbytes) + array.tobytes())
            file.write(packed)
        done = subprocess.run(
            [program, request, result],
            env={**os.environ, **OPTIONS},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise KernelFault(done.stderr.strip() or f"ended with status {done.returncode}")
        written = result.read_bytes()
    start = 0
    for array in buffers:
        if array.flags.writeable:
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(
                written, np.uint8, array.nbytes, start
            )
        start += array.nbytes


def pack_arguments(arguments: Sequence[object]) -> tuple[list[np.ndarray], bytes]:
    """Return the arrays, each once, and the arguments in the form that tests/cuda_host reads."""
    buffers: list[np.ndarray] = []
    packed = struct.pack("<I", len(arguments))
    for argument in arguments:
        if argument is None:
            packed += struct.pack("<IQQ", 2, 0, 0)
        elif isinstance(argument, np.ndarray):
            if not argument.flags.c_contiguous:
                raise TypeError("an array that is not contiguous")
            known = [i for i, array in enumerate(buffers) if array is argument]
            packed += struct.pack("<IQQ", 1, known[0] if known else len(buffers), 0)
            buffers += [] if known else [argument]
        elif isinstance(argument, np.generic | bytes):
            value = argument if isinstance(argument, bytes) else argument.tobytes()
            packed += struct.pack("<IQQ", 0, 0, len(value)) + value
        else:
            raise TypeError(f"{argument!r}: pass an array, a numpy scalar, bytes or None")
    return buffers, packed


def build_program(op: str | Path, sanitizer: str | None) -> Path:
    """Compile one .cu file as a CPU program, or find it in the cache.

    The threads of a block (fibers.cpp) are compiled without the sanitizer: they are not watched.
    """
    source = op if isinstance(op, Path) else KERNELS / op / f"{op}.cu"
    key = sha256_hex(
        "\0".join(
            [_compiler(), *FLAGS, *SANITIZERS[sanitizer]]
            + [sha256_hex(path.read_bytes()) for path in [source, *_headers(source)]]
        ).encode()
    )
    program = cache_dir() / "cuda_host" / f"{source.stem}-{sanitizer}-{key[:32]}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        unit, fibers, linked = (Path(folder, name) for name in ("unit.cpp", "fibers.o", "program"))
        unit.write_text(_unit(source))
        _compile("-O2", "-c", HOST / "fibers.cpp", "-o", fibers)
        include = ("-I", HOST / "include", "-I", KERNELS, "-iquote", source.parent)
        _compile(*SANITIZERS[sanitizer], *include, unit, fibers, "-ldl", "-o", linked)
        os.replace(linked, program)
    return program


def build_driver(op: str) -> Path:
    """Compile the driver of tests/tensorrt_host around an operator's kernels, or find it cached.

    Returns:
        The folder that holds it, as libcuda.so.1.
    """
    source, main = KERNELS / op / f"{op}.cu", ROOT / "tests" / "tensorrt_host" / "driver.hpp"
    content = [sha256_hex(path.read_bytes()) for path in [source, main, *_headers(source)]]
    key = sha256_hex("\0".join([_compiler(), *FLAGS, *content]).encode())
    driver = cache_dir() / "cuda_host" / f"{op}-driver-{key[:32]}" / "libcuda.so.1"
    if driver.is_file():
        return driver.parent
    driver.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=driver.parent) as folder:
        unit, linked = Path(folder, "unit.cpp"), Path(folder, "linked")
        unit.write_text(_unit(source, main))
        include = ("-I", HOST / "include", "-I", KERNELS, "-iquote", source.parent)
        _compile("-O2", "-shared", "-fPIC", *include, unit, HOST / "fibers.cpp", "-o", linked)
        os.replace(linked, driver)
    return driver.parent


def _unit(source: Path, main: Path = HOST / "main.hpp") -> str:
    """Return the C++ of a whole program around a .cu file, or what another header makes of it."""
    text = DYNAMIC_SHARED.sub(
        r"\2* const \3 = static_cast<\2*>(irstd_host::dynamic_shared());", source.read_text("utf-8")
    )
    start = f'#include "{HOST}/cuda_host.hpp"\n#line 1 "{source}"\n{text}\n'
    entries = "".join(
        f'    {{"{name}", [](const Request& r, bool reverse) {{ run({name}, r, reverse); }}}},\n'
        for name in _kernel_names(source)
    )
    return (
        f'{start}#line 1 "entries"\n#include "{main}"\nnamespace irstd_host {{\n'
        f"const Entry ENTRIES[] = {{\n{entries}    {{nullptr, nullptr}}}};\n}}\n"
    )


def _kernel_names(source: Path) -> list[str]:
    """Return the kernels of a file, those that macros write included."""
    include = ["-I", HOST / "include", "-I", KERNELS, "-include", HOST / "cuda_host.hpp"]
    command = ["g++", "-E", "-P", "-x", "c++", "-std=c++17", "-D__global__=IRSTD_GLOBAL"]
    done = subprocess.run([*command, *include, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"IRSTD_GLOBAL\s+void\s+(\w+)\s*\(", done.stdout)
    assert names, f"{source}: no kernel found"
    return names


def _compile(*arguments: object) -> None:
    command = ["g++", *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@functools.cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def _headers(source: Path) -> list[Path]:
    """Return what a .cu file may include, and the harness."""
    folders = [source.parent.glob("*.hpp"), KERNELS.glob("*.hpp")]
    return sorted(
        path for found in [*folders, HOST.glob("*.?pp"), HOST.glob("include/*")] for path in found
    )


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
