"""What a sound bundle is good for: round trips, the same bytes each time, any zip program."""

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstd import bundle, container, manifest_json
from irstd.bundle import read_bundle, write_bundle
from irstd.errors import BundleCorrupt, BundleError, BundleMismatch
from irstd.manifest import EngineChoice, Manifest
from irstd.manifest_json import MemberInfo, parse_manifest, serialise_manifest
from irstd.targets import TARGETS
from irstd.types import BIT_DEPTHS, Fit, InputSpec, Precision

MEMBERS = {
    "report.json": b"{}",
    "golden/tolerance.json": b'{"max_abs_logit": 0.1}',
    "golden/frame_001.npy": b"frame 1",
    "golden/frame_000.npy": b"frame 0",
    "kernels/haar_gate/haar_gate.cu": b"code",
    "engines/0a1b.plan": bytes(range(256)),
    "scales.json": b"{}",
    "model.int8.onnx": b"quantised graph",
    "model.onnx": b"plain graph",
}
IN_ORDER = (
    "model.onnx",
    "model.int8.onnx",
    "scales.json",
    "engines/0a1b.plan",
    "kernels/haar_gate/haar_gate.cu",
    "golden/frame_000.npy",
    "golden/frame_001.npy",
    "golden/tolerance.json",
    "report.json",
)
MANIFEST = Manifest(
    network="acm",
    input=InputSpec(256, 320, scale=(0.25,), offset=(-1.5,), pad_level=(6.0,), bit_depth=14),
    threshold=0.5,
    precision=Precision.INT8,
    target="cpu",
    model="model.int8.onnx",
    reference="model.onnx",
    engines=(
        EngineChoice("openvino", "openvino 2026", "model.int8.onnx", 1.5, 0.25, True, True, "wins"),
        EngineChoice("onnxruntime", "ort 1.31", "model.int8.onnx", None, 0.5, False, False, "off"),
    ),
    global_pooling=None,
    calibration="minmax",
    int8_form="cpu",
    licences={"weights": "Apache-2.0\nnach Müller"},
    resolved={"seed": 0, "budget": {"hse": -0.3}, "list": [1, "a", None, True]},
    sdk_version="0.1.0",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acm.irstd"


def test_what_is_written_is_read(path: Path) -> None:
    digest = write_bundle(path, MANIFEST, MEMBERS)
    opened = read_bundle(path)
    assert opened.manifest == MANIFEST
    assert opened.path == path
    assert opened.sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tuple(opened.members) == IN_ORDER
    for name, data in MEMBERS.items():
        assert opened.read(name) == data
        assert opened.members[name] == MemberInfo(len(data), hashlib.sha256(data).hexdigest())


def test_member_that_is_not_there(path: Path) -> None:
    write_bundle(path, MANIFEST, MEMBERS)
    with pytest.raises(BundleError, match=r"no member 'manifest\.json'; there are model\.onnx, "):
        read_bundle(path).read("manifest.json")


def test_same_inputs_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    first = write_bundle(path, MANIFEST, MEMBERS)
    resolved = {name: MANIFEST.resolved[name] for name in sorted(MANIFEST.resolved, reverse=True)}
    reordered = dataclasses.replace(MANIFEST, resolved=MappingProxyType(resolved))
    other = tmp_path / "other.irstd"
    assert write_bundle(other, reordered, dict(sorted(MEMBERS.items()))) == first
    assert other.read_bytes() == path.read_bytes()
    assert write_bundle(path, dataclasses.replace(MANIFEST, threshold=0.25), MEMBERS) != first


def test_any_zip_program_lists_and_extracts_it(path: Path, tmp_path: Path) -> None:
    write_bundle(path, MANIFEST, MEMBERS)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert tuple(info.filename for info in infos[2:]) == IN_ORDER
        assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path / "out")
    for name, data in MEMBERS.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    line = (tmp_path / "out" / "manifest.sha256").read_text("ascii")
    raw = (tmp_path / "out" / "manifest.json").read_bytes()
    assert line == f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n"


