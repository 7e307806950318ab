"""The doctor's look at TensorRT: there, visible to this Python, and with what plugins need."""

import contextlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from irstd.compile.findings import Finding, fine, to_do
from irstd.files import read_system
from irstd.runtime.machine.packages import parse_cuda_version
from irstd.runtime.machine.tools import Answer, Ask

_TIMEOUT_S = 60.0  # the first import on a board with an SD card takes long
# In a process of its own: libraries that do not fit together may end it.
_IMPORT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from irstd.errors import IrstdError
from irstd.runtime.tensorrt.api import load_tensorrt, version_of
try:
    print("version", version_of(load_tensorrt()))
except IrstdError as error:
    print("error", " ".join(str(error).split()))
"""
_CUDA_OF_PIP = 13  # the package tensorrt takes tensorrt-cu13
# JetPack comes with it; Ubuntu alone has packages of neither TensorRT nor its headers.
_REPOSITORY = "add NVIDIA's CUDA repository for apt, then "
_DISTRIBUTIONS = ("cuda-python", "cuda-bindings", "pycuda")


def examine_tensorrt(
    root: Path, run: Ask, packages: Mapping[str, str], cuda: str | None, *, is_jetson: bool
) -> list[Finding]:
    """Look at what building and running engines needs.

    Args:
        root: Where /usr is found.
        run: Runs a tool of the system.
        packages: Installed packages of the system.
        cuda: That the driver is of, such as "12.6"; None where not known.
        is_jetson: Whether JetPack brings it, not pip.
    """
    headers = [
        folder for folder in sorted((root / "usr/include").glob("*-linux-gnu"))
        if (folder / "NvInferRuntime.h").is_file()
    ]  # fmt: skip
    return [
        _bindings(root, run, packages, cuda, is_jetson=is_jetson),
        _cuda_package(cuda),
        _toolkit(root, cuda, is_jetson=is_jetson),
        fine("tensorrt headers", f"in {headers[0]}, for plugins")
        if headers
        else to_do(
            "tensorrt headers", "not installed; needed to compile plugins of fused operators",
            f"{'' if is_jetson else _REPOSITORY}sudo apt install libnvinfer-headers-dev",
        ),
    ]  # fmt: skip


def _bindings(
    root: Path, run: Ask, packages: Mapping[str, str], cuda: str | None, *, is_jetson: bool
) -> Finding:
    name = "tensorrt"
    library = next((packages[p] for p in packages if re.fullmatch(r"libnvinfer\d+", p)), None)
    answer = run([sys.executable, "-c", _IMPORT, json.dumps(sys.path)], timeout_s=_TIMEOUT_S)
    found = re.search(r"^version ([\d.]{1,32})$", answer.text, re.MULTILINE)
    if found:
        version = found[1]
        if library and not library.startswith(version):
            return to_do(
                name, f"{version} for Python, but JetPack's library is {library}: pip's package "
                "hides the board's", "pip uninstall tensorrt tensorrt-cu12 tensorrt-cu13",
            )  # fmt: skip
        if not is_jetson and _is_older(cuda) and _versions(["tensorrt-cu13-bindings"]):
            return to_do(
                name, f"{version} for CUDA 13, but the driver is of CUDA {cuda}",
                "pip uninstall tensorrt tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs, "
                "then pip install --force-reinstall tensorrt-cu12; or a driver of CUDA 13",
            )  # fmt: skip
        return fine(name, f"{version}, visible to this Python")
    if not is_jetson:
        package = "tensorrt-cu12" if _is_older(cuda) else "tensorrt"
        return to_do(name, _reason(answer), f"pip install {package}")
    return _on_jetson(root, answer, library, packages)


def _on_jetson(
    root: Path, answer: Answer, library: str | None, packages: Mapping[str, str]
) -> Finding:
    """Say why JetPack's TensorRT cannot be imported."""
    name = "tensorrt"
    if library is None:
        return to_do(name, "not installed", "sudo apt install nvidia-jetpack")
    there = _system_bindings(root)
    if not there:
        found = f"{library}, but not its Python package"
        return to_do(name, found, "sudo apt install python3-libnvinfer")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own not in there:
        return to_do(
            name, f"{library} is for Python {', '.join(there)}, this one is {own}",
            f"python{there[0]} -m venv --system-site-packages VENV, and install the SDK there",
        )  # fmt: skip
    if "hidden by the virtual environment" in _reason(answer):
        return to_do(
            name, f"{library}, hidden by the virtual environment {sys.prefix}",
            "sed -i 's/^include-system-site-packages.*/include-system-site-packages = true/' "
            f"{sys.prefix}/pyvenv.cfg",
        )  # fmt: skip
    return to_do(name, _reason(answer), "sudo apt install --reinstall nvidia-jetpack")


def _system_bindings(root: Path) -> list[str]:
    """Return the versions of Python that the system has TensorRT's bindings for."""
    modules = sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt/tensorrt*.so"))
    tags = (re.search(r"\.cpython-(\d)(\d{1,2})-", module.name) for module in modules)
    folders = (re.search(r"/python(3\.\d{1,2})/", str(module)) for module in modules)
    tagged = [f"{tag[1]}.{tag[2]}" for tag in tags if tag] or [f[1] for f in folders if f]
    return list(dict.fromkeys(tagged))


def _reason(answer: Answer) -> str:
    """Return why an import failed, one line."""
    said = re.search(r"^error (.{1,400})", answer.text, re.MULTILINE)
    return said[1] if said else answer.problem or "importing TensorRT says nothing"


def _is_older(cuda: str | None) -> bool:
    """Whether a driver is too old for what `pip install tensorrt` brings."""
    return cuda is not None and int(cuda.partition(".")[0]) < _CUDA_OF_PIP


def _versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed in this Python."""
    versions = {}
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


def _cuda_package(cuda: str | None) -> Finding:
    name = "cuda for python"
    versions = _versions(_DISTRIBUTIONS)
    major = (cuda or "").partition(".")[0]
    fix = f'pip install "cuda-python=={major}.*"' if major else "pip install cuda-python"
    if not versions:
        return to_do(name, "neither cuda-python nor pycuda is installed", fix)
    found = ", ".join(f"{package} {version}" for package, version in versions.items())
    newest = versions.get("cuda-bindings", versions.get("cuda-python", "")).partition(".")[0]
    if major and newest.isdigit() and int(newest) > int(major) and "pycuda" not in versions:
        return to_do(name, f"{found}, but the driver is of CUDA {cuda}", fix)
    return fine(name, found)


def _toolkit(root: Path, cuda: str | None, *, is_jetson: bool) -> Finding:
    name = "cuda toolkit"
    version = parse_cuda_version(read_system(root / "usr/local/cuda/version.json"))
    if version:
        return fine(name, f"{version}, for plugins")
    release = "-".join((cuda or "").split(".")[:2]) if is_jetson else ""
    package = f"cuda-toolkit-{release}" if release else "cuda-toolkit"
    fix = f"{'' if is_jetson else _REPOSITORY}sudo apt install {package}"
    return to_do(name, "not installed; needed to compile plugins of fused operators", fix)
