"""The CUDA kernels on the CPU: the very .cu files as C++ under sanitizers (tests/cuda_host).

    def test_doubles(host_kernel, rng):
        x, out = rng.random(100, np.float32), np.full(100, np.nan, np.float32)
        host_kernel("double", "double_f32", (1,), (128,), x, out, np.int32(100))
        np.testing.assert_allclose(out, 2 * x)

A kernel of `runtime/kernels/double/double.cu` runs with one block of 128 threads. Arrays are global
memory, pointers of the kernel, with exactly as many bytes as the array has; what the kernel wrote
is copied back into them (read-only ones stay). Numpy scalars and structures of ctypes are passed by
value, with exactly the parameter's size; None is a null pointer. Halves are arrays of float16.
`shared_bytes=` is the dynamic shared memory, which is declared in the .cu file itself; as in the
static one, every block finds NaN there.

`sanitizer=` is "address" (with undefined behaviour; the default), "thread" (races on shared memory)
or None. What one finds is raised as KernelFault with its report. Every call also runs the blocks
and threads in the opposite order and compares: `any_order=False` where sums of atomics may differ.

`host_device(sanitizer)` is a Device of irstd.runtime.kernels.cuda.driver whose launches run there:
for tests of an operator's `cuda.py`, from the arrays of its caller to the kernel and back.
"""

import contextlib
import functools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from irstd.errors import DeviceError, MissingDependency
from irstd.files import cache_dir, sha256_hex
from irstd.runtime.kernels.cuda.bindings import Properties
from irstd.runtime.kernels.cuda.compiler import included
from irstd.runtime.kernels.cuda.driver import Device, open_device
from irstd.runtime.kernels.cuda.images import Image
from irstd.runtime.kernels.cuda.launch import Launch, Pointer, pack_arguments
from irstd.runtime.kernels.cuda.toolchain import find_nvcc, find_nvrtc

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "runtime" / "kernels"
HOST = ROOT / "tests" / "cuda_host"
SANITIZERS = {
    None: (),
    # What kernels can do wrong, by calls: all of `undefined`, inline, compiles twice as long.
    "address": (
        "-fsanitize=address,alignment,bounds,shift,signed-integer-overflow",
        "-fsanitize=integer-divide-by-zero,unreachable,float-cast-overflow",
        "-fsanitize-sections=irstd_shared", "-fno-sanitize-recover=all",
        "--param=asan-instrumentation-with-call-threshold=0",
    ),
    "thread": ("-fsanitize=thread",),
}  # fmt: skip
# Warnings are nvcc's business.
FLAGS = ("-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-w")
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
def image(tmp_path_factory):
    """Stands for compiled kernels; tests/tensorrt_host takes no other."""
    path = tmp_path_factory.mktemp("image") / "kernels.fatbin"
    path.write_bytes(b"image of a test")
    return path


@pytest.fixture(scope="session")
def host_driver() -> Callable[[str], Path]:
    """Return `build_driver`, or skip without a C++ compiler."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels for the CPU with")
    return build_driver


@pytest.fixture
def require_nvcc(require: Callable[[str, str], None]) -> None:
    """Skip without nvcc of CUDA 13, or fail where IRSTD_REQUIRE asks for it."""
    try:
        find_nvcc()
    except MissingDependency as error:
        require("nvcc", str(error))


@pytest.fixture
def require_nvrtc(require: Callable[[str, str], None]) -> None:
    """Skip without NVRTC of CUDA 12, or fail where IRSTD_REQUIRE asks for it."""
    try:
        find_nvrtc()
    except MissingDependency as error:
        require("nvrtc", str(error))


@pytest.fixture(scope="session")
def host_kernel() -> HostKernel:
    """Return `run_on_host`, or skip without a C++ compiler."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels for the CPU with")
    return run_on_host


@pytest.fixture
def host_device(host_kernel: HostKernel) -> Iterator[Callable[..., Device]]:
    """Return a function (sanitizer) that opens a device whose kernels run in the harness."""
    with contextlib.ExitStack() as stack:

        def open_host(sanitizer: str | None = "address") -> Device:
            binding = HostBinding(sanitizer)
            return stack.enter_context(
                open_device(0, binding, lambda op, *_: Image(op.encode(), "host"))
            )

        yield open_host


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
    arrays = list({id(a): a for a in arguments if isinstance(a, np.ndarray)}.values())
    # Far apart: an index outside an array does not land in the next.
    addresses = {id(array): (i + 1) << 40 for i, array in enumerate(arrays)}
    parameters = pack_arguments(
        [Pointer(addresses[id(a)]) if isinstance(a, np.ndarray) else a for a in arguments]
    )
    launch = Launch(_three(grid), _three(block), shared_bytes)
    memory = {addresses[id(array)]: array for array in arrays}
    run_packed(op, kernel, launch, parameters, memory, sanitizer, any_order)


