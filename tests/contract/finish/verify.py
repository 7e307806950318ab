"""`verify` on a device: the bundle's own engine against the golden frames, without ONNX Runtime."""

import importlib
import importlib.util
import io

import numpy as np
import pytest

from irstd.bundle import read_bundle
from tests.contract.finish_fixtures import rewritten

LIBRARY = "onnxruntime"


@pytest.fixture
def bare(monkeypatch, world, portable):
    """A device without ONNX Runtime; the double computes with its own."""
    for precision in ("fp16", "fp32"):
        portable(precision)  # elsewhere
    real_import, real_find = importlib.import_module, importlib.util.find_spec

    def no_module(name, package=None):
        if name == LIBRARY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, package)

    monkeypatch.setattr(importlib, "import_module", no_module)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == LIBRARY else real_find(name)
    )


@pytest.fixture
def finished(portable, finish):
    """A function (*flags) -> a finished bundle."""

    def make(*flags):
        path = portable("fp16")
        code, _, err = finish(path, *flags)
        assert code == 0, err
        return path

    return make


@pytest.mark.parametrize("flags", [[], ["--weight-stripped"], ["--version-compatible"]])
def test_the_engine_is_held_against_the_golden_frames(flags, finished, bare, compile_command):
    code, report, err = compile_command("verify", finished(*flags))
    assert (code, report["passed"]) == (0, True), err
    assert report["deployed"]["passed"]
    assert report["engine"] == "tensorrt 10.3.0"
    assert report["reference"] is None
    (told,) = report["not_verified"]
    assert told.startswith("the FP32 graph: onnxruntime is not installed; pip install")


def test_with_onnx_runtime_all_is_verified(finished, compile_command):
    code, report, err = compile_command("verify", finished())
    assert code == 0, err
    assert report["reference"]["passed"]
    assert report["not_verified"] == []


def test_people_are_told_what_was_not_verified(finished, bare, capsys):
    from irstd.compile.command import main

    assert main(["verify", str(finished())]) == 0
    said = capsys.readouterr().out
    assert "deployed in tensorrt 10.3.0: mean error" in said
    assert "not verified: the FP32 graph: onnxruntime is not installed" in said
    assert "FP32 graph: mean error" not in said


def test_an_engine_that_disagrees_fails(finished, bare, compile_command):
    path = finished()
    wrong = np.load(io.BytesIO(read_bundle(path).read("golden/deployed_000.npy"))) + np.float32(3)
    buffer = io.BytesIO()
    np.save(buffer, wrong)
    rewritten(path, **{"golden/deployed_000.npy": buffer.getvalue()})
    code, report, _ = compile_command("verify", path)
    assert (code, report["error"]["type"]) == (5, "ParityFailed")
    assert f"irstd-compile finish {path} --rebuild" in report["error"]["message"]


def test_labelled_data_wants_the_fp32_graph(finished, bare, compile_command, make_data):
    path = finished()
    code, report, _ = compile_command("verify", path, "--data", make_data())
    assert (code, report["error"]["type"]) == (3, "MissingDependency")
    message = report["error"]["message"]
    assert "onnxruntime is not installed" in message
    assert f"on the device, by TensorRT: irstd-compile finish {path} --data DIR" in message


def test_frames_without_labels_want_nothing(finished, bare, compile_command, make_data):
    data = make_data("bare", masks=False)
    code, report, err = compile_command("verify", finished(), "--data", data)
    assert (code, report["verdict"]["accuracy"]) == (0, None), err


def test_a_bundle_that_is_not_finished_cannot_be_verified(portable, bare, compile_command):
    path = portable()
    code, report, _ = compile_command("verify", path)
    assert (code, report["error"]["type"]) == (3, "MissingDependency")
    assert "holds no engine yet" in report["error"]["message"]
    assert f"on its device: irstd-compile finish {path}" in report["error"]["message"]


def test_an_engine_of_another_device_is_not_verified(finished, bare, world, compile_command):
    path = finished()
    world.driver_version = "L4T 36.4.7"
    code, report, _ = compile_command("verify", path)
    assert (code, report["error"]["type"]) == (6, "BundleMismatch")
