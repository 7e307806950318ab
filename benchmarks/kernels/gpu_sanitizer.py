"""Runs a command under NVIDIA's compute-sanitizer."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import MissingDependency

TOOLS = ("memcheck", "racecheck", "initcheck")
TIMEOUT_S = 1800
_FOUND = 86  # exit code where a tool has found something


def sanitize(command: Sequence[str]) -> dict[str, str]:
    """Run a command under each tool of compute-sanitizer; return what each says of it.

    Raises:
        MissingDependency: compute-sanitizer is not installed.
    """
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).is_file():
        raise MissingDependency(
            "compute-sanitizer is not installed; install cuda-sanitizer, or leave out --sanitizer"
        )
    verdicts = {}
    for tool in TOOLS:
        try:
            done = subprocess.run(
                [program, "--tool", tool, "--error-exitcode", str(_FOUND), *command],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            verdicts[tool] = f"did not end within {TIMEOUT_S} s"
            continue
        verdicts[tool] = verdict(done.returncode, done.stdout + done.stderr)
    return verdicts


def verdict(code: int, said: str) -> str:
    """Return "clean", or what a run of compute-sanitizer found, in one line."""
    if code == 0:
        return "clean"
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", said)
    last = said.strip().splitlines()[-1:] or [""]
    return f"exit code {code}: {(summary or last)[-1]}"
