"""Compilers, run as programs: what they say, what they make, and where it is kept."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from irstd.errors import BuildError
from irstd.files import write_atomic

# What a compiler says is looked at, and part of what the cache knows its results by.
_LANGUAGE = {"LC_ALL": "C"}


def compile_with(command: Sequence[str]) -> str:
    """Run a compiler and return what it says.

    Raises:
        BuildError: It fails, or does not run at all.
    """
    try:
        done = subprocess.run(
            command, env={**os.environ, **_LANGUAGE}, capture_output=True, text=True,
            errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} does not run ({error.strerror or error})") from error
    said = done.stdout + done.stderr
    if done.returncode:
        lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
        reason = lines[0].strip() if lines else f"exit code {done.returncode}, without a word"
        raise BuildError(f"{command[0]} refuses the kernels: {reason}")
    return said


def compiled(command: Sequence[str]) -> tuple[bytes, str]:
    """Run a compiler that makes one file; return the file's bytes and what it says.

    Args:
        command: All of it but `-o`.

    Raises:
        BuildError: It fails, or makes nothing, or there is no room for temporary files.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "made"
            said = compile_with([*command, "-o", str(made)])
            return made.read_bytes(), said
    except OSError as error:
        raise BuildError(f"{command[0]} made nothing ({error})") from error


@functools.cache
def version_of(*command: str) -> str:
    """Return what a compiler says to `--version`.

    Raises:
        BuildError: As `compile_with`.
    """
    return compile_with([*command, "--version"])


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, whole or not at all.

    Two processes that compile the same write the same: the later one's stays.

    Raises:
        BuildError: The cache cannot be written.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise BuildError(
            f"{path}: the cache cannot be written ({error.strerror or error}); "
            "set IRSTD_CACHE to a folder that can"
        ) from error
