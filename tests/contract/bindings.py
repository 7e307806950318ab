"""The genuine Python bindings of TensorRT, importable without TensorRT and without a GPU.

The bindings of every version are on the package index (`make contract-wheels` brings them into the
cache); the libraries that they load are not. But all that they take from those libraries is nine
functions. Three libraries that export them and return null, compiled on the fly, are enough for
`import`: every class, enumeration, signature and docstring of that version is then there to hold
our calls against, and only making a Builder or a Runtime fails.

Two TensorRTs in one process are unsafe, so each version has a process of its own:

    subprocess.run([sys.executable, ...], env=environment("10.3.0"))   # import tensorrt_bindings

Checks that are to hold for every version are written as ordinary pytest tests in
`tests/contract/checks/`; test_each_version.py runs each of those files once a version.
"""

import functools
import importlib
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from irstd.files import cache_dir, sha256_hex

ROOT = Path(__file__).resolve().parents[2]
_script = runpy.run_path(str(ROOT / "scripts" / "contract_wheels.py"))
VERSIONS: tuple[str, ...] = tuple(_script["WHEELS"])
VERSION_VARIABLE = "IRSTD_CONTRACT_VERSION"
# A folder in which the processes of one run leave each other what takes long to build.
BUNDLES_VARIABLE = "IRSTD_CONTRACT_BUNDLES"

SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getPluginRegistry",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
MAJORS = (10, 11)


def missing(version: str) -> str | None:
    """Return why a version cannot be imported here; None where it can."""
    if not _script["bindings_folder"](version).is_dir():
        return f"no bindings of TensorRT {version}; make contract-wheels"
    if not shutil.which("gcc"):
        return "no gcc to compile null libraries with"
    return None


@functools.cache
def null_libraries() -> Path:
    """Return a folder with TensorRT's libraries, in which there is nothing; compiled once."""
    source = "".join(f"void* {name}(void) {{ return 0; }}\n" for name in SYMBOLS)
    key = sha256_hex("\0".join([source, *LIBRARIES, *map(str, MAJORS)]).encode())
    folder: Path = cache_dir() / "contract" / f"null-{key[:32]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        built = Path(temporary, "built")
        built.mkdir()
        unit = Path(temporary, "null.c")
        unit.write_text(source)
        for name in LIBRARIES:
            for major in MAJORS:
                file = f"lib{name}.so.{major}"
                command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{file}", unit, "-o"]
                subprocess.run([*command, built / file], check=True)
        try:
            os.rename(built, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def environment(version: str) -> dict[str, str]:
    """Return the environment of a process that can import `tensorrt_bindings` of a version."""
    folder = _script["bindings_folder"](version)
    path = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        VERSION_VARIABLE: version,
        "LD_LIBRARY_PATH": str(null_libraries()),
        "PYTHONPATH": os.pathsep.join(path),
    }


def import_bindings() -> ModuleType:
    """Import the bindings inside such a process, under the name by which users know them.

    Returns:
        The genuine package, as `tensorrt`.
    """
    import tensorrt_bindings

    wanted = os.environ[VERSION_VARIABLE]
    assert tensorrt_bindings.__version__ == wanted, f"{tensorrt_bindings.__version__} != {wanted}"
    sys.modules["tensorrt"] = tensorrt_bindings
    with warnings.catch_warnings():
        # NVIDIA's Python of 10.6 and later; compiling it warns, which is an error in our tests.
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("tensorrt.plugin"):
            importlib.import_module("tensorrt.plugin")
    module: ModuleType = tensorrt_bindings
    return module


def run_checks(file: Path, version: str, timeout_s: float) -> None:
    """Run a file of tests in a process of its own, which has the bindings of one version."""
    run_alone(file, environment(version), timeout_s)


def run_alone(file: Path, variables: Mapping[str, str], timeout_s: float) -> None:
    """Run a file of tests in a process of its own, with these environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
