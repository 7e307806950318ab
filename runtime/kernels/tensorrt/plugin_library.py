"""Builds the plugin of an operator for TensorRT 10, on the machine that has TensorRT's headers.

The C++ is compiled by the system's g++ with the kernels, compiled beforehand, inside it: no CUDA
compiler is needed where the engine is built, and nothing of TensorRT where the kernels are.
"""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from irstd.errors import BuildError, MissingDependency, UsageError
from irstd.files import sha256_of_file
from irstd.runtime.kernels.cpu_library import build_shared_library

FOLDER = Path(__file__).parent
OPERATORS = ("haar_gate", "ms_deform_attn", "spectral_split")
# What a node of domain "irstd" carries for TensorRT's ONNX parser to find its plugin.
NODE_ATTRIBUTES = {"plugin_namespace": "irstd", "plugin_version": "1"}
OLDEST = (10, 0)  # the first with IPluginV3

PLUGIN_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
_IMAGE_DIGITS = 32


def build_plugin(
    op: str,
    image: Path,
    *,
    tensorrt: tuple[int, int] | None = None,
    tensorrt_include: Path | None = None,
    cuda_include: Path | None = None,
) -> Path:
    """Compile the TensorRT plugin of an operator, or find it in the cache.

    Load it with `tensorrt.get_plugin_registry().load_library(str(path))` before parsing or
    deserialising.

    Args:
        op: One of OPERATORS.
        image: The operator's compiled kernels, which this device's driver accepts: a fat binary,
            a cubin or PTX.
        tensorrt: Version (major, minor) of the library that will load it; None asks nothing of the
            headers but that they are of 10.0 or later.
        tensorrt_include: Folder of NvInferRuntime.h; None looks in `TENSORRT_INCLUDE`, then where
            the packages put it.
        cuda_include: Folder of cuda.h and cuda_runtime_api.h; None looks in `CUDA_HOME`, then in
            /usr/local/cuda.

    Returns:
        The library, named by TensorRT's version and by the hash of all that went into it.

    Raises:
        UsageError: There is no such operator, or no such file.
        MissingDependency: No headers, or no C++ compiler.
        BuildError: TensorRT is older than 10.0, or its headers are not those of the library, or the
            compiler refuses the sources.
    """
    if op not in OPERATORS:
        raise UsageError(f"operator {op!r}: wanted one of {', '.join(OPERATORS)}")
    if not image.is_file():
        raise UsageError(f"{image}: no such file; wanted the compiled kernels of {op}")
    tensorrt_include = tensorrt_include or find_tensorrt_include()
    cuda_include = cuda_include or find_cuda_include()
    version = tensorrt_version(tensorrt_include)
    if version < OLDEST:
        raise BuildError(
            f"TensorRT {_dotted(version)} in {tensorrt_include}; wanted 10.0 or later, "
            "or a build without plugins"
        )
    if tensorrt is not None and version[:2] != tensorrt:
        raise BuildError(
            f"the headers in {tensorrt_include} are of TensorRT {_dotted(version)}, the library is "
            f"{_dotted(tensorrt)}: set TENSORRT_INCLUDE to its own"
        )
    flags = [*PLUGIN_FLAGS, *plugin_defines(image), *_system(tensorrt_include, cuda_include)]
    return build_shared_library(
        f"{op}-tensorrt-{_dotted(version)}", plugin_sources(op), flags, libraries=["-ldl"]
    )


def plugin_sources(op: str) -> list[Path]:
    """Return the C++ files of an operator's plugin."""
    return [FOLDER / f"{op}_plugin.cpp", FOLDER / "plugin.cpp", FOLDER / "module.cpp"]


def plugin_defines(image: Path) -> list[str]:
    """Return the flags that put compiled kernels into a plugin, with the hash of their bytes."""
    path = str(image.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    identity = sha256_of_file(image)[:_IMAGE_DIGITS]
    return [f'-DIRSTD_IMAGE="{path}"', f'-DIRSTD_IMAGE_ID="{identity}"']


def tensorrt_version(include: Path) -> tuple[int, ...]:
    """Return the version (major, minor, patch) of the headers in a folder.

    Raises:
        BuildError: They do not say.
    """
    path = include / "NvInferVersion.h"
    try:
        defined: dict[str, str] = dict(
            re.findall(r"^#define (\w+) (\w+)", path.read_text(), re.MULTILINE)
        )
        names = [f"NV_TENSORRT_{part}" for part in ("MAJOR", "MINOR", "PATCH")]
        # From 10.13 on they are defined as other names.
        return tuple(int(defined.get(defined[name], defined[name])) for name in names)
    except (OSError, KeyError, ValueError) as error:
        raise BuildError(f"{path}: does not say which TensorRT it is ({error})") from error


def find_tensorrt_include() -> Path:
    """Return the first of `TENSORRT_INCLUDE` and the usual folders that has TensorRT's headers.

    Raises:
        MissingDependency: None has.
    """
    usual = [f"/usr/include/{platform.machine()}-linux-gnu", "/usr/include"]
    return _first_with(
        "NvInferRuntime.h",
        [*_listed("TENSORRT_INCLUDE"), *usual, "/usr/local/tensorrt/include"],
        "TensorRT's headers: install libnvinfer-headers-dev, or set TENSORRT_INCLUDE",
    )


def find_cuda_include() -> Path:
    """Return the first of `CUDA_HOME`/include and /usr/local/cuda/include that has CUDA's headers.

    Raises:
        MissingDependency: None has.
    """
    homes = [*_listed("CUDA_HOME"), *_listed("CUDA_PATH"), "/usr/local/cuda"]
    return _first_with(
        "cuda_runtime_api.h",
        [f"{home}/include" for home in homes],
        "CUDA's headers: install cuda-cudart-dev and cuda-driver-dev, or set CUDA_HOME",
    )


def _listed(variable: str) -> list[str]:
    return [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder]


def _first_with(file: str, folders: Iterable[str], wanted: str) -> Path:
    for folder in folders:
        if (Path(folder) / file).is_file():
            return Path(folder)
    raise MissingDependency(f"no {file} found; wanted {wanted}")


def _system(*folders: Path) -> list[str]:
    """Return flags for headers whose warnings are not ours."""
    return [flag for folder in folders for flag in ("-isystem", str(folder))]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