def test_sha256sum_takes_the_hash_file(path: Path, tmp_path: Path) -> None:
    write_bundle(path, MANIFEST, MEMBERS)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    try:
        done = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=tmp_path, check=False)
    except FileNotFoundError:
        pytest.skip("no sha256sum here")
    assert done.returncode == 0


def test_bundle_written_again_by_zipfile_is_refused(path: Path, tmp_path: Path) -> None:
    write_bundle(path, MANIFEST, MEMBERS)
    again = tmp_path / "again.irstd"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w") as copy:
        for info in source.infolist():
            copy.writestr(info, source.read(info))
    with pytest.raises(BundleCorrupt):
        read_bundle(again)


def test_data_may_look_like_a_zip(path: Path) -> None:
    inner = b"PK\x03\x04" + b"PK\x05\x06" + b"\0" * 18 + b"PK\x01\x02"
    write_bundle(path, MANIFEST, MEMBERS | {"report.json": inner})
    assert read_bundle(path).read("report.json") == inner


@pytest.mark.parametrize(
    ("change", "members", "rule"),
    [
        ({}, {"notes.txt": b""}, "member-unexpected"),
        ({}, {"manifest.json": b"{}"}, "member-unexpected"),
        ({}, {"engines/..": b""}, "name-path"),
        ({}, {"engines/\n": b""}, "name-characters"),
        ({}, {"engines/" + "a" * 121: b""}, "name-length"),
        ({"model": "model.fp16.onnx"}, {}, "model-member"),
        ({"threshold": float("nan")}, {}, "manifest-json"),
        ({"resolved": {"path": Path("x")}}, {}, "manifest-json"),
        ({"resolved": {1: "x"}}, {}, "manifest-json"),
        ({"network": "a\x1bm"}, {}, "manifest-text"),
        ({"network": 3}, {}, "manifest-type"),
        ({"licences": {"weights": "x" * (1 << 20)}}, {}, "manifest-size"),
        ({"target": "abacus"}, {}, "target"),
    ],
)
@pytest.mark.parametrize("before", [None, b"the old file"])
def test_what_cannot_be_read_is_not_written(
    path: Path,
    change: Mapping[str, Any],
    members: Mapping[str, bytes],
    rule: str,
    before: bytes | None,
) -> None:
    if before is not None:
        path.write_bytes(before)
    manifest = dataclasses.replace(MANIFEST, **change)
    with pytest.raises((BundleCorrupt, BundleMismatch), match=rf"\(rule: {rule}\)") as caught:
        write_bundle(path, manifest, MEMBERS | dict(members))
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert list(path.parent.iterdir()) == ([] if before is None else [path])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    ("limit", "value", "rule"),
    [
        ("MAX_FILE_BYTES", 6000, "file-size"),
        ("MAX_MEMBER_BYTES", 5000, "member-size"),
        ("MAX_MEMBERS", 10, "member-count"),
    ],
)
def test_limits_hold_for_the_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, rule: str
) -> None:
    members = MEMBERS | {"engines/0a1b.plan": bytes(5001)}
    write_bundle(path, MANIFEST, members)
    path.unlink()
    monkeypatch.setattr(container, limit, value)
    with pytest.raises(BundleCorrupt, match=rf"\(rule: {rule}\)"):
        write_bundle(path, MANIFEST, members)
    assert not list(path.parent.iterdir())


def test_disk_full_leaves_the_old_bundle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(path, MANIFEST, MEMBERS)
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(path, dataclasses.replace(MANIFEST, threshold=0.25), MEMBERS)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_numpy_numbers_are_written_as_numbers(path: Path) -> None:
    seed = np.int64(7)
    manifest = dataclasses.replace(
        MANIFEST, threshold=np.float32(0.25), resolved={"seed": seed, "pair": (1, Precision.INT8)}
    )
    write_bundle(path, manifest, MEMBERS)
    opened = read_bundle(path).manifest
    assert opened.threshold == 0.25
    assert opened.resolved == {"seed": 7, "pair": [1, "int8"]}


