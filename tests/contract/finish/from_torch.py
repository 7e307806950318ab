"""`finish --builder torch_tensorrt` on a board that is not there.

What Torch-TensorRT makes of a module is tests/contract/torch_tensorrt's to show, what the module
computes tests/compile/test_deployed_module.py's. Here the plan comes from the bundle's graph.
"""

import shutil

import numpy as np
import pytest

from irstd.bundle import read_bundle
from irstd.compile.builders import torch_tensorrt_bundle
from irstd.compile.builders.tensorrt import build_plan
from irstd.compile.builders.torch_tensorrt import TorchPlan
from irstd.types import Precision

_BUILT = {}


@pytest.fixture
def acm(compile_command, tmp_path, tmp_path_factory):
    """A function (precision) -> a bundle of the shipped ACM, for the Jetson."""

    def build(precision):
        if precision not in _BUILT:
            _BUILT[precision] = tmp_path_factory.mktemp("built") / "acm.irstd"
            code, _, err = compile_command(
                "build", "acm", "--imgsz", "32x32", "--target", "jetson-orin-nano",
                "--precision", precision, "-o", _BUILT[precision],
            )  # fmt: skip
            assert code == 0, err
        return shutil.copy(_BUILT[precision], tmp_path / "acm.irstd")

    return build


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What Torch-TensorRT is asked for; it answers with a plan of the bundle's graph."""
    calls = []

    def build(network, spec, normalization, settings, inputs):
        bundle = read_bundle(tmp_path / "acm.irstd")
        calls.append((network, spec, normalization, settings, inputs))
        plan = build_plan(bundle.read(bundle.manifest.model)).plan
        settings.timing_cache.write_bytes(b"measured")
        return TorchPlan(plan, "torch-tensorrt 2.13.0, TensorRT 10.3.0", ())

    monkeypatch.setattr(torch_tensorrt_bundle, "build_torch_plan", build)
    monkeypatch.setattr(torch_tensorrt_bundle, "torch_tensorrt_version", lambda: "2.13.0")
    return calls


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_is_of_the_module(precision, acm, asked, finish, world):
    path = acm(precision)
    code, report, err = finish(path, "--builder", "torch_tensorrt")
    assert (code, report["origin"]) == (0, "built"), err
    assert report["golden"]["passed"]
    flags = report["engine"]["key"]["flags"]
    assert "builder=torch_tensorrt" in flags
    assert "torch_tensorrt=2.13.0" in flags
    assert any(flag.startswith("weights=") for flag in flags)
    ((network, spec, normalization, settings, inputs),) = asked
    assert type(network).__name__ == "ACM"
    bundle = read_bundle(path)
    assert spec == bundle.manifest.input
    assert len(normalization.mean) == 1
    assert settings.precision is Precision(precision)
    assert settings.workspace_mib > 0
    assert [x.shape for x in inputs] == [(1, 1, 32, 32)] * len(inputs)
    assert all(np.isfinite(x).all() for x in inputs)
    (engine,) = bundle.manifest.engines
    assert (engine.session, engine.chosen) == ("tensorrt", True)


def test_each_builder_keeps_an_engine_of_its_own(acm, asked, finish, world):
    path = acm("fp32")
    _, first, _ = finish(path)
    _, second, _ = finish(path, "--builder", "torch_tensorrt")
    assert first["origin"] == second["origin"] == "built"
    assert first["engine"]["key"]["flags"] != second["engine"]["key"]["flags"]
    assert finish(path, "--builder", "torch_tensorrt")[1]["origin"] == "cache"
    assert len(asked) == 1


def test_other_weights_are_another_engine(acm, asked, finish, world, tmp_path):
    path = acm("fp32")
    shipped = torch_tensorrt_bundle.torch_source(read_bundle(path), None).weights
    finish(path, "--builder", "torch_tensorrt")
    other = shutil.copy(shipped, tmp_path / "other.safetensors")
    with open(other, "r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(0.5).tobytes())
    code, report, err = finish(path, "--builder", "torch_tensorrt", "--weights", other)
    assert (code, report["origin"]) == (0, "built"), err


def test_weights_of_another_network_are_refused(acm, asked, finish, world, tmp_path):
    path = acm("fp32")
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not weights")
    code, report, _ = finish(path, "--builder", "torch_tensorrt", "--weights", wrong)
    assert (code, report["error"]["type"]) == (1, "CheckpointError")


def test_without_torch_tensorrt_the_error_says_what_to_install(acm, finish, world):
    code, report, _ = finish(acm("fp32"), "--builder", "torch_tensorrt")
    assert code == 3
    assert report["error"]["message"].startswith("torch_tensorrt is not installed: pip install ")


def test_int8_and_foreign_graphs_take_the_other_road(acm, portable, finish, world):
    for precision, said in (("int8", "made from the ONNX file"), ("fp32", "made from the ONNX")):
        code, report, _ = finish(portable(precision), "--builder", "torch_tensorrt")
        assert (code, report["error"]["type"]) == (2, "UsageError")
        assert said in report["error"]["message"]


def test_weights_without_the_builder_are_refused(acm, finish, world, tmp_path):
    code, report, _ = finish(acm("fp32"), "--weights", tmp_path / "a.safetensors")
    assert code == 2
    assert report["error"]["message"] == "--weights goes with --builder torch_tensorrt"