def run_packed(
    op: str | Path,
    kernel: str,
    launch: Launch,
    parameters: bytes,
    memory: Mapping[int, np.ndarray],
    sanitizer: str | None,
    any_order: bool,
) -> None:
    """Launch a kernel with a parameter buffer as the driver takes it, and memory by address."""
    program = build_program(op, sanitizer)
    with tempfile.TemporaryDirectory() as folder:
        request, result = Path(folder, "request"), Path(folder, "result")
        with request.open("wb") as file:
            file.write(struct.pack("<I", len(kernel)) + kernel.encode())
            file.write(bytes(launch) + struct.pack("<2I", any_order, len(memory)))
            for address, array in memory.items():
                assert array.flags.c_contiguous
                file.write(struct.pack("<2Q", address, array.nbytes) + array.tobytes())
            file.write(struct.pack("<I", len(parameters)) + parameters)
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
    for array in memory.values():
        if array.flags.writeable:
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(
                written, np.uint8, array.nbytes, start
            )
        start += array.nbytes


class HostBinding:
    """A driver whose device is the host harness: what irstd.runtime.kernels.cuda launches on it
    runs under a sanitizer. The subset of Binding that needs no clock."""

    name = "host"

    def __init__(self, sanitizer: str | None) -> None:
        self._sanitizer = sanitizer
        self._memory: dict[int, np.ndarray] = {}

    def driver_version(self) -> int:
        return 13000

    def open(self, index: int) -> object:
        return index

    def close(self, context: object) -> None:
        assert not self._memory, "memory was not freed"

    def properties(self, index: int) -> Properties:
        return Properties("host harness", 87, 16, 8 << 30, 4 << 20, shares_memory=True)

    def current(self, context: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def load(self, image: bytes) -> object:
        return image.decode()

    def function(self, module: str, kernel: str) -> object:
        return module, kernel

    def allow_shared(self, function: object, nbytes: int) -> None:
        if nbytes > 99 << 10:
            raise DeviceError(f"{nbytes} bytes of shared memory; sm_86 has 99 KiB")

    def launch(
        self, function: tuple[str, str], launch: Launch, parameters: bytes, stream: int
    ) -> None:
        run_packed(*function, launch, parameters, self._memory, self._sanitizer, True)

    def allocate(self, nbytes: int) -> int:
        address = (len(self._memory) + 1) << 40
        while address in self._memory:
            address += 1 << 40
        self._memory[address] = np.full(nbytes, 0xFF, np.uint8)
        return address

    def free(self, address: int) -> None:
        del self._memory[address]

    def copy_in(self, address: int, array: np.ndarray) -> None:
        self._memory[address][:] = np.frombuffer(array.tobytes(), np.uint8)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self._memory[address]

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        self._memory[address][:nbytes] = byte

    def stream(self, *, is_apart: bool = False) -> int:
        return 7

    def free_stream(self, stream: int) -> None:
        assert stream == 7

    def synchronize(self, stream: int) -> None:
        pass


def build_program(op: str | Path, sanitizer: str | None) -> Path:
    """Compile one .cu file as a CPU program, or find it in the cache.

    The threads of a block (fibers.cpp) are compiled without the sanitizer: they are not watched.
    """
    source = Path(op) if Path(op).suffix == ".cu" else KERNELS / op / f"{op}.cu"
    key = sha256_hex(
        "\0".join(
            [_compiler(), *FLAGS, *SANITIZERS[sanitizer]]
            + [sha256_hex(path.read_bytes()) for path in _content(source)]
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
    content = [sha256_hex(path.read_bytes()) for path in [main, *_content(source)]]
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


def _content(source: Path) -> list[Path]:
    """Return what a program is made of: the .cu file, what it includes, and the harness."""
    harness = [*HOST.glob("*.hpp"), HOST / "fibers.cpp", *HOST.glob("include/*")]
    return [*included(source), *sorted(harness)]


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
