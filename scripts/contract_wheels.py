"""Get the genuine Python bindings of TensorRT that the contract tests hold our calls against.

`make contract-wheels`. They are on the package index for anybody, 1 to 2 MB each; the engine
libraries behind them are not, and are not needed (tests/contract). Each version is unpacked into a
folder of its own in the cache, never installed.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import MissingDependency
from irstd.files import cache_dir

# Version to package: what JetPack 6 has, the last with DLA of the 10s, JetPack 7, and those after.
WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.7.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
# Torch-TensorRT with the bindings that this release asks for, and what it imports, in one folder.
TORCH_TENSORRT = (
    "torch-tensorrt==2.13.0",
    "tensorrt-cu13-bindings==11.0.0.114",
    "dllist==2.0.0",
    "psutil==7.2.2",
)
TORCH_TENSORRT_FOLDER = "torch-tensorrt-2.13.0"
# Its own libraries load CUDA's torch. It does without them, as what its PYTHON_ONLY=1 builds does.
_LEFT_OUT = re.compile(r"torch_tensorrt/(lib/|_C\b)")


def bindings_folder(version: str) -> Path:
    """Return the folder that holds the package `tensorrt_bindings` of a version, once fetched."""
    python = f"{sys.implementation.cache_tag}-{platform.machine()}"
    return cache_dir() / "contract" / python / version


def fetch(version: str) -> Path:
    """Bring one version of the bindings into the cache, whole or not at all."""
    return fetch_all([f"{WHEELS[version]}=={version}"], bindings_folder(version))


def fetch_all(requirements: Sequence[str], folder: Path) -> Path:
    """Unpack wheels into one folder, whole or not at all."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        wheels, unpacked = Path(temporary, "wheels"), Path(temporary, "unpacked")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        what = ["download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
        subprocess.run([*command, *what, *requirements], check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if not _LEFT_OUT.match(name)]
                archive.extractall(unpacked, names)
        try:
            os.rename(unpacked, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def main() -> int:
    for version in WHEELS:
        print(fetch(version))
    print(fetch_all(TORCH_TENSORRT, bindings_folder(TORCH_TENSORRT_FOLDER)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"pip could not get them: {' '.join(error.cmd[4:])}", file=sys.stderr)
        sys.exit(MissingDependency.exit_code)
