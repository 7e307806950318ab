"""Get what the CUDA kernels are compiled and inspected with, where this machine lacks it.

`make kernel-tools`. nvcc 13 (270 MB) and NVRTC 12.6 (70 MB) go into this Python's packages;
cuobjdump and nvdisasm into the cache, out of the wheel of triton, which carries them (290 MB,
deleted again).
"""

import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from irstd.errors import MissingDependency
from irstd.files import atomic_open
from irstd.runtime.kernels.cuda.disassembly import TOOLS, find_tool, tools_dir
from irstd.runtime.kernels.cuda.toolchain import (
    NVCC_PACKAGES,
    NVRTC_PACKAGES,
    find_nvcc,
    find_nvrtc,
)

WHEEL = "triton==3.9.0"  # its tools are of CUDA 13.1
INSIDE = "triton/backends/nvidia/bin"


def is_there(find: Callable[[], object]) -> bool:
    try:
        print(find())
    except MissingDependency:
        return False
    return True


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*command, *arguments], check=True)


def fetch_disassembler() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--only-binary=:all:", "--dest", folder, WHEEL)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in TOOLS:
                with atomic_open(tools_dir() / name) as file:
                    file.write(archive.read(f"{INSIDE}/{name}"))
                    os.fchmod(file.fileno(), 0o755)


def main() -> int:
    compilers: list[tuple[Callable[[], object], Sequence[str]]] = [
        (find_nvcc, NVCC_PACKAGES),
        (find_nvrtc, NVRTC_PACKAGES),
    ]
    for find, packages in compilers:
        if not is_there(find):
            pip("install", *packages)
    if not all([is_there(functools.partial(find_tool, name)) for name in TOOLS]):
        fetch_disassembler()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"pip could not get them: {' '.join(error.cmd[4:])}", file=sys.stderr)
        sys.exit(MissingDependency.exit_code)
