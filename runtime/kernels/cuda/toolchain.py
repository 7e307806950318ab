"""Finds the compilers of CUDA: the system's, or those that pip installs."""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from irstd.errors import MissingDependency

NVCC_MAJOR = 13
TOOLKIT = Path("/usr/local/cuda")
TOOLKITS = TOOLKIT.parent  # the folder of cuda-12.6 and the like
# What pip installs; the extra `cuda-build` is both.
NVCC_PACKAGES = ("cuda-toolkit[nvcc,cudart,cccl]==13.0.*",)
NVRTC_PACKAGES = ("nvidia-cuda-nvrtc-cu12==12.6.*", "nvidia-cuda-runtime-cu12==12.6.*")


def find_nvcc() -> list[str]:
    """Return nvcc of CUDA 13 as the start of a command.

    `$CUDACXX` if set; else the first of CUDA 13 in PATH, in /usr/local/cuda, and in the packages
    of this Python.

    Raises:
        MissingDependency: There is none; names those of another version.
    """
    if asked := shlex.split(os.environ.get("CUDACXX", "")):
        found = shutil.which(asked[0])
        if not found:
            raise MissingDependency(f"CUDACXX={asked[0]}: no such program; unset it")
        return [found, *asked[1:]]
    others = []
    for program in _nvcc_candidates():
        release = _release(program, program.stat().st_mtime_ns)
        if release.startswith(f"{NVCC_MAJOR}."):
            return [str(program)]
        others.append(f"{program} is of CUDA {release}")
    found = "; ".join(others) or "none in PATH, /usr/local/cuda or this Python's packages"
    raise MissingDependency(f"no nvcc of CUDA {NVCC_MAJOR} ({found}); {_install(NVCC_PACKAGES)}")


def find_nvrtc() -> tuple[Path, Path]:
    """Return the library NVRTC 12 and the folder of the headers that belong to it.

    Of the packages of this Python, else of a system's toolkit of CUDA 12 (as on JetPack 6).

    Raises:
        MissingDependency: One of the two is missing.
    """
    packages = [
        (folder / "lib" / "libnvrtc.so.12", headers / "include")
        for folder in package_folders("cuda_nvrtc")
        for headers in package_folders("cuda_runtime")
    ]
    system = [
        (library, toolkit / "include")
        for toolkit in sorted(TOOLKITS.glob("cuda-12*"), reverse=True)
        for library in toolkit.glob("lib64/libnvrtc.so.12")
    ]
    for library, include in [*packages, *system]:
        if library.is_file() and (include / "cuda_fp16.h").is_file():
            return library, include
    raise MissingDependency(f"no NVRTC of CUDA 12 with its headers; {_install(NVRTC_PACKAGES)}")


def package_folders(name: str) -> list[Path]:
    """Return the folders `nvidia/<name>` among this Python's packages."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [folder for place in places or () if (folder := Path(place) / name).is_dir()]


def _install(packages: Sequence[str]) -> str:
    return "pip install " + " ".join(f'"{package}"' for package in packages)


def _nvcc_candidates() -> Iterator[Path]:
    if in_path := shutil.which("nvcc"):
        yield Path(in_path)
    for folder in (TOOLKIT, *package_folders(f"cu{NVCC_MAJOR}")):
        if os.access(program := folder / "bin" / "nvcc", os.X_OK):
            yield program


@functools.cache
def _release(program: Path, modified_ns: int) -> str:
    """Return "13.0" of an nvcc, and "unknown" of one that does not run."""
    del modified_ns  # a compiler that was replaced is asked again
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    return found[1] if found else "unknown"
