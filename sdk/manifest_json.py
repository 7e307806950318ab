"""`manifest.json` to and from Manifest, by the rules of docs/bundle-format.md, "Manifest".

The dataclasses are the schema: their field names are the only keys, their types the only types.
"""

import collections.abc
import dataclasses
import enum
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from irstd.container import violation
from irstd.errors import BundleMismatch, UsageError
from irstd.fingerprint import canonical_json, to_plain
from irstd.manifest import FORMAT_VERSION, Manifest
from irstd.targets import TARGETS
from irstd.types import Precision

MAX_MANIFEST_BYTES = 1 << 20
MAX_NESTING = 32
MAX_SIDE_PX = 1 << 14
INT8_FORMS = ("cpu", "nvidia")

_FORMAT_KEY = "format_version"
_MEMBERS_KEY = "members"
_MAX_DIGITS = 18
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
# Control characters but tab and newline, which would act on the terminal of who inspects a bundle,
# and halves of surrogate pairs, which cannot be printed at all.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BRACKETS = re.compile(rb"[\[\]{}]")
_JSON_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


@dataclasses.dataclass(frozen=True)
class MemberInfo:
    """What the manifest says of a member: its bytes and their SHA-256 (64 hexadecimal digits)."""

    size: int
    sha256: str


def serialise_manifest(manifest: Manifest, members: Mapping[str, MemberInfo]) -> bytes:
    """Encode a manifest; equal manifests give equal bytes.

    Args:
        manifest: Any; it is not checked, which `parse_manifest` does.
        members: Every member that follows the manifest and its hash.

    Returns:
        ASCII JSON with sorted keys.

    Raises:
        BundleCorrupt: It holds a value that JSON cannot.
    """
    document = {_FORMAT_KEY: FORMAT_VERSION, _MEMBERS_KEY: members}
    try:
        fields = to_plain(manifest)
        return canonical_json({**fields, **document}, indent=1).encode("ascii") + b"\n"
    except UsageError as error:
        raise violation("manifest-json", f"manifest.json cannot be written: {error}") from error


def parse_manifest(raw: bytes) -> tuple[Manifest, dict[str, MemberInfo]]:
    """Decode and check the bytes of `manifest.json`, all but what needs the members' names.

    Returns:
        The manifest, and what it says of each member that follows.

    Raises:
        BundleCorrupt: A rule is violated.
        BundleMismatch: The format version is newer, or the target is not known to this version.
    """
    document = _parse_json(raw)
    if not isinstance(document, dict):
        _refuse_type("manifest.json", document, "an object")
    _check_version(document)
    wanted = {field.name for field in dataclasses.fields(Manifest)} | {_FORMAT_KEY, _MEMBERS_KEY}
    _check_keys("manifest.json", document, wanted)
    fields = {name: document[name] for name in document if name not in (_FORMAT_KEY, _MEMBERS_KEY)}
    members: dict[str, MemberInfo] = _decode(
        Mapping[str, MemberInfo], document[_MEMBERS_KEY], _MEMBERS_KEY
    )
    manifest: Manifest = _decode(Manifest, fields, "")
    _check_values(manifest)
    return manifest, members


def _parse_json(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"manifest.json is not UTF-8 at byte {error.start}"
        raise violation("manifest-encoding", found) from error
    _check_nesting(raw)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=_finite_float,
            parse_int=_small_int,
            parse_constant=_refuse_number,
        )
    except json.JSONDecodeError as error:
        found = f"manifest.json is not JSON: {error.msg} at line {error.lineno}"
        raise violation("manifest-json", found) from error
    for text in _texts(document):
        if _UNPRINTABLE.search(text):
            found = f"manifest.json holds the text {reprlib.repr(text)}"
            raise violation("manifest-text", f"{found}; control characters are not allowed")
    return document


