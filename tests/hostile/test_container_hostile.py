"""Every rule of the file and the container in docs/bundle-format.md, violated alone.

The files are packed here by hand, field by field, so that each can be wrong in one place only and
the reader is not tested against its own writer.
"""

import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irstd import container
from irstd.bundle import read_bundle
from irstd.errors import BundleCorrupt, BundleError
from irstd.files import sha256_hex
from irstd.manifest import Manifest
from irstd.manifest_json import MemberInfo, serialise_manifest
from irstd.types import InputSpec, Precision

Members = list[tuple[str, bytes]]
Fields = dict[str, Any]
SAME: Fields = {}

DEFAULTS: Fields = {
    "made_by": 20, "version": 20, "flags": 0, "method": 0, "time": 0, "date": 33, "extra": b"",
    "comment": b"", "disk": 0, "internal": 0, "external": 0,
}  # fmt: skip


def pack(
    members: Members,
    *,
    member: int = 2,
    both: Fields = SAME,
    local: Fields = SAME,
    central: Fields = SAME,
    end: Fields = SAME,
    gap: bytes = b"",
    before_directory: bytes = b"",
    in_directory: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """Pack a zip; the overrides change one member's headers, or the end record."""
    body = b""
    directory = b""
    for number, (name, data) in enumerate(members):
        own: Fields = {"name": name.encode("latin-1"), "crc": zlib.crc32(data)}
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
    directory += in_directory
    last: Fields = {
        "disk": 0,
        "directory_disk": 0,
        "disk_count": len(members),
        "count": len(members),
    }
    last |= {"length": len(directory), "offset": len(body), "comment": b""}
    last |= end
    end_record = struct.pack(
        "<IHHHHIIH", 0x06054B50, last["disk"], last["directory_disk"], last["disk_count"],
        last["count"], last["length"], last["offset"], len(last["comment"]),
    )  # fmt: skip
    return body + directory + end_record + bytes(last["comment"]) + tail


MODELS: Members = [("model.onnx", b"plain graph"), ("model.int8.onnx", b"quantised graph")]

MANIFEST = Manifest(
    network="acm",
    input=InputSpec(256, 256, scale=(0.25,), offset=(-1.5,), pad_level=(6.0,)),
    threshold=0.5,
    precision=Precision.INT8,
    target="cpu",
    model="model.int8.onnx",
    reference="model.onnx",
    engines=(),
    global_pooling=None,
    calibration="minmax",
    int8_form="cpu",
    licences={},
    resolved={},
    sdk_version="0.1.0",
)


def sound(members: Members = MODELS) -> Members:
    """Return all members of a sound bundle."""
    listed = {name: MemberInfo(len(data), sha256_hex(data)) for name, data in members}
    raw = serialise_manifest(MANIFEST, listed)
    line = f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()
    return [("manifest.json", raw), ("manifest.sha256", line), *members]


def renamed(name: str) -> bytes:
    """Return a bundle with one more member, sound but for its name."""
    return pack(sound([*MODELS, (name, b"data")]))


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
        pack(sound(), in_directory=b"hidden"),
        python_zip(),
    ],
    "member-crc": [
        pack(sound(), both={"crc": 1}),
        *(pack(sound(), member=n, both={"crc": 1}) for n in (0, 1)),
    ],
}

OTHER_ERRORS: dict[str, type[BundleError]] = dict.fromkeys(
    ("file-missing", "file-kind", "file-unreadable"), BundleError
)


def put(case: Case, folder: Path) -> Path:
    """Return the path of a case, written to the folder where it is only bytes."""
    if not isinstance(case, bytes):
        return case(folder)
    path = folder / "case.irstd"
    path.write_bytes(case)
    return path


def test_hand_packed_bundle_is_accepted(tmp_path: Path) -> None:
    opened = read_bundle(put(WHOLE, tmp_path))
    assert opened.read("model.int8.onnx") == b"quantised graph"
    assert opened.sha256 == hashlib.sha256(WHOLE).hexdigest()
    assert list(opened.members) == ["model.onnx", "model.int8.onnx"]


@pytest.mark.parametrize("rule", CASES)
def test_rule(rule: str, tmp_path: Path) -> None:
    for number, case in enumerate(CASES[rule]):
        path = put(case, tmp_path)
        with pytest.raises(BundleError) as caught:
            read_bundle(path)
        message = str(caught.value)
        assert type(caught.value) is OTHER_ERRORS.get(rule, BundleCorrupt), message
        assert message.endswith(f"(rule: {rule})"), f"case {number}: {message}"
        assert message.startswith(f"{path}: "), message
        assert len(message.splitlines()) == 1, message
        assert len(message) < len(str(path)) + 400, message


def test_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is a directory; wanted an \.irstd file"):
        read_bundle(tmp_path)


def test_absurd_claims_cost_no_memory() -> None:
    class Spy(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            unbounded = size is None or size < 0
            self.largest = max(self.largest, len(self.getvalue()) if unbounded else size or 0)
            return super().read(size)

    for rule in ("member-size", "member-bounds", "name-length", "member-count", "truncated"):
        for case in CASES[rule]:
            assert isinstance(case, bytes)
            spy = Spy(case)
            with pytest.raises(BundleCorrupt):
                container.read_container(spy)
            assert 0 < spy.largest <= 1 << 17


def test_file_that_shrinks_while_it_is_read() -> None:
    opened = io.BytesIO(WHOLE)
    entries = container.read_container(opened)
    opened.truncate(entries[-1].offset + 3)
    with pytest.raises(BundleCorrupt, match="truncated"):
        container.hash_data(opened, entries[-1])
    with pytest.raises(BundleCorrupt, match="truncated"):
        container.read_data(opened, entries[-1])
