"""Writing and reading a bundle: one `.irstd` file, by the rules of docs/bundle-format.md.

    write_bundle(Path("acm.irstd"), manifest, {"model.onnx": plain, "model.int8.onnx": quantised})
    bundle = read_bundle(Path("acm.irstd"))
    graph = bundle.read(bundle.manifest.model)

The hashes say that a bundle is the one that was written, not who wrote it. Native code in it
(`engines/`, `kernels/`) runs with the rights of the process that loads it.
"""

import contextlib
import dataclasses
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from irstd.container import (
    LEADING_MEMBERS,
    Entry,
    hash_all,
    hash_data,
    read_container,
    read_data,
    violation,
    write_container,
)
from irstd.errors import BundleError
from irstd.files import atomic_open, sha256_hex
from irstd.manifest import Manifest
from irstd.manifest_json import (
    MAX_MANIFEST_BYTES,
    MemberInfo,
    parse_manifest,
    serialise_manifest,
)

PLAIN_MODEL = "model.onnx"

# What may follow the manifest and its hash, in file order; by name within one line.
MEMBER_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.onnx",
        r"model\.(fp16|fp32|int8|mixed)\.onnx",
        r"scales\.json",
        r"engines/[^/]+",
        r"kernels/[^/]+/[^/]+",
        r"golden/[^/]+\.(npy|json)",
        r"report\.json",
    )
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle file whose every byte was checked when it was opened.

    Attributes:
        path: The file.
        manifest: What it says of itself.
        sha256: Of the whole file, 64 hexadecimal digits.
        members: Size and SHA-256 of each member but the manifest and its hash, in file order.
    """

    path: Path
    manifest: Manifest
    sha256: str
    members: Mapping[str, MemberInfo]
    _entries: Mapping[str, Entry] = dataclasses.field(repr=False, compare=False)

    def read(self, name: str) -> bytes:
        """Return a member's data, hashed again, since the file may have changed.

        Raises:
            BundleError: There is no such member, or the file is gone.
            BundleCorrupt: The file is not the one that was opened.
        """
        with _naming(self.path):
            if name not in self.members:
                raise BundleError(f"no member {name!r}; there are {', '.join(self.members)}")
            with _open_file(self.path) as file:
                file.seek(self._entries[name].offset)
                data = file.read(self._entries[name].size)
            if sha256_hex(data) != self.members[name].sha256:
                found = f"{name} is no longer what it was when the bundle was opened; open it again"
                raise violation("member-changed", found)
            return data


def write_bundle(path: Path, manifest: Manifest, members: Mapping[str, bytes]) -> str:
    """Write a bundle, whole or not at all; the same arguments give the same bytes.

    Args:
        path: The file to write, by convention `NAME.irstd`; one that exists is replaced.
        manifest: Must agree with the members, as `read_bundle` will check.
        members: Data of each member by name; the manifest and its hash are added here.

    Returns:
        The SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        BundleCorrupt: A rule of docs/bundle-format.md would be violated; `path` is untouched.
        BundleMismatch: The target is unknown; `path` is untouched.
        OSError: The folder is not writable or the disk is full; `path` is untouched.
    """
    with _naming(path):
        names = sorted(members, key=_rank)
        listed = {name: MemberInfo(len(members[name]), sha256_hex(members[name])) for name in names}
        raw = serialise_manifest(manifest, listed)
        _check_manifest_size(len(raw))
        _check_members(parse_manifest(raw)[0], names)
        leading = [(LEADING_MEMBERS[0], raw), (LEADING_MEMBERS[1], _hash_line(raw))]
        with atomic_open(path) as file:
            return write_container(file, [*leading, *((name, members[name]) for name in names)])


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and check all of it before any content is used.

    The order: kind and size of the file, container, hash of the manifest, manifest, names, size and
    hash of every member. The cost is two passes over the file.

    Raises:
        BundleError: The file is missing, a directory, or not readable.
        BundleCorrupt: A rule of docs/bundle-format.md is violated.
        BundleMismatch: A sound bundle of a newer format, or for a target not known here.
    """
    with _naming(path), _open_file(path) as file:
        head, hash_entry, *entries = read_container(file)
        raw = _read_manifest(file, head, hash_entry)
        manifest, listed = parse_manifest(raw)
        _check_listing(entries, listed)
        names = [entry.name for entry in entries]
        _check_members(manifest, names)
        for entry in entries:
            if hash_data(file, entry) != listed[entry.name].sha256:
                found = f"{entry.name} does not have the SHA-256 that the manifest states"
                raise violation("member-hash", found)
        by_name = {entry.name: entry for entry in entries}
        members = {name: listed[name] for name in names}
        return Bundle(path, manifest, hash_all(file), members, by_name)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from error


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BundleError("is a directory; wanted an .irstd file (rule: file-kind)")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise BundleError("is a device or pipe; wanted an .irstd file (rule: file-kind)")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise BundleError("no such file (rule: file-missing)") from error
    except OSError as error:
        raise BundleError(f"{error.strerror or error} (rule: file-unreadable)") from error
    with file:
        yield file


