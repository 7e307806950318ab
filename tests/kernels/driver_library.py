"""The libcuda.so.1 under the genuine packages that reach the driver: fake_driver.cpp, built."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from irstd.errors import MissingDependency
from irstd.runtime.kernels.cuda.toolchain import find_nvcc

CUDA_HOST = Path(__file__).resolve().parents[1] / "cuda_host"
INSTALLED = [
    pytest.param(
        name, marks=pytest.mark.skipif(not find_spec(package), reason=f"{name} is not installed")
    )
    for name, package in (("cuda-python", "cuda"), ("pycuda", "pycuda"))
]


def build_fake_driver(folder: Path) -> Path:
    """Compile it into a folder, for LD_LIBRARY_PATH; skips where cuda.h is not to be had."""
    try:
        root = Path(os.path.realpath(find_nvcc()[0])).parent.parent
    except MissingDependency as error:
        pytest.skip(str(error))
    folders = [root / "include", Path("/usr/local/cuda/include")]
    include = [folder for folder in folders if (folder / "cuda.h").is_file()]
    if not include:
        pytest.skip("no cuda.h")
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"]
    stubs = folder / "stubs.cpp"
    stubs.write_text(
        "".join(f'extern "C" int {name}() {{ return 801; }}\n' for name in _wanted_by_pycuda())
    )
    source = ["-I", include[0], CUDA_HOST / "fake_driver.cpp", stubs]
    subprocess.run([*command, *source, "-o", folder / "libcuda.so.1", "-ldl"], check=True)
    return folder


def _wanted_by_pycuda():
    """The driver's functions that pycuda is linked with: all must be there when it is loaded. Weak,
    as `not supported`, they stand for those that fake_driver.cpp lacks."""
    if not (spec := find_spec("pycuda")):
        return []
    library = next(Path(spec.submodule_search_locations[0]).glob("_driver*.so"))
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True)
    names = re.findall(r" U (cu\w+)", symbols.stdout)
    return [f"__attribute__((weak)) {name}" for name in names]
