"""The CPU kernels as one shared library, compiled where it is used and kept by content."""

import ctypes
import functools
import os
import platform
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import BuildError, MissingDependency
from irstd.files import cache_dir, sha256_hex
from irstd.runtime.kernels.compiling import compiled, keep, version_of

FOLDER = Path(__file__).parent
# What lets loops with exponentials and maxima vectorise. Infinities and NaN keep their meaning:
# kernels look for them.
CPU_FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra",
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast",
)  # fmt: skip
_KEY_DIGITS = 32
_INSTALL = "install g++ 10 or later (Debian, Ubuntu, JetPack: apt install g++), or set CXX"


@functools.cache
def cpu_library() -> ctypes.CDLL:
    """Load the library, compiling it first if this machine has not yet.

    Raises:
        MissingDependency: No C++ compiler.
        BuildError: The compiler refuses the sources, or the library does not load.
    """
    path = build_cpu_library()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path}: does not load ({error}); delete it and try again") from error


def build_cpu_library() -> Path:
    """Return the path of the library, compiling it first if this machine has not yet.

    Raises:
        MissingDependency: No C++ compiler.
        BuildError: The compiler refuses the sources, or the cache cannot be written.
    """
    sources = sorted([*FOLDER.glob("*/*_cpu.cpp"), *FOLDER.glob("*/*_launch.cpp")])
    return build_shared_library("kernels", sources, CPU_FLAGS)


def build_shared_library(
    name: str, sources: Sequence[Path], flags: Sequence[str], libraries: Sequence[str] = ()
) -> Path:
    """Compile C++ sources into a shared library in the cache, or find it there.

    Args:
        name: Stem of the file.
        sources: Files to compile. All headers in this package count as their content too.
        flags: Of the compiler.
        libraries: Flags of the linker, after the sources.

    Returns:
        Its path, which names compiler, flags and sources by their hash.

    Raises:
        MissingDependency: No C++ compiler.
        BuildError: The compiler refuses the sources, or the cache cannot be written.
    """
    compiler = cxx()
    headers = sorted(FOLDER.rglob("*.hpp"))
    content = "".join(sha256_hex(path.read_bytes()) for path in [*headers, *sources])
    parts = [version_of(*compiler), *compiler[1:], platform.machine(), *flags, *libraries, content]
    key = sha256_hex("\0".join(parts).encode())
    path = cache_dir() / "kernels" / f"{name}-{key[:_KEY_DIGITS]}.so"
    if not path.is_file():
        made, _ = compiled([*compiler, *flags, *map(str, sources), *libraries])
        keep(path, made)
    return path


def cxx() -> list[str]:
    """Return the C++ compiler as the start of a command: `$CXX`, else g++ or c++.

    Raises:
        MissingDependency: There is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [["g++"], ["c++"]]:
        if shutil.which(command[0]):
            return command
    raise MissingDependency(f"no C++ compiler ({shlex.join(asked) or 'g++'}); {_INSTALL}")