def _read_manifest(file: IO[bytes], head: Entry, hash_entry: Entry) -> bytes:
    _check_manifest_size(head.size)
    hash_data(file, head)  # for its checksum
    raw = read_data(file, head)
    wanted = _hash_line(raw)
    # The size first: a file may call gigabytes its hash.
    if hash_entry.size != len(wanted) or read_data(file, hash_entry) != wanted:
        found = f"{head.name} is not what {hash_entry.name} says"
        raise violation("manifest-hash", found)
    hash_data(file, hash_entry)
    return raw


def _hash_line(raw: bytes) -> bytes:
    """Return the content of manifest.sha256, in the form that `sha256sum -c` takes."""
    return f"{sha256_hex(raw)}  {LEADING_MEMBERS[0]}\n".encode("ascii")


def _check_manifest_size(size: int) -> None:
    if size > MAX_MANIFEST_BYTES:
        found = f"{LEADING_MEMBERS[0]} has {size} bytes; at most {MAX_MANIFEST_BYTES}"
        raise violation("manifest-size", found)


def _check_listing(entries: Iterable[Entry], listed: Mapping[str, MemberInfo]) -> None:
    """Check that the file holds what the manifest lists, and nothing else."""
    there = {entry.name: entry.size for entry in entries}
    for name in there:
        if name not in listed:
            raise violation("member-unlisted", f"member {name} is not in the manifest")
    for name, info in listed.items():
        if name not in there:
            raise violation("member-missing", f"member {name[:80]!r} of the manifest is missing")
        if info.size != there[name]:
            found = f"{name} has {there[name]} bytes; the manifest says {info.size}"
            raise violation("member-length", found)


def _check_members(manifest: Manifest, names: list[str]) -> None:
    """Check names and their order, and that the manifest speaks of members that are there."""
    if wrong := [(name, after) for name, after in zip(names[1:], names, strict=False)
                 if _rank(name) <= _rank(after)]:  # fmt: skip
        raise violation("member-order", f"member {wrong[0][0]} comes after {wrong[0][1]}")
    if manifest.reference != PLAIN_MODEL:
        found = f"reference is {manifest.reference[:80]!r}; wanted {PLAIN_MODEL}"
        raise violation("reference-member", found)
    if PLAIN_MODEL not in names:
        raise violation("reference-member", f"{PLAIN_MODEL} is missing; every bundle has it")
    precision = manifest.precision.value
    models = [f"model.{precision}.onnx"]
    if precision == "fp32":
        models.append(PLAIN_MODEL)
    if manifest.model not in models or manifest.model not in names:
        found = f"model is {manifest.model[:80]!r}; wanted member {' or '.join(models)}"
        raise violation("model-member", found)
    for engine in manifest.engines:
        if engine.member not in names:
            found = f"engine {engine.session[:80]!r} loads {engine.member[:80]!r}"
            raise violation("engine-member", f"{found}, which is not a member")


def _rank(name: str) -> tuple[int, str]:
    """Return the sort key of a member in file order; refuse a name that no pattern allows."""
    for number, pattern in enumerate(MEMBER_PATTERNS):
        if pattern.fullmatch(name):
            return number, name
    raise violation("member-unexpected", f"member {name[:80]!r} has no place in a bundle")
