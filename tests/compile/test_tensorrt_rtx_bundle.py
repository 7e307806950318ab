"""Bundles for RTX cards: with the engine where it can be built, and saying so where it cannot."""

import importlib.util
import json

import pytest

from irstd.bundle import read_bundle
from irstd.compile.builders import tensorrt_rtx, tensorrt_rtx_bundle
from irstd.compile.builders.tensorrt_rtx import RtxEngine, engine_key
from irstd.compile.builders.tensorrt_rtx_bundle import engine_facts, rtx_trials
from irstd.compile.builders.tensorrt_rtx_layers import EngineLayer
from irstd.compile.summary import describe_build, inspect_report
from irstd.errors import BuildError
from irstd.targets import find_target

LAYER = EngineLayer("middle_myl0_1", "correlation", ("middle",), ("Half",), ("Half",), ("Half",), 8)


@pytest.fixture
def builder(monkeypatch):
    """A stand-in for the process that builds; it counts its builds."""
    builds = []

    def build(model, capability, tell):
        builds.append(capability)
        return RtxEngine(b"plan\n of bytes", "tensorrt_rtx 9", capability, (LAYER,), 0.5)

    monkeypatch.setattr(tensorrt_rtx_bundle, "build_rtx_engine", build)
    monkeypatch.setattr(tensorrt_rtx_bundle, "rtx_library", lambda: "tensorrt_rtx 9")
    return builds


def test_a_bundle_for_a_card_holds_its_engine(build, require):
    if not importlib.util.find_spec("tensorrt_rtx_bindings"):
        require("rtx", "TensorRT for RTX is not installed")
    result = build(precision="int8", target="rtx-30")
    bundle = read_bundle(result.path)
    (member,) = (name for name in bundle.members if name.startswith("engines/"))
    facts = json.loads(bundle.read("report.json"))["engines_built"][member]
    assert facts["capability"] == [8, 6]
    assert facts["library"] == tensorrt_rtx.rtx_library()
    assert facts["plan_bytes"] == len(bundle.read(member))
    assert facts["convolutions"] == {"fp16": 4, "int8": 3}  # all but first, gate, up and head
    assert result.manifest.engines == ()  # it was not run
    assert member in result.report["engines_refused"]["tensorrt_rtx"]
    assert "to be proven on the card" in describe_build(result)
    assert inspect_report(result.path)["engines_built"] == {member: facts}
    assert build("again.irstd", precision="int8", target="rtx-30").sha256 == result.sha256


def test_without_the_library_the_bundle_is_portable_and_says_so(build, monkeypatch, caplog):
    monkeypatch.setattr(tensorrt_rtx, "MODULES", ("no_such_module",))
    result = build(precision="fp16", target="rtx-40", cache=None, use_cache=False)
    assert not [name for name in read_bundle(result.path).members if name.startswith("engines/")]
    reason = result.report["engines_refused"]["tensorrt_rtx"]
    assert reason.startswith("not built: TensorRT for RTX is not installed; pip install")
    assert reason in describe_build(result)
    assert "no engine for rtx-40 in the bundle" in caplog.text


def test_a_graph_that_is_refused_leaves_the_bundle_portable(builder, monkeypatch, make_tiny):
    def refuse(model, capability, tell):
        raise BuildError("node 'a' (DFT): no plugin; write it in standard operators")

    monkeypatch.setattr(tensorrt_rtx_bundle, "build_rtx_engine", refuse)
    trials = rtx_trials(make_tiny().SerializeToString(), find_target("rtx-50"))
    assert trials.members == trials.built == {}
    assert "node 'a' (DFT)" in trials.refused["tensorrt_rtx"]


def test_an_engine_is_built_once_a_graph_card_and_library(
    builder, make_tiny, tmp_path, monkeypatch
):
    model = make_tiny().SerializeToString()

    def trials(target):
        return rtx_trials(model, find_target(target), tmp_path)

    first = trials("rtx-30")
    assert trials("rtx-30") == first
    assert builder == [(8, 6)]
    assert list(first.members.values()) == [b"plan\n of bytes"]
    other = trials("rtx-40")
    assert builder == [(8, 6), (8, 9)]
    assert first.members.keys().isdisjoint(other.members)
    monkeypatch.setattr(tensorrt_rtx_bundle, "rtx_library", lambda: "tensorrt_rtx 10")
    trials("rtx-40")
    assert len(builder) == 3


@pytest.mark.parametrize("target", ["cpu", "jetson-agx-orin"])
def test_other_targets_get_none(target, builder, make_tiny):
    trials = rtx_trials(make_tiny().SerializeToString(), find_target(target))
    assert (trials.members, trials.refused, builder) == ({}, {}, [])


def test_facts_of_an_engine_that_tells_no_layers(make_tiny):
    model = make_tiny().SerializeToString()
    engine = RtxEngine(b"plan", "tensorrt_rtx 9", (8, 9), (), 1.0)
    facts = engine_facts(model, engine)
    assert (facts["layers"], facts["convolutions"], facts["moved_bytes"]) == (None, None, None)
    assert len(engine_key(model, engine)) == 32