def _texts(node: Any) -> Iterator[str]:
    """Yield every text of a JSON value, keys too."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _check_nesting(raw: bytes) -> None:
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            found = f"manifest.json nests deeper than {MAX_NESTING} levels"
            raise violation("manifest-nesting", found)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            found = f"manifest.json has the key {reprlib.repr(key)} twice in one object"
            raise violation("manifest-duplicate-key", found)
        result[key] = value
    return result


def _finite_float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse_number(digits)


def _small_int(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else _refuse_number(digits)


def _refuse_number(digits: str) -> NoReturn:
    found = f"manifest.json holds the number {reprlib.repr(digits)[1:-1]}"
    raise violation("manifest-number", f"{found}; wanted finite ones of at most 18 digits")


def _check_version(document: Mapping[str, Any]) -> None:
    version = document.get(_FORMAT_KEY)
    if type(version) is not int or version < 1:
        found = f"{_FORMAT_KEY} is {reprlib.repr(version)}; wanted an integer from 1"
        raise violation("format-version", found)
    if version > FORMAT_VERSION:
        raise BundleMismatch(
            f"format version {version} was made by a newer irstd; this one reads up to "
            f"{FORMAT_VERSION}: upgrade with  pip install -U irstd-sdk  (rule: format-newer)"
        )


def _check_keys(where: str, got: Mapping[str, Any], wanted: set[str]) -> None:
    unknown = sorted(set(got) - wanted)
    missing = sorted(wanted - set(got))
    if unknown:
        found = f"{where} has the unknown key {reprlib.repr(unknown[0])}"
        raise violation("manifest-keys", found)
    if missing:
        raise violation("manifest-keys", f"{where} lacks the key {missing[0]!r}")


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Return `value` as the type `kind`, one that occurs in Manifest or MemberInfo."""
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(arguments[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            _refuse_type(where, value, "a list")
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            _refuse_type(where, value, "an object")
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if issubclass(kind, enum.Enum):
        choices = [choice.value for choice in kind]
        if value not in choices:
            found = f"{_quote(where)} is {reprlib.repr(value)}; one of {', '.join(choices)}"
            raise violation("manifest-choice", found)
        return kind(value)
    return _decode_scalar(kind, value, where)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse_type(where, value, "an object")
    hints = typing.get_type_hints(kind)
    _check_keys(where or "manifest.json", value, set(hints))
    prefix = f"{where}." if where else ""
    fields = {name: _decode(hints[name], value[name], prefix + name) for name in value}
    try:
        return kind(**fields)
    except UsageError as error:  # InputSpec states its own conditions
        raise violation("manifest-input", f"{_quote(where)}: {error}") from error


def _decode_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        _refuse_type(where, value, _JSON_NAMES[kind])
    return value


def _refuse_type(where: str, value: Any, wanted: str) -> NoReturn:
    got = _JSON_NAMES[type(value)]
    raise violation("manifest-type", f"{_quote(where)} is {got}; wanted {wanted}")


def _quote(where: str) -> str:
    return reprlib.repr(where)[1:-1]  # one short line, whatever keys a file invents


def _check_values(manifest: Manifest) -> None:
    """Check what a single type cannot say."""
    if manifest.target not in TARGETS:
        raise BundleMismatch(
            f"built for target {reprlib.repr(manifest.target)}, which this irstd does not know; it "
            f"knows {', '.join(TARGETS)}: upgrade with  pip install -U irstd-sdk  (rule: target)"
        )
    side = max(manifest.input.height, manifest.input.width)
    if side > MAX_SIDE_PX:
        found = f"an input side of {side} px; at most {MAX_SIDE_PX}"
        raise violation("input-size", found)
    if not 0 < manifest.threshold < 1:
        found = f"threshold {manifest.threshold}; wanted a probability between 0 and 1"
        raise violation("threshold", found)
    quantised = manifest.precision not in (Precision.FP32, Precision.FP16)
    forms = INT8_FORMS if quantised else (None,)
    if manifest.int8_form not in forms:
        wanted = " or ".join(str(form) for form in forms)
        found = f"int8_form {reprlib.repr(manifest.int8_form)} for {manifest.precision.value}"
        raise violation("int8-form", f"{found}; wanted {wanted}")
    chosen = [engine for engine in manifest.engines if engine.chosen]
    if len(chosen) > 1:
        raise violation("engine-choice", f"{len(chosen)} engines are chosen; at most one can be")
    if chosen and not chosen[0].passed:
        name = reprlib.repr(chosen[0].session)
        raise violation("engine-choice", f"engine {name} is chosen, but it failed parity")
