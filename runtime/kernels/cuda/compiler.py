"""Compiles a kernel's .cu file ahead of time for every architecture, and keeps it by content.

Two sets, because a driver of CUDA 12 (JetPack 6) loads nothing that CUDA 13 has made:

    build_fatbin   nvcc 13: sm_86, 87, 89, 90, 110, 120, and PTX for what comes after them
    build_cubins   NVRTC 12: sm_86, 87, 89, 90, one file each
"""

import re
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import BuildError
from irstd.files import cache_dir, sha256_hex
from irstd.runtime.kernels.compiling import compiled, keep, version_of
from irstd.runtime.kernels.cuda.nvrtc import Nvrtc
from irstd.runtime.kernels.cuda.toolchain import find_nvcc, find_nvrtc

FOLDER = Path(__file__).resolve().parent.parent
ARCHITECTURES = (86, 87, 89, 90, 110, 120)  # ten times the compute capability
PTX_ARCHITECTURE = 86  # the lowest: a driver compiles it for anything newer
CUDA_12_ARCHITECTURES = (86, 87, 89, 90)
# constexpr functions of the shared headers are called on the device too.
FLAGS = ("-std=c++17", "--expt-relaxed-constexpr")
_KEY_DIGITS = 32


def build_fatbin(op: str) -> Path:
    """Compile an operator for every architecture into one file, or find it in the cache.

    What ptxas says of registers and spills is beside it, as `.ptxas`.

    Args:
        op: A folder of `runtime/kernels` with an `<op>.cu`.

    Raises:
        MissingDependency: No nvcc of CUDA 13.
        BuildError: It refuses the source, there is no source, or the cache cannot be written.
    """
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    targets.append(f"-gencode=arch=compute_{PTX_ARCHITECTURE},code=compute_{PTX_ARCHITECTURE}")
    return _build_with_nvcc(op, ".fatbin", ["-fatbin", "-Xptxas=-v", "--threads=0", *targets])


def build_cubin(op: str, architecture: int) -> Path:
    """Compile an operator for one architecture, as `build_fatbin` does: for a disassembler."""
    return _build_with_nvcc(
        op, f".sm_{architecture}.cubin", ["-cubin", "-Xptxas=-v", f"-arch=sm_{architecture}"]
    )


def build_ptx(op: str, architecture: int = PTX_ARCHITECTURE) -> Path:
    """Compile an operator to PTX, as `build_fatbin` does: for engines that embed it."""
    return _build_with_nvcc(
        op, f".compute_{architecture}.ptx", ["-ptx", f"-arch=compute_{architecture}"]
    )


def build_cubins(op: str, architectures: Sequence[int] = CUDA_12_ARCHITECTURES) -> dict[int, Path]:
    """Compile an operator for drivers of CUDA 12, or find it in the cache.

    Args:
        op: A folder of `runtime/kernels` with an `<op>.cu`.
        architectures: Which ones.

    Returns:
        A cubin for each.

    Raises:
        MissingDependency: No NVRTC of CUDA 12 with its headers.
        BuildError: It refuses the source, there is no source, or the cache cannot be written.
    """
    source = source_of(op)
    library, include = find_nvrtc()
    compiler = Nvrtc(library)
    # Functions without a mark, of headers that the host shares, are for the device here.
    options = ["-std=c++17", "-default-device"]
    folders = [source.parent, FOLDER, include]
    built = {}
    for architecture in architectures:
        path = _cache_path(source, f".cuda12.sm_{architecture}.cubin", [compiler.version, *options])
        if not path.is_file():
            target = [*options, f"-arch=sm_{architecture}", *(f"-I{folder}" for folder in folders)]
            keep(path, compiler.cubin(source, target))
        built[architecture] = path
    return built


def source_of(op: str) -> Path:
    """Return the .cu file of an operator.

    Raises:
        BuildError: There is none; names those there are.
    """
    path = FOLDER / op / f"{op}.cu"
    if not path.is_file():
        names = sorted(p.stem for p in FOLDER.glob("*/*.cu") if p.stem == p.parent.name)
        raise BuildError(f"no CUDA kernel {op!r}; there are: {', '.join(names) or 'none'}")
    return path


def _build_with_nvcc(op: str, suffix: str, flags: Sequence[str]) -> Path:
    source, nvcc = source_of(op), find_nvcc()
    path = _cache_path(source, suffix, [version_of(*nvcc), *nvcc[1:], *FLAGS, *flags])
    if not path.is_file():
        made, said = compiled([*nvcc, *FLAGS, *flags, f"-I{FOLDER}", str(source)])
        keep(path.with_suffix(".ptxas"), said.encode())
        keep(path, made)
    return path


def included(source: Path) -> list[Path]:
    """Return a source and the files of this package that it includes, also through others."""
    found: list[Path] = []
    ahead = [source]
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found.append(path)
        for name in re.findall(
            r'^\s*#\s*include\s+"([^"]+)"', path.read_text("utf-8"), re.MULTILINE
        ):
            places = [(folder / name).resolve() for folder in (path.parent, FOLDER)]
            ahead += [place for place in places if place.is_file()][:1]
    return sorted(found)


def _cache_path(source: Path, suffix: str, parts: Sequence[str]) -> Path:
    """Return the file that holds what these flags make of the source and its headers."""
    content = [sha256_hex(path.read_bytes()) for path in included(source)]
    key = sha256_hex("\0".join([*parts, *content]).encode())[:_KEY_DIGITS]
    return cache_dir() / "cuda" / f"{source.stem}-{key}{suffix}"
