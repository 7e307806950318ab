"""setup.cfg lists what is there: it cannot discover the packages itself (docs/adr/0002)."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "sdk": "irstd",
    "compile": "irstd.compile",
    "calibration": "irstd.calibration",
    "runtime": "irstd.runtime",
    "benchmarks": "irstd.benchmarks",
}


def folders_with_python():
    for top in NAMES:
        for folder in (ROOT / top, *(ROOT / top).rglob("*/")):
            if folder.is_dir() and any(folder.glob("*.py")):
                yield folder.relative_to(ROOT)


def package_of(folder):
    top, *rest = folder.parts
    return ".".join([NAMES[top], *rest])


def test_every_folder_is_a_listed_package(setup_cfg):
    found = {package_of(folder): folder.as_posix() for folder in folders_with_python()}
    assert sorted(setup_cfg("options", "packages")) == sorted(found)
    mapping = dict(line.split(" = ") for line in setup_cfg("options", "package_dir"))
    assert mapping == found


@pytest.mark.parametrize("folder", list(folders_with_python()), ids=str)
def test_every_package_says_what_it_is(folder):
    file = ROOT / folder / "__init__.py"
    assert file.is_file(), f"{folder} holds Python and no __init__.py"
    assert ast.get_docstring(ast.parse(file.read_text("utf-8"))), f"{file} has no docstring"


def test_every_test_folder_mirrors_a_package():
    allowed = {*NAMES, "architecture", "contract", "docs", "hostile", "kernels", "gpu"}
    found = {p.parent.name for p in (ROOT / "tests").glob("*/test_*.py")}
    assert found <= allowed


def test_data_files_are_package_data(setup_cfg):
    """Whatever is no Python must be listed, or a wheel lacks it."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {name: lines.split() for name, lines in config["options.package_data"].items()}
    for folder in folders_with_python():
        patterns = listed.get(package_of(folder), [])
        for file in (ROOT / folder).iterdir():
            documentation = file.suffix == ".md" and file.name == "README.md"
            if file.is_file() and file.suffix not in (".py", ".pyc") and not documentation:
                assert any(file.match(pattern) for pattern in patterns), file


def test_the_typed_marker_ships():
    assert (ROOT / "sdk" / "py.typed").is_file()


def test_extras_of_the_interface(setup_cfg):
    alone = {"nvidia": "nvidia-pyindex", "torch-tensorrt": "torch-tensorrt"}
    for extra in ("cpu", "compile", "train", "cuda", "rtx", "viz", "dev", *alone):
        names = {re.split(r"[>=]", line)[0] for line in setup_cfg("options.extras_require", extra)}
        assert names
        for where, name in alone.items():
            assert (name in names) == (extra == where), f"{name} belongs in [{where}] alone"
    core = {line.partition(">")[0] for line in setup_cfg("options", "install_requires")}
    assert core == {"numpy", "pyyaml", "opencv-python-headless"}
    for extra in ("cpu", "compile", "viz"):
        names = {line.partition(">")[0] for line in setup_cfg("options.extras_require", extra)}
        assert not names & {"torch", "lightning-fabric"}, f"[{extra}] must install no torch"


def test_commands_exist(setup_cfg):
    for line in setup_cfg("options.entry_points", "console_scripts"):
        command, _, place = line.partition(" = ")
        module, _, function = place.partition(":")
        code = f"import {module} as m; raise SystemExit(m.{function}(['--version']))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(command)
