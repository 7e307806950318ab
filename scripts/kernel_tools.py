"""Put cuobjdump and nvdisasm into the cache: from the wheel of triton, which carries them.

`make kernel-tools`. Downloads the wheel (about 290 MB) unless both are on the machine already; what
is not used of it is deleted.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from irstd.errors import MissingDependency
from irstd.files import atomic_open
from irstd.runtime.kernels.cuda.disassembly import TOOLS, find_tool, tools_dir

WHEEL = "triton==3.9.0"  # its tools are of CUDA 13.1
INSIDE = "triton/backends/nvidia/bin"


def main() -> int:
    with contextlib.suppress(MissingDependency):
        for name in TOOLS:
            print(find_tool(name))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        download = ["download", "--no-deps", "--only-binary=:all:", "--dest", folder, WHEEL]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        if subprocess.run([*pip, *download], check=False).returncode:
            print(f"{WHEEL} cannot be downloaded; the gates on instructions skip", file=sys.stderr)
            return MissingDependency.exit_code
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in TOOLS:
                path = tools_dir() / name
                with atomic_open(path) as file:
                    file.write(archive.read(f"{INSIDE}/{name}"))
                    os.fchmod(file.fileno(), 0o755)
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
