"""Every rule of the manifest and the members in docs/bundle-format.md, violated alone.

All hashes are true, so that what is wrong is only what the case says.
"""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irstd import bundle
from irstd.bundle import read_bundle
from irstd.container import write_container
from irstd.errors import BundleCorrupt, BundleError, BundleMismatch

Members = list[tuple[str, bytes]]
Document = dict[str, Any]

MODELS: Members = [("model.onnx", b"plain graph"), ("model.int8.onnx", b"quantised graph")]
REPORT: Members = [*MODELS, ("report.json", b"{}")]


def document(members: Members = MODELS, /, **changes: Any) -> Document:
    """Return a sound manifest of the members, as JSON values; changes are dotted keys' values."""
    engine = {
        "session": "openvino", "library": "openvino 2026.4.1", "member": "model.int8.onnx",
        "median_ms": 1.5, "max_abs_error": 0.25, "passed": True, "chosen": True, "reason": "faster",
    }  # fmt: skip
    result: Document = {
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
        place = result
        for parent in parents:
            place = place[parent]
        place[last] = value
    return result


def pack(manifest: bytes | Document, members: Members = MODELS) -> bytes:
    """Return a sound container of a manifest, its true hash, and the members."""
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    line = f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()
    return pack_all([("manifest.json", raw), ("manifest.sha256", line), *members])


def pack_all(members: Members) -> bytes:
    stream = io.BytesIO()
    write_container(stream, members)
    return stream.getvalue()


def sound(members: Members = MODELS, /, **changes: Any) -> bytes:
    """Return a bundle whose manifest was changed, with true hashes."""
    return pack(document(members, **changes), members)


def said(change: Callable[[Document], object]) -> bytes:
    """Return a bundle whose manifest went through a function, with true hashes."""
    manifest = document()
    change(manifest)
    return pack(manifest)


def with_text(old: str, new: str) -> bytes:
    """Return a bundle with a text in its manifest replaced, with true hashes."""
    text = json.dumps(document())
    assert old in text
    return pack(text.replace(old, new, 1).encode("utf-8"))


def renamed(name: str) -> bytes:
    """Return a bundle with one more member, sound but for its name."""
    return sound([*MODELS, (name, b"data")])


def engine(**changes: Any) -> Document:
    engines: list[Document] = document()["engines"]
    return engines[0] | changes


RAW = json.dumps(document()).encode()
LINE = f"{hashlib.sha256(RAW).hexdigest()}  manifest.json\n".encode()

CASES: dict[str, list[bytes]] = {
    "manifest-size": [pack(json.dumps(document()).encode() + b" " * (1 << 20))],
    "manifest-hash": [
        pack_all([("manifest.json", RAW + b" "), ("manifest.sha256", LINE), *MODELS]),
        *(
            pack_all([("manifest.json", RAW), ("manifest.sha256", line), *MODELS])
            for line in (b"0" * 64 + LINE[64:], LINE[:64], LINE.upper(), b"")
        ),
    ],
    "manifest-encoding": [
        pack(json.dumps(document()).encode("utf-16")),
        pack(b"\xff{}"),
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
        pack(b""),
        pack(b"{"),
        pack(json.dumps(document()).encode() + b"{}"),
        pack(b"\xef\xbb\xbf" + json.dumps(document()).encode()),
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
        sound(format_version=0),
        sound(format_version="1"),
        sound(format_version=True),
        sound(format_version=1.0),
        pack(b"{}"),
    ],
    "format-newer": [sound(format_version=2), pack(b'{"format_version": 7}')],
    "manifest-keys": [
        sound(colour="red"),
        sound(input__colour="red"),
        sound(engines=[engine(colour="red")]),
        said(lambda manifest: manifest.pop("network")),
        said(lambda manifest: manifest.pop("members")),
        said(lambda manifest: manifest["input"].pop("bit_depth")),
        said(lambda manifest: manifest["members"]["model.onnx"].pop("size")),
    ],
    "manifest-type": [
        pack(b"[]"),
        sound(network=7),
        sound(network=None),
        sound(input=[]),
        sound(input__height=256.0),
        sound(input__height=True),
        sound(input__scale=0.25),
        sound(input__scale=["1"]),
        sound(threshold="0.5"),
        sound(engines={}),
        sound(engines=[engine(passed=1)]),
        sound(global_pooling=0),
        sound(licences=["MIT"]),
        sound(licences={"weights": None}),
        sound(resolved=[]),
        sound(members=[]),
        sound(members={"model.onnx": 11}),
    ],
    "manifest-choice": [
        sound(precision="int4"),
        sound(precision=8),
        sound(input__fit="stretch"),
    ],
    "manifest-input": [
        sound(input__height=0),
        sound(input__width=-256),
        sound(input__bit_depth=9),
        sound(input__scale=[1.0, 1.0]),
        sound(input__offset=[]),
    ],
    "input-size": [sound(input__height=1 << 30), sound(input__width=16385)],
    "target": [sound(target="jetson-zeta"), sound(target="")],
    "threshold": [sound(threshold=value) for value in (0, 1, -0.5, 50)],
    "int8-form": [
        sound(int8_form="amd"),
        sound(int8_form=None),
        sound(precision="fp32", model="model.onnx"),
    ],
    "engine-choice": [
        sound(engines=[engine(), engine()]),
        sound(engines=[engine(passed=False)]),
    ],
    "member-unlisted": [pack(document(), REPORT), pack(document(MODELS[:1]))],
    "member-missing": [pack(document(REPORT)), pack(document(), MODELS[:1])],
    "member-length": [
        said(lambda manifest: manifest["members"]["model.onnx"].update(size=12)),
        said(lambda manifest: manifest["members"]["model.onnx"].update(size=-1)),
    ],
    "member-hash": [
        pack(document(), [("model.onnx", b"plain Graph"), MODELS[1]]),
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
    "member-order": [sound([MODELS[1], MODELS[0]]), sound([REPORT[2], *MODELS])],
    "reference-member": [
        sound(reference="model.int8.onnx"),
        sound(MODELS[1:]),
    ],
    "model-member": [
        sound(model="report.json"),
        sound(model="model.onnx"),
        sound(model="../model.onnx"),
        sound(MODELS[:1]),
        sound(precision="fp16", int8_form=None),
    ],
    "engine-member": [sound(engines=[engine(member="engines/none.plan")])],
}

OTHER_ERRORS: dict[str, type[BundleError]] = {
    "format-newer": BundleMismatch,
    "target": BundleMismatch,
}


def put(case: bytes, folder: Path) -> Path:
    path = folder / "case.irstd"
    path.write_bytes(case)
    return path


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


def test_newer_version_names_itself_and_the_way_out(tmp_path: Path) -> None:
    path = put(pack(b'{"format_version": 7, "new": []}'), tmp_path)
    with pytest.raises(BundleMismatch, match=r"version 7 .*reads up to 1: upgrade") as caught:
        read_bundle(path)
    assert caught.value.exit_code == 6


def test_newer_version_may_have_members_unknown_here(tmp_path: Path) -> None:
    path = put(sound([*MODELS, ("variants/a.onnx", b"new")], format_version=2), tmp_path)
    with pytest.raises(BundleMismatch, match="format-newer"):
        read_bundle(path)


def test_earlier_check_hides_later_damage(tmp_path: Path) -> None:
    """The order is container, manifest's hash, manifest, members."""
    damaged = [("model.onnx", b"plain Graph"), MODELS[1]]
    raw = json.dumps(document(colour="red")).encode()
    unhashed = pack_all([("manifest.json", raw), ("manifest.sha256", LINE), *damaged])
    layers = {
        "trailing-bytes": unhashed + b"x",
        "manifest-hash": unhashed,
        "manifest-keys": pack(raw, damaged),
        "member-hash": pack(document(), damaged),
    }
    for rule, case in layers.items():
        with pytest.raises(BundleCorrupt, match=rf"\(rule: {rule}\)"):
            read_bundle(put(case, tmp_path))


def test_manifest_with_a_wrong_hash_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(bundle, "parse_manifest", parsed.append)
    with pytest.raises(BundleCorrupt, match="manifest-hash"):
        read_bundle(put(CASES["manifest-hash"][0], tmp_path))
    assert not parsed


def test_member_changed_after_opening(tmp_path: Path) -> None:
    whole = sound()
    opened = read_bundle(put(whole, tmp_path))
    put(whole.replace(b"quantised graph", b"quantised grapH"), tmp_path)
    assert opened.read("model.onnx") == b"plain graph"
    with pytest.raises(BundleCorrupt, match=r"open it again \(rule: member-changed\)"):
        opened.read("model.int8.onnx")
    put(whole[:100], tmp_path)
    with pytest.raises(BundleCorrupt, match="member-changed"):
        opened.read("model.onnx")
    opened.path.unlink()
    with pytest.raises(BundleError, match="file-missing"):
        opened.read("model.onnx")
