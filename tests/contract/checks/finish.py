"""`irstd-compile finish` with the bindings of each version; tests/contract/finish has the rest."""

import io
import json

import numpy as np
import pytest

import irstd
from irstd.bundle import read_bundle
from tests.contract import recorded
from tests.contract.double import Script
from tests.contract.double_runtime import Run


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_finished_bundle_runs(precision, portable, finish, world):
    path = portable(precision)
    code, report, _ = finish(path)
    assert (code, report["origin"]) == (0, "built")
    assert report["golden"]["passed"]
    assert report["engine"]["key"]["device"]["driver"] == "L4T 36.4.3"
    bundle = read_bundle(path)
    (engine,) = bundle.manifest.engines
    assert (engine.session, engine.chosen, engine.passed) == ("tensorrt", True, True)
    assert engine.median_ms > 0
    frame = np.load(io.BytesIO(bundle.read("golden/frame_000.npy")))
    wanted = np.load(io.BytesIO(bundle.read("golden/deployed_000.npy")))
    with irstd.open_bundle(path) as detector:
        got = detector.logits(frame)
        assert "tensorrt" in detector.engine
    tolerance = json.loads(bundle.read("golden/tolerance.json"))["worst"]
    assert np.abs(got - wanted).max() <= tolerance * max(1.0, float(np.ptp(wanted)))


FAILURES = {
    "parser": (Script(parser_errors=[recorded.PLUGIN_NOT_FOUND]), Run(), 1, "HaarGate_3"),
    "build out of memory": (
        Script(build_log=recorded.NO_IMPLEMENTATION, builds=False), Run(), 1, "memory"),
    "no CUDA": (Script(makes_builder=False, start_log=recorded.NO_CUDA), Run(), 3, "CUDA"),
    "deserializes to nothing": (Script(deserializes=False), Run(), None, "deserialize"),
    "run out of memory": (Script(), Run(makes_context=False), 3, "memory"),
    "does not execute": (Script(), Run(executes=lambda count: False), 3, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_the_bundle_and_say_why(name, portable, finish, world):
    script, run, wanted, said = FAILURES[name]
    path = portable()
    before = path.read_bytes()
    world.install(script, run)
    code, report, err = finish(path)
    assert code == wanted or (wanted is None and code != 0), err
    assert said in report["error"]["message"]
    assert "Traceback" not in err
    assert path.read_bytes() == before
    world.install()
    assert finish(path)[0] == 0
