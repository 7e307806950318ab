"""Damage at every place of a bundle: always refused, never another kind of error."""

import copy
import functools
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from irstd.bundle import read_bundle, write_bundle
from irstd.container import read_container, read_data, write_container
from irstd.errors import BundleCorrupt, BundleError, BundleMismatch
from irstd.manifest import EngineChoice, Manifest
from irstd.types import InputSpec, Precision

MEMBERS = {
    "model.onnx": b"plain graph",
    "model.fp16.onnx": b"half graph",
    "golden/tolerance.json": b"{}",
    "report.json": b"",
}
ENGINE = EngineChoice(
    session="openvino",
    library="openvino 2026.4.1",
    member="model.fp16.onnx",
    median_ms=1.5,
    max_abs_error=0.25,
    passed=True,
    chosen=True,
    reason="faster",
)
MANIFEST = Manifest(
    network="acm",
    input=InputSpec(256, 256, scale=(0.25,), offset=(-1.5,), pad_level=(6.0,)),
    threshold=0.5,
    precision=Precision.FP16,
    target="cpu",
    model="model.fp16.onnx",
    reference="model.onnx",
    engines=(ENGINE,),
    global_pooling=True,
    calibration=None,
    int8_form=None,
    licences={"weights": "Apache-2.0"},
    resolved={"seed": 0, "list": [1.5, None]},
    sdk_version="0.1.0",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.irstd"
    write_bundle(file, MANIFEST, MEMBERS)
    read_bundle(file)
    return file


def overwrite(path: Path, data: bytes) -> None:
    """Change the content of a file in place.

    Emptying a file and filling it again thousands of times is slow where the file system then
    waits for the disk, to keep careless programs from losing data.
    """
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_refused(path: Path, bit: int) -> None:
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        overwrite(path, damaged)
        with pytest.raises((BundleCorrupt, BundleMismatch)):
            read_bundle(path)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in reversed(range(len(whole))):
        overwrite(path, whole[:length])
        with pytest.raises(BundleCorrupt):
            read_bundle(path)


def test_every_inserted_or_lost_byte_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for position in range(len(whole) + 1):
        overwrite(path, whole[:position] + b"\0" + whole[position:])
        with pytest.raises(BundleCorrupt):
            read_bundle(path)
    for position in range(len(whole)):
        overwrite(path, whole[:position] + whole[position + 1 :])
        with pytest.raises(BundleCorrupt):
            read_bundle(path)


STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 10**17, 1e308, "", "x\n\x1b[2J", "\ud800", "a\nb", [], [[]], {}, {"": None},
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a document."""
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def test_strange_value_anywhere_in_the_manifest(path: Path) -> None:
    """With true hashes, a value of another kind is accepted or refused, never a crash."""
    with path.open("rb") as file:
        members = [(entry.name, read_data(file, entry)) for entry in read_container(file)]
    document = json.loads(members[0][1])
    cases = [(place, strange) for place in places(document) for strange in STRANGE]
    refused = 0
    for place, strange in cases:
        changed = copy.deepcopy(document)
        functools.reduce(lambda node, key: node[key], place[:-1], changed)[place[-1]] = strange
        raw = json.dumps(changed).encode()
        line = f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n".encode()
        packed = io.BytesIO()
        write_container(packed, [(members[0][0], raw), (members[1][0], line), *members[2:]])
        overwrite(path, packed.getvalue())
        message = refusal(path)
        refused += message is not None
        assert message is None or len(message.splitlines()) == 1, repr(message)
    assert refused > len(cases) / 2


def refusal(path: Path) -> str | None:
    """Return why a file is refused, None if it is not; any other error goes through."""
    try:
        read_bundle(path)
    except BundleError as error:
        return str(error)
    return None
