"""Copies of the source tree, in which a test may plant what a rule must catch."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDERS = ("sdk", "compile", "calibration", "runtime", "benchmarks")


@pytest.fixture(scope="session")
def setup_cfg(root: Path) -> Callable[[str, str], list[str]]:
    """Return a function (section, key) -> the lines of a list in setup.cfg."""
    import configparser

    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    return lambda section, key: [line for line in config[section][key].splitlines() if line]


@pytest.fixture
def copy_tree(root: Path, tmp_path: Path) -> Path:
    """The sources, settings and scripts in a folder of their own, with a fresh link tree."""
    target = tmp_path / "copy"
    skip = shutil.ignore_patterns("__pycache__", "*.onnx", "*.safetensors")
    for name in (*FOLDERS, "scripts"):
        shutil.copytree(root / name, target / name, ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "ruff.toml"):
        shutil.copy(root / name, target / name)
    subprocess.run([sys.executable, "scripts/link_tree.py"], cwd=target, check=True)
    return target


@pytest.fixture
def run_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function (folder, *command) that runs a tool on the link tree of a copy."""

    def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        tools = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder / ".types"),
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        }
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return run