def test_fp32_bundle_may_deploy_its_reference(path: Path) -> None:
    manifest = dataclasses.replace(
        MANIFEST,
        precision=Precision.FP32,
        model="model.onnx",
        calibration=None,
        int8_form=None,
        engines=(),
    )
    write_bundle(path, manifest, {"model.onnx": b"graph"})
    assert read_bundle(path).manifest == manifest


def test_manifest_keys_are_the_dataclass_fields() -> None:
    document = json.loads(serialise_manifest(MANIFEST, {}))
    fields = {field.name for field in dataclasses.fields(Manifest)}
    assert set(document) == fields | {"format_version", "members"}


def test_leading_members_have_no_place_among_the_others() -> None:
    for name in container.LEADING_MEMBERS:
        assert not any(pattern.fullmatch(name) for pattern in bundle.MEMBER_PATTERNS)


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
sides = st.integers(1, manifest_json.MAX_SIDE_PX)


@st.composite
def input_specs(draw: st.DrawFn) -> InputSpec:
    channels = draw(st.sampled_from([1, 3]))
    values = st.tuples(*[floats] * channels)
    return InputSpec(
        draw(sides),
        draw(sides),
        draw(values),
        draw(values),
        draw(values),
        draw(st.sampled_from(BIT_DEPTHS)),
        draw(st.sampled_from(Fit)),
        draw(st.booleans()),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    precision = draw(st.sampled_from(Precision))
    engines = st.builds(
        EngineChoice,
        texts,
        texts,
        st.just("model.onnx"),
        st.none() | floats,
        floats,
        st.booleans(),
        st.just(False),
        texts,
    )
    return Manifest(
        network=draw(texts),
        input=draw(input_specs()),
        threshold=draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
        precision=precision,
        target=draw(st.sampled_from(sorted(TARGETS))),
        model=f"model.{precision.value}.onnx",
        reference="model.onnx",
        engines=tuple(draw(st.lists(engines, max_size=2))),
        global_pooling=draw(st.none() | st.booleans()),
        calibration=draw(st.none() | texts),
        int8_form="nvidia" if precision is Precision.INT8 else None,
        licences=draw(st.dictionaries(texts, texts, max_size=2)),
        resolved=draw(st.dictionaries(texts, json_values, max_size=3)),
        sdk_version=draw(texts),
    )


parts = st.from_regex(r"[a-z0-9_-][a-z0-9._-]{0,20}", fullmatch=True)
names = st.one_of(
    st.sampled_from(["scales.json", "report.json"]),
    parts.map("engines/{}".format),
    st.tuples(parts, parts).map("kernels/{0[0]}/{0[1]}".format),
    parts.map("golden/{}.npy".format),
)


@settings(max_examples=60, deadline=None)
@given(manifests(), st.dictionaries(names, st.binary(max_size=200), max_size=6), st.binary())
def test_round_trip(manifest: Manifest, members: dict[str, bytes], graph: bytes) -> None:
    members = members | {"model.onnx": b"", manifest.model: graph}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.irstd"
        digest = write_bundle(path, manifest, members)
        opened = read_bundle(path)
        assert opened.manifest == manifest
        assert {name: opened.read(name) for name in opened.members} == members
        with zipfile.ZipFile(path) as archive:
            assert {name: archive.read(name) for name in members} == members
        again = Path(folder) / "b.irstd"
        assert write_bundle(again, opened.manifest, members) == digest
        assert again.read_bytes() == path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(manifests())
def test_manifest_round_trip_is_stable(manifest: Manifest) -> None:
    info = {"model.onnx": MemberInfo(3, "0" * 64)}
    raw = serialise_manifest(manifest, info)
    parsed, members = parse_manifest(raw)
    assert (parsed, members) == (manifest, info)
    assert serialise_manifest(parsed, members) == raw
    assert raw.isascii()
