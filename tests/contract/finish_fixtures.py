"""Fixtures of the tests of `finish`: a Jetson that is not there, and bundles for it."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from irstd.bundle import read_bundle, write_bundle
from irstd.files import write_atomic
from tests.contract.bindings import BUNDLES_VARIABLE
from tests.contract.finish_world import World

_PATH = Path(__file__).resolve().parents[1] / "compile" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("compile_fixtures", _PATH)
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

compile_command = _FIXTURES.compile_command
make_data = _FIXTURES.make_data
make_tiny = _FIXTURES.make_tiny
tiny_onnx = _FIXTURES.tiny_onnx


@pytest.fixture
def world(trt, monkeypatch):
    """A Jetson Orin Nano with everything in order."""
    made = World(trt, monkeypatch.setattr)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    made.install()
    return made


@pytest.fixture
def portable(compile_command, tiny_onnx, make_fused, make_data, tmp_path):
    """A function (precision, target, network) -> a bundle that has still to be finished.

    Built once for all processes of a run, which are many; nothing of TensorRT is in it yet.
    """

    def fused_onnx():
        path = tmp_path / "fused.onnx"
        path.write_bytes(make_fused(size_hw=(64, 64)).SerializeToString())
        return path

    def build(precision="fp32", target="jetson-orin-nano", network="tiny"):
        shared = Path(os.environ[BUNDLES_VARIABLE]) / f"{network}-{precision}-{target}.irstd"
        path = tmp_path / "tiny.irstd"
        if not shared.exists():
            code, _, err = compile_command(
                "build", tiny_onnx() if network == "tiny" else fused_onnx(),
                "--normalize", "80,40", "--output", "logits", "--target", target,
                "--precision", precision, "--data", make_data(), "-o", path,
            )  # fmt: skip
            assert code == 0, err
            write_atomic(shared, path.read_bytes())
        shutil.copy(shared, path)
        return path

    return build


@pytest.fixture
def finish(compile_command, world, tmp_path):
    """A function (*arguments) -> exit code, report, standard error."""

    def run(*arguments):
        return compile_command("finish", *arguments, "--cache", tmp_path / "engines-cache")

    return run


def member(path, suffix):
    (name,) = [name for name in read_bundle(path).members if name.endswith(suffix)]
    return name


def rewritten(path, **changes):
    """Write a bundle again with some members replaced; `report_json` stands for report.json."""
    bundle = read_bundle(path)
    data = {name: bundle.read(name) for name in bundle.members}
    data |= {name.replace("_json", ".json"): new for name, new in changes.items()}
    write_bundle(path, bundle.manifest, data)


def with_plugins(path, plugins):
    """Let the build's report say which nodes of the plugin graph are plugins."""
    report = json.loads(read_bundle(path).read("report.json")) | {"plugins": plugins}
    rewritten(path, report_json=json.dumps(report).encode())
    return path
