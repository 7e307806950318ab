"""Every rule of docs/bundle-format.md, violated alone; then damage of every kind at every byte.

The files are packed here by hand, field by field, so that each can be wrong in one place only and
so that the reader is not tested against its own writer.
"""

import copy
import functools
import hashlib
import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from irstd import bundle, container, manifest_json
from irstd.bundle import read_bundle
from irstd.errors import BundleCorrupt, BundleError, BundleMismatch

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "bundle-format.md"
SOURCES = ("container.py", "manifest_json.py", "bundle.py")

Members = list[tuple[str, bytes]]

DEFAULTS = {
    "made_by": 20, "version": 20, "flags": 0, "method": 0, "time": 0, "date": 33, "extra": b"",
    "comment": b"", "disk": 0, "internal": 0, "external": 0,
}  # fmt: skip


def pack(
    members: Members,
    *,
    member: int = 2,
    both: Mapping[str, Any] = {},
    local: Mapping[str, Any] = {},
    central: Mapping[str, Any] = {},
    end: Mapping[str, Any] = {},
    gap: bytes = b"",
    before_directory: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """Pack a zip; the overrides change one member's headers, or the end record."""
    body = b""
    directory = b""
    for number, (name, data) in enumerate(members):
        own = {"name": name.encode("latin-1"), "crc": zlib.crc32(data)}
        own |= {"stored": len(data), "size": len(data), "offset": len(body)}
        fields = DEFAULTS | own
        head, record = fields, fields
        if number == member:
            body += gap
            fields = fields | {"offset": len(body)} | both
            head, record = fields | local, fields | central
        body += struct.pack(
            "<IHHHHHIIIHH", 0x04034B50, head["version"], head["flags"], head["method"],
            head["time"], head["date"], head["crc"], head["stored"], head["size"],
            head.get("name_bytes", len(head["name"])), len(head["extra"]),
        )  # fmt: skip
        body += head["name"] + head["extra"] + data
        directory += struct.pack(
            "<IHHHHHHIIIHHHHHII", 0x02014B50, record["made_by"], record["version"],
            record["flags"], record["method"], record["time"], record["date"], record["crc"],
            record["stored"], record["size"], len(record["name"]), len(record["extra"]),
            len(record["comment"]), record["disk"], record["internal"], record["external"],
            record["offset"],
        )  # fmt: skip
        directory += record["name"] + record["extra"] + record["comment"]
    body += before_directory
    last = {"disk": 0, "directory_disk": 0, "disk_count": len(members), "count": len(members)}
    last |= {"length": len(directory), "offset": len(body), "comment": b""}
    last |= end
    record = struct.pack(
        "<IHHHHIIH", 0x06054B50, last["disk"], last["directory_disk"], last["disk_count"],
        last["count"], last["length"], last["offset"], len(last["comment"]),
    )  # fmt: skip
    return body + directory + record + last["comment"] + tail


MODELS: Members = [("model.onnx", b"plain graph"), ("model.int8.onnx", b"quantised graph")]
REPORT: Members = [*MODELS, ("report.json", b"{}")]


def document(members: Members = MODELS, /, **changes: Any) -> dict[str, Any]:
    """Return a sound manifest of the members, as JSON values; changes are dotted keys' values."""
    engine = {
        "session": "openvino", "library": "openvino 2026.4.1", "member": "model.int8.onnx",
        "median_ms": 1.5, "max_abs_error": 0.25, "passed": True, "chosen": True, "reason": "faster",
    }  # fmt: skip
    result: dict[str, Any] = {
        "format_version": 1,
        "network": "acm",
        "input": {
            "height": 256, "width": 256, "scale": [0.25], "offset": [-1.5], "pad_level": [6.0],
            "bit_depth": 8, "fit": "pad", "per_frame_max": False,
        },
        "threshold": 0.5, "precision": "int8", "target": "cpu", "model": "model.int8.onnx",
        "reference": "model.onnx", "engines": [engine], "global_pooling": True,
        "calibration": "minmax", "int8_form": "cpu", "licences": {"weights": "Apache-2.0"},
        "resolved": {"seed": 0}, "sdk_version": "0.1.0",
        "members": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members
        },
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split("__")
        functools.reduce(lambda node, key: node[key], parents, result)[last] = value
    return result


def sealed(manifest: bytes | dict[str, Any], members: Members = MODELS) -> Members:
    """Return the manifest, its true hash, and the members."""
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    line = f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()
    return [("manifest.json", raw), ("manifest.sha256", line), *members]


def sound(members: Members = MODELS, /, **changes: Any) -> Members:
    return sealed(document(members, **changes), members)


def said(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a bundle whose manifest was changed, with true hashes."""
    manifest = document()
    change(manifest)
    return pack(sealed(manifest))


def with_text(old: str, new: str) -> bytes:
    """Return a bundle with a text in its manifest replaced, with true hashes."""
    text = json.dumps(document())
    assert old in text
    return pack(sealed(text.replace(old, new, 1).encode("utf-8")))


def renamed(name: str) -> bytes:
    """Return a bundle with one more member, sound but for its name."""
    members = [*MODELS, (name, b"data")]
    return pack(sealed(document(members), members))


def engine(**changes: Any) -> dict[str, Any]:
    return document()["engines"][0] | changes


def python_zip(**options: Any) -> bytes:
    """Return a sound bundle's members in a zip as Python writes it, changed by the options."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in sound():
            info = zipfile.ZipInfo(name, options.get("date", (1980, 1, 1, 0, 0, 0)))
            info.compress_type = archive.compression
            archive.writestr(info, data)
        archive.comment = options.get("comment", b"")
    return stream.getvalue()


def sparse(folder: Path) -> Path:
    path = folder / "huge.irstd"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(container.MAX_FILE_BYTES + 1)
    return path


def pipe(folder: Path) -> Path:
    path = folder / "pipe.irstd"
    os.mkfifo(path)
    return path


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "a.irstd"


Case = bytes | Callable[[Path], Path]
WHOLE = pack(sound())

CASES: dict[str, list[Case]] = {
    "file-missing": [lambda folder: folder / "none.irstd"],
    "file-kind": [lambda folder: folder, pipe],
    "file-unreadable": [below_a_file],
    "file-empty": [b""],
    "file-size": [sparse],
    "not-a-bundle": [
        b"x",
        b"\x08\x07\x12\x04onnx" * 30,
        b"#!/bin/sh\n" + WHOLE,
        pack([]),
        b"PK",
    ],
    "truncated": [WHOLE[:-1], WHOLE[:-22], WHOLE[: len(WHOLE) // 2], b"PK\x03\x04"],
    "comment": [pack(sound(), end={"comment": b"hello"}), python_zip(comment=b"hello")],
    "trailing-bytes": [WHOLE + b"\0", WHOLE + b"hidden" * 10_000],
    "end-record": [
        pack(sound(), end={"disk": 1}),
        pack(sound(), end={"directory_disk": 1}),
        pack(sound(), end={"disk_count": 3}),
    ],
    "member-count": [
        pack(sound()[:2]),
        pack(sound(), end={"count": 0xFFFF, "disk_count": 0xFFFF}),
    ],
    "directory-bounds": [
        pack(sound(), end={"offset": 0xFFFFFFFF}),
        pack(sound(), end={"length": 10}),
        pack(sound(), end={"length": 0}),
        WHOLE + WHOLE,
    ],
    "member-bounds": [
        pack(sound(), both={"size": 1 << 20, "stored": 1 << 20}),
        pack(sound(), member=3, both={"size": 16, "stored": 16}),
        pack(sound(), end={"count": 5, "disk_count": 5}),
    ],
    "member-gap": [
        pack(sound(), gap=b"PK"),
        pack(sound(), gap=b"\0" * 64),
        pack(sound(), before_directory=b"hidden"),
        pack(sound(), end={"count": 3, "disk_count": 3}),
    ],
    "zip-version": [pack(sound(), both={"version": 45})],
    "flags": [pack(sound(), both={"flags": 1}), pack(sound(), both={"flags": 8})],
    "compression": [pack(sound(), both={"method": 8}), python_zip(compression=8)],
    "timestamp": [
        pack(sound(), both={"time": 1}),
        pack(sound(), both={"date": 34}),
        python_zip(date=(2026, 1, 1, 0, 0, 0)),
    ],
    "extra-field": [pack(sound(), both={"extra": b"\x01\x00\x00\x00"})],
    "stored-size": [pack(sound(), both={"stored": 3})],
    "member-size": [pack(sound(), both={"size": 1 << 31, "stored": 1 << 31})],
    "name-length": [
        renamed("kernels/a/" + "b" * 119),
        pack(sound(), both={"name": b""}),
        pack(sound(), local={"name_bytes": 0xFFFF}),
    ],
    "name-characters": [
        renamed("Report.json"),
        renamed("report .json"),
        renamed("engines\\x"),
        renamed("c:evil"),
        renamed("engines/a\0b"),
        renamed("engines/\xe9"),
    ],
    "name-path": [
        renamed("../evil"),
        renamed("/etc/passwd"),
        renamed("engines/../../evil"),
        renamed("engines/./x"),
        renamed("engines//x"),
        renamed("engines/"),
        renamed(".."),
    ],
    "name-duplicate": [pack([*sound(), MODELS[1]]), pack(sound(), both={"name": b"manifest.json"})],
    "leading-members": [
        pack(sound()[1:]),
        pack([sound()[1], sound()[0], *MODELS]),
        pack([("a", b""), *sound()]),
    ],
    "directory-repeats": [
        pack(sound(), central={"crc": 0}),
        pack(sound(), central={"name": b"model.onny"}),
        pack(sound(), central={"offset": 0}),
        pack(sound(), central={"external": 1 << 16}),
        pack(sound(), central={"made_by": 0x0314}),
        pack(sound(), central={"comment": b"x"}),
        pack(sound(), central={"extra": b"xxxx"}),
        pack(sound(), member=3, local={"name": b"model.fp32.onnx"}),
        python_zip(),
    ],
    "member-crc": [pack(sound(), both={"crc": 1}), pack(sound(), member=0, both={"crc": 1})],
    "manifest-size": [pack(sealed(json.dumps(document()).encode() + b" " * (1 << 20)))],
    "manifest-hash": [
        pack([("manifest.json", sound()[0][1] + b" "), *sound()[1:]]),
        pack([sound()[0], ("manifest.sha256", b"0" * 64 + b"  manifest.json\n"), *MODELS]),
        pack([sound()[0], ("manifest.sha256", sound()[1][1][:64]), *MODELS]),
        pack([sound()[0], ("manifest.sha256", sound()[1][1].upper()), *MODELS]),
        pack([sound()[0], ("manifest.sha256", b""), *MODELS]),
    ],
    "manifest-encoding": [
        pack(sealed(json.dumps(document()).encode("utf-16"))),
        pack(sealed(b"\xff{}")),
    ],
    "manifest-text": [
        with_text('"acm"', '"\\ud800"'),
        with_text('"seed"', '"\\udfff"'),
        with_text('"acm"', '"\\u001b[2J"'),
        with_text('"acm"', '"\\u0000"'),
        with_text('"acm"', '"\x9b2J"'),
        with_text('{"seed": 0}', '[["\\r"]]'),
    ],
    "manifest-json": [
        pack(sealed(b"")),
        pack(sealed(b"{")),
        pack(sealed(json.dumps(document()).encode() + b"{}")),
        pack(sealed(b"\xef\xbb\xbf" + json.dumps(document()).encode())),
        with_text('"acm"', "'acm'"),
        with_text('"acm"', '"a\ncm"'),
    ],
    "manifest-nesting": [
        with_text('{"seed": 0}', "[" * 100_000 + "]" * 100_000),
        with_text('{"seed": 0}', '{"a":' * 33 + "0" + "}" * 33),
    ],
    "manifest-duplicate-key": [
        with_text('"network"', '"threshold": 0.5, "network"'),
        with_text('{"seed": 0}', '{"seed": 0, "seed": 1}'),
    ],
    "manifest-number": [
        with_text('"threshold": 0.5', '"threshold": NaN'),
        with_text('"threshold": 0.5', '"threshold": -Infinity'),
        with_text('"threshold": 0.5', '"threshold": 1e999'),
        with_text('"seed": 0', '"seed": ' + "9" * 100_000),
    ],
    "format-version": [
        pack(sound(format_version=0)),
        pack(sound(format_version="1")),
        pack(sound(format_version=True)),
        pack(sound(format_version=1.0)),
        pack(sealed(b"{}")),
    ],
    "format-newer": [pack(sound(format_version=2)), pack(sealed(b'{"format_version": 7}'))],
    "manifest-keys": [
        pack(sound(colour="red")),
        pack(sound(input__colour="red")),
        pack(sound(engines=[engine(colour="red")])),
        said(lambda manifest: manifest.pop("network")),
        said(lambda manifest: manifest.pop("members")),
        said(lambda manifest: manifest["input"].pop("bit_depth")),
        said(lambda manifest: manifest["members"]["model.onnx"].pop("size")),
    ],
    "manifest-type": [
        pack(sealed(b"[]")),
        pack(sound(network=7)),
        pack(sound(network=None)),
        pack(sound(input=[])),
        pack(sound(input__height=256.0)),
        pack(sound(input__height=True)),
        pack(sound(input__scale=0.25)),
        pack(sound(input__scale=["1"])),
        pack(sound(threshold="0.5")),
        pack(sound(engines={})),
        pack(sound(engines=[engine(passed=1)])),
        pack(sound(global_pooling=0)),
        pack(sound(licences=["MIT"])),
        pack(sound(licences={"weights": None})),
        pack(sound(resolved=[])),
        pack(sound(members=[])),
        pack(sound(members={"model.onnx": 11})),
    ],
    "manifest-choice": [
        pack(sound(precision="int4")),
        pack(sound(precision=8)),
        pack(sound(input__fit="stretch")),
    ],
    "manifest-input": [
        pack(sound(input__height=0)),
        pack(sound(input__width=-256)),
        pack(sound(input__bit_depth=9)),
        pack(sound(input__scale=[1.0, 1.0])),
        pack(sound(input__offset=[])),
    ],
    "input-size": [pack(sound(input__height=1 << 30)), pack(sound(input__width=16385))],
    "target": [pack(sound(target="jetson-zeta")), pack(sound(target=""))],
    "threshold": [pack(sound(threshold=value)) for value in (0, 1, -0.5, 50)],
    "int8-form": [
        pack(sound(int8_form="amd")),
        pack(sound(int8_form=None)),
        pack(sound(precision="fp32", model="model.onnx")),
    ],
    "engine-choice": [
        pack(sound(engines=[engine(), engine()])),
        pack(sound(engines=[engine(passed=False)])),
    ],
    "member-unlisted": [pack([*sound(), ("report.json", b"{}")])],
    "member-missing": [pack(sound(REPORT)[:-1]), pack(sound()[:-1])],
    "member-length": [
        said(lambda manifest: manifest["members"]["model.onnx"].update(size=12)),
        said(lambda manifest: manifest["members"]["model.onnx"].update(size=-1)),
    ],
    "member-hash": [
        pack([*sound()[:2], ("model.onnx", b"plain Graph"), MODELS[1]]),
        said(lambda manifest: manifest["members"]["model.onnx"].update(sha256="")),
        said(lambda manifest: manifest["members"]["model.onnx"].update(sha256="A" * 64)),
    ],
    "member-unexpected": [
        renamed("readme.md"),
        renamed("model.int4.onnx"),
        renamed("golden/frame_000.pkl"),
        renamed("engines/a/b"),
        renamed("kernels/a"),
    ],
    "member-order": [pack(sound([MODELS[1], MODELS[0]])), pack(sound([REPORT[2], *MODELS]))],
    "reference-member": [
        pack(sound(reference="model.int8.onnx")),
        pack(sound(MODELS[1:])),
    ],
    "model-member": [
        pack(sound(model="report.json")),
        pack(sound(model="model.onnx")),
        pack(sound(model="../model.onnx")),
        pack(sound(MODELS[:1])),
        pack(sound(precision="fp16", int8_form=None)),
    ],
    "engine-member": [pack(sound(engines=[engine(member="engines/none.plan")]))],
}

# Shown by a test of its own: it is about a file that changes after it was opened.
ALONE = {"member-changed": "test_member_changed_after_opening"}

MISMATCHES = ("format-newer", "target")
NO_BUNDLE_AT_ALL = ("file-missing", "file-kind", "file-unreadable")


@pytest.fixture()
def place(tmp_path: Path) -> Iterator[Callable[[Case], Path]]:
    """Return a function that puts a case on disk."""

    def put(case: Case) -> Path:
        if isinstance(case, bytes):
            path = tmp_path / "case.irstd"
            path.write_bytes(case)
            return path
        return case(tmp_path)

    return put


def test_hand_packed_bundle_is_accepted(place: Callable[[Case], Path]) -> None:
    opened = read_bundle(place(WHOLE))
    assert opened.read("model.int8.onnx") == b"quantised graph"
    assert opened.sha256 == hashlib.sha256(WHOLE).hexdigest()
    assert list(opened.members) == ["model.onnx", "model.int8.onnx"]


@pytest.mark.parametrize("rule", CASES)
def test_rule(rule: str, place: Callable[[Case], Path]) -> None:
    for number, case in enumerate(CASES[rule]):
        path = place(case)
        with pytest.raises(BundleError) as caught:
            read_bundle(path)
        message = str(caught.value)
        wanted: type[BundleError] = BundleCorrupt
        if rule in MISMATCHES:
            wanted = BundleMismatch
        elif rule in NO_BUNDLE_AT_ALL:
            wanted = BundleError
        assert type(caught.value) is wanted, f"case {number}: {message}"
        assert message.endswith(f"(rule: {rule})"), f"case {number}: {message}"
        assert message.startswith(f"{path}: "), message
        assert len(message.splitlines()) == 1, message
        assert len(message) < len(str(path)) + 400, message


def test_newer_version_names_itself_and_the_way_out(place: Callable[[Case], Path]) -> None:
    with pytest.raises(BundleMismatch, match=r"version 7 .*reads up to 1: upgrade") as caught:
        read_bundle(place(pack(sealed(b'{"format_version": 7, "new": []}'))))
    assert caught.value.exit_code == 6


def test_newer_version_may_have_members_unknown_here(place: Callable[[Case], Path]) -> None:
    members = [*MODELS, ("variants/a.onnx", b"new")]
    with pytest.raises(BundleMismatch, match="format-newer"):
        read_bundle(place(pack(sealed(document(members, format_version=2), members))))


def test_rule_is_found_before_contents_are_read(
    place: Callable[[Case], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is container, manifest hash, manifest, members: later damage is never reached."""
    order = ["trailing-bytes", "manifest-hash", "manifest-keys", "member-hash"]
    members = sound(colour="red")
    members[2] = ("model.onnx", b"plain Graph")
    unhashed = [("manifest.json", members[0][1] + b" "), *members[1:]]
    layered = [pack(unhashed, tail=b"x"), pack(unhashed), pack(members)]
    layered.append(pack([*sound()[:2], *members[2:]]))
    for rule, case in zip(order, layered, strict=True):
        with pytest.raises(BundleCorrupt, match=re.escape(f"(rule: {rule})")):
            read_bundle(place(case))
    parsed = []
    monkeypatch.setattr(bundle, "parse_manifest", parsed.append)
    with pytest.raises(BundleCorrupt, match="manifest-hash"):
        read_bundle(place(pack(unhashed)))
    assert not parsed


def test_absurd_claims_cost_no_memory(place: Callable[[Case], Path]) -> None:
    class Spy(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.largest = max(self.largest, len(self.getvalue()) if size in (None, -1) else size)
            return super().read(size)

    for rule in ("member-size", "member-bounds", "name-length", "member-count", "truncated"):
        for case in CASES[rule]:
            assert isinstance(case, bytes)
            spy = Spy(case)
            with pytest.raises(BundleCorrupt):
                container.read_container(spy)
            assert spy.largest <= 1 << 17


def test_file_that_shrinks_while_it_is_read() -> None:
    opened = io.BytesIO(WHOLE)
    entries = container.read_container(opened)
    opened.truncate(entries[-1].offset + 3)
    with pytest.raises(BundleCorrupt, match="truncated"):
        container.hash_data(opened, entries[-1])
    with pytest.raises(BundleCorrupt, match="truncated"):
        container.read_data(opened, entries[-1])


def test_member_changed_after_opening(place: Callable[[Case], Path]) -> None:
    opened = read_bundle(place(WHOLE))
    place(WHOLE.replace(b"quantised graph", b"quantised grapH"))
    assert opened.read("model.onnx") == b"plain graph"
    with pytest.raises(BundleCorrupt, match=r"open it again \(rule: member-changed\)"):
        opened.read("model.int8.onnx")
    place(WHOLE[:100])
    with pytest.raises(BundleCorrupt, match="member-changed"):
        opened.read("model.onnx")
    opened.path.unlink()
    with pytest.raises(BundleError, match="file-missing"):
        opened.read("model.onnx")


@pytest.mark.parametrize("mask", [1 << bit for bit in range(8)])
def test_every_flipped_byte_is_refused(mask: int, place: Callable[[Case], Path]) -> None:
    for position in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position] ^= mask
        with pytest.raises((BundleCorrupt, BundleMismatch)):
            read_bundle(place(bytes(damaged)))


def test_every_truncation_is_refused(place: Callable[[Case], Path]) -> None:
    for length in range(len(WHOLE)):
        with pytest.raises(BundleCorrupt):
            read_bundle(place(WHOLE[:length]))


def test_every_inserted_or_lost_byte_is_refused(place: Callable[[Case], Path]) -> None:
    for position in range(len(WHOLE) + 1):
        with pytest.raises(BundleCorrupt):
            read_bundle(place(WHOLE[:position] + b"\0" + WHOLE[position:]))
        if position < len(WHOLE):
            with pytest.raises(BundleCorrupt):
                read_bundle(place(WHOLE[:position] + WHOLE[position + 1 :]))


STRANGE = (None, True, -1, 0, 10**17, 1e308, "", "x\n\x1b[2J", "\ud800", [], [[]], {}, {"": None})


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document, inner ones too."""
    if path:
        yield path
    if isinstance(node, dict):
        children: Any = node.items()
    else:
        children = enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))


def test_strange_value_anywhere_in_the_manifest(place: Callable[[Case], Path]) -> None:
    """With true hashes, a value of another kind is accepted or refused, never a crash."""
    refused = 0
    cases = [(path, strange) for path in leaves(document()) for strange in STRANGE]
    for path, strange in cases:
        manifest = copy.deepcopy(document())
        functools.reduce(lambda node, key: node[key], path[:-1], manifest)[path[-1]] = strange
        try:
            read_bundle(place(pack(sealed(manifest))))
        except BundleError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, repr(str(error))
    assert refused > len(cases) / 2


def documented_rules() -> dict[str, tuple[int, str]]:
    """Return the number and the test of each rule in the document."""
    row = re.compile(r"^\| (\d+) \| `([a-z0-9-]+)` \| .+ \| `(test_\S+)` \|$", re.MULTILINE)
    rows = row.findall(DOCUMENT.read_text("utf-8"))
    rules = {rule: (int(number), test) for number, rule, test in rows}
    assert len(rules) == len(rows), "a rule occurs twice"
    return rules


def test_document_code_and_tests_have_the_same_rules() -> None:
    code = "".join((ROOT / "sdk" / name).read_text("utf-8") for name in SOURCES)
    raised = set(re.findall(r'violation\(\s*"([a-z0-9-]+)"', code))
    raised |= set(re.findall(r"\(rule: ([a-z0-9-]+)\)", code))
    documented = documented_rules()
    assert set(documented) == raised
    tests = {rule: f"test_rule[{rule}]" for rule in CASES} | ALONE
    assert {rule: test for rule, (_, test) in documented.items()} == tests
    assert [number for number, _ in documented.values()] == list(range(1, len(documented) + 1))
    assert set(ALONE.values()) <= set(globals())


def test_document_states_the_constants() -> None:
    text = DOCUMENT.read_text("utf-8")
    for module, name in (
        (container, "MAX_FILE_BYTES"),
        (container, "MAX_MEMBER_BYTES"),
        (container, "MAX_MEMBERS"),
        (container, "MAX_NAME_BYTES"),
        (manifest_json, "MAX_MANIFEST_BYTES"),
        (manifest_json, "MAX_NESTING"),
        (manifest_json, "MAX_SIDE_PX"),
    ):
        assert f"| `{name}` | {getattr(module, name)} |" in text
    for pattern in bundle.MEMBER_PATTERNS:
        assert f"`{pattern.pattern}`" in text.replace("\\|", "|")
