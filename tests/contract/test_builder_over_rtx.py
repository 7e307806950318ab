"""Our TensorRT builder over NVIDIA's genuine parser and builder (builder_over_rtx.py)."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.contract.bindings import ROOT


@pytest.fixture(scope="module")
def build(require):
    """Return a function (case) -> what became of it, in a process of its own, once a case."""
    if not importlib.util.find_spec("tensorrt_rtx_bindings"):
        pytest.skip("TensorRT for RTX is not installed: pip install 'irstd-sdk[rtx]'")

    @functools.cache
    def run(case):
        done = subprocess.run(
            [sys.executable, ROOT / "tests" / "contract" / "builder_over_rtx.py", case],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_plan_is_built(build):
    built = build("built")
    assert built["bytes"] > 1000
    assert built["library"] == "TensorRT 10.13.0"
    phases = {phase: (done, steps) for phase, done, steps in built["told"]}
    assert phases["Building engine"] == (6, 6)


def test_a_damaged_timing_cache_does_no_harm(build):
    assert build("cache")["bytes"] > 1000


def test_a_plan_for_later_versions_wants_the_lean_runtime_and_says_so(build):
    refused = build("later")
    assert refused["error"] == "MissingDependency"
    assert "does not find libnvinfer_lean.so.1, the lean runtime" in refused["message"]
    assert "finish without --version-compatible" in refused["message"]


def test_a_build_is_stopped_between_steps(build):
    assert build("stopped") == {"error": "ZeroDivisionError", "message": "Building engine"}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("ours", "node HaarGate 'gate' number 0: creator && \"Plugin not found"),
        ("ours", "the plugin of HaarGate is not loaded or of another version"),
        ("lacking", "node DFT 'dft' number 1"),
        ("lacking", "this version does not have DFT: use a later TensorRT"),
        ("types", "node Add 'mixed' number 1: Invalid Node - mixed"),
        ("types", "must have same input types. But they are of types Float and Half"),
        ("rubbish", "(MODEL_DESERIALIZE_FAILED): the graph is damaged"),
    ],
)
def test_a_refusal_names_node_reason_and_remedy(build, case, said):
    refused = build(case)
    assert refused["error"] == "BuildError"
    assert said in refused["message"]


def test_a_dla_core_that_is_not_there_is_refused(build):
    refused = build("dla")
    assert refused["error"] == "DeviceError"
    assert "sees 0 on this device" in refused["message"]


def test_inspecting_wants_a_gpu_and_says_so(build):
    inspected = build("inspected")
    if "error" in inspected:
        assert inspected["error"] == "DeviceError"
        assert "cannot use CUDA: the driver is older" in inspected["message"]
    else:
        assert inspected["bytes"] > 1000  # there is one
