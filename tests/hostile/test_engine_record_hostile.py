"""Every rule of engines in docs/bundle-format.md, violated alone; refusing needs no TensorRT."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irstd import open_bundle
from irstd.bundle import read_bundle, write_bundle
from irstd.engine_record import (
    PLUGIN_GRAPH,
    EngineDevice,
    EngineKey,
    EngineRecord,
    differences,
    member_names,
    parse_record,
)
from irstd.errors import BundleCorrupt, BundleMismatch
from irstd.files import sha256_hex
from irstd.manifest import EngineChoice, Manifest
from irstd.runtime import finished
from irstd.types import Fit, InputSpec, Precision

GRAPH, PLAN, TIMING, LIBRARY = b"plain graph", b"plan", b"timings", b"library"
WITH_PLUGINS = b"graph with plugin nodes"
HERE = EngineDevice(
    "TensorRT 10.3.0", 12, "Orin", "NVIDIA Jetson Orin Nano Developer Kit", 87, 8, "L4T 36.4.3"
)
KEY = EngineKey(
    sha256_hex(WITH_PLUGINS),
    "fp32",
    HERE,
    ("optimization_level=3",),
    {"haar_gate": sha256_hex(LIBRARY)},
)
MEMBER = "kernels/haar_gate/x.so"
RECORD = EngineRecord(
    KEY, sha256_hex(PLAN), sha256_hex(TIMING), {"haar_gate": MEMBER}, "0.1.0"
)  # fmt: skip
MANIFEST = Manifest(
    network="tiny",
    input=InputSpec(32, 32, (1.0,), (0.0,), (0.0,), 8, Fit.PAD),
    threshold=0.5,
    precision=Precision.FP32,
    target="jetson-orin-nano",
    model="model.onnx",
    reference="model.onnx",
    engines=(),
    global_pooling=None,
    calibration=None,
    int8_form=None,
    licences={},
    resolved={},
    sdk_version="0.1.0",
)
Members = dict[str, bytes]


def members(record: EngineRecord = RECORD) -> Members:
    """Return the members of a sound bundle with that record."""
    plan, timing, beside = member_names(record.key.digest)
    return {
        "model.onnx": GRAPH, plan: PLAN, timing: TIMING, beside: record.to_json(), MEMBER: LIBRARY,
        PLUGIN_GRAPH: WITH_PLUGINS,
    }  # fmt: skip


def keyed(**changes: Any) -> Members:
    """Return members whose key was changed, and is true to its name."""
    return members(dataclasses.replace(RECORD, key=dataclasses.replace(KEY, **changes)))


def elsewhere(**changes: Any) -> Members:
    return keyed(device=dataclasses.replace(HERE, **changes))


def said(change: Callable[[Any], object]) -> Members:
    """Return members whose record went through a function, as JSON values."""
    document = json.loads(RECORD.to_json())
    change(document)
    return raw(json.dumps(document).encode())


def raw(data: bytes) -> Members:
    """Return members with such bytes for a record."""
    return members() | {member_names(KEY.digest)[2]: data}


def without(suffix: str) -> Members:
    return {name: data for name, data in members().items() if not name.endswith(suffix)}


CASES: dict[str, list[Members]] = {
    "engine-record": [
        without(".json"),
        raw(b""),
        raw(b"null"),
        raw(b"[]"),
        raw(b"[" * 60_000),
        raw(b'{"key": ' + b"9" * 6000 + b"}"),
        raw(b"\xff" + RECORD.to_json()),
        raw(RECORD.to_json() + b" " * (1 << 16)),
        said(lambda record: record.pop("sdk_version")),
        said(lambda record: record.update(colour="red")),
        said(lambda record: record["key"].pop("precision")),
        said(lambda record: record["key"]["device"].update(colour="red")),
        said(lambda record: record["key"].update(device=None)),
        said(lambda record: record["key"].update(flags=None)),
        said(lambda record: record["key"].update(flags=[7])),
        said(lambda record: record["key"].update(plugins=[])),
        said(lambda record: record["key"].update(plugins={"haar_gate": None})),
        said(lambda record: record["key"]["device"].update(architecture="87")),
        said(lambda record: record["key"]["device"].update(architecture=True)),
        said(lambda record: record["key"]["device"].update(multiprocessors=-1)),
        said(lambda record: record["key"]["device"].update(driver="\x1b[2J")),
        said(lambda record: record["key"]["device"].update(board="x" * 201)),
        said(lambda record: record.update(plan_sha256="0" * 63)),
        said(lambda record: record.update(plan_sha256="G" * 64)),
        said(lambda record: record.update(timing_sha256=None)),
        said(lambda record: record.update(libraries=None)),
    ],
    "engine-key": [
        said(lambda record: record["key"].update(precision="fp16")),
        said(lambda record: record["key"]["device"].update(driver="L4T 36.4.7")),
        keyed(graph_sha256=sha256_hex(b"another graph")),
        keyed(graph_sha256=sha256_hex(GRAPH)),
        keyed(plugins={}),
        without(PLUGIN_GRAPH),
    ],
    "engine-files": [
        said(lambda record: record.update(plan_sha256=sha256_hex(b"another plan"))),
        said(lambda record: record.update(timing_sha256=sha256_hex(b"others"))),
        members() | {member_names(KEY.digest)[0]: b"another plan"},
        without(".timing"),
    ],
    "engine-plugins": [
        without(".so"),
        members() | {MEMBER: b"another library"},
        said(lambda record: record.update(libraries={})),
        said(lambda record: record.update(libraries={"haar_gate": "model.onnx"})),
        said(lambda record: record.update(libraries={"haar_gate": "kernels/haar_gate/../x.so"})),
        keyed(plugins={}, graph_sha256=sha256_hex(GRAPH)),
        keyed(plugins={"haar_gate": sha256_hex(LIBRARY), "spectral_split": "0" * 64}),
    ],
    "engine-device": [
        elsewhere(library="TensorRT 10.16.2"),
        elsewhere(cuda_major=13),
        elsewhere(gpu="Thor"),
        elsewhere(board="NVIDIA Jetson AGX Orin Developer Kit"),
        elsewhere(architecture=110),
        elsewhere(multiprocessors=4),
        elsewhere(driver="L4T 39.2.0"),
    ],
}


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Members], Path]:
    """Return a function that writes a bundle whose engine is to run on HERE."""
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(finished, "this_device", lambda: (HERE, None))

    def write(data: Members) -> Path:
        (plan,) = [name for name in data if name.endswith(".plan")]
        choice = EngineChoice("tensorrt", "TensorRT", plan, None, 0.0, True, True, "built")
        path = tmp_path / "a.irstd"
        write_bundle(path, dataclasses.replace(MANIFEST, engines=(choice,)), data)
        return path

    return write


@pytest.mark.parametrize("rule", CASES)
def test_rule(
    rule: str, bundle: Callable[[Members], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused by name before a byte of the plan or a library is used, and can be read."""

    def never(*arguments: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(finished, "load_plugin", never)
    monkeypatch.setattr("irstd.runtime.detector.open_session", never)
    kind = BundleMismatch if rule == "engine-device" else BundleCorrupt
    for data in CASES[rule]:
        path = bundle(data)
        for engine in ("auto", "tensorrt"):
            with pytest.raises(kind) as raised:
                open_bundle(path, engine=engine)
            assert f"(rule: {rule})" in str(raised.value)
            assert str(path) in str(raised.value)
            assert "\n" not in str(raised.value)
            assert "\x1b" not in str(raised.value)
        read_bundle(path)


def test_a_sound_engine_is_loaded_after_its_plugins(
    bundle: Callable[[Members], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, Path]] = []
    monkeypatch.setattr(finished, "load_plugin", lambda op, path: loaded.append((op, path)))
    read = read_bundle(bundle(members()))
    finished.prepare_plan(read, read.manifest.engines[0].member)
    ((op, library),) = loaded
    assert (op, library.read_bytes()) == ("haar_gate", LIBRARY)


def test_record_round_trip() -> None:
    assert parse_record(RECORD.to_json(), "here") == RECORD
    assert parse_record(RECORD.to_json(), "here").key.digest == KEY.digest


@pytest.mark.parametrize("field", ["graph_sha256", "precision", "flags", "plugins"])
def test_each_part_of_the_key_counts(field: str) -> None:
    other: dict[str, Any] = {
        "graph_sha256": "0" * 64, "precision": "int8", "flags": (), "plugins": {},
    }  # fmt: skip
    assert dataclasses.replace(KEY, **{field: other[field]}).digest != KEY.digest


def test_differences_name_both_sides() -> None:
    now = dataclasses.replace(HERE, library="TensorRT 10.16.2", driver="L4T 39.2.0", board="")
    assert differences(HERE, now) == [
        "TensorRT 10.3.0 there, TensorRT 10.16.2 here",
        "board NVIDIA Jetson Orin Nano Developer Kit there, none here",
        "driver L4T 36.4.3 there, L4T 39.2.0 here",
    ]
    assert differences(HERE, HERE) == []
