"""The zip container of a bundle: the strict subset of docs/bundle-format.md, "Container".

A general zip reader forgives, and two readers that forgive differently see two archives in one
file. Here each byte has one allowed meaning: members are stored back to back from offset 0, the
directory repeats their headers, and the file ends with the end record. Only the container is read
here; what the members mean is irstd.bundle.
"""

import dataclasses
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Sequence
from typing import IO

from irstd.errors import BundleCorrupt

MAX_FILE_BYTES = (1 << 32) - 2  # the largest that every field of a zip without zip64 can express
MAX_MEMBER_BYTES = (1 << 31) - 1  # an ONNX graph is one protobuf message, which ends here too
MAX_MEMBERS = 4096
MAX_NAME_BYTES = 128

LEADING_MEMBERS = ("manifest.json", "manifest.sha256")

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_CENTRAL_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_MAX_COMMENT_BYTES = 0xFFFF
_VERSION = 20  # zip 2.0, and made on a system without file modes
_STORED = 0
_TIME, _DATE = 0, 0x0021  # 1980-01-01 00:00:00
_NAME_CHARACTERS = re.compile(r"[a-z0-9._/-]*")
_PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """One member as its header states it.

    Attributes:
        name: Lower-case ASCII, relative, "/" between folders.
        offset: Of the first byte of its data in the file.
        size: Of its data, bytes.
        crc32: Of its data.
    """

    name: str
    offset: int
    size: int
    crc32: int


def violation(rule: str, found: str) -> BundleCorrupt:
    """Return the error for a violated rule.

    Args:
        rule: Identifier of the rule in docs/bundle-format.md.
        found: What was got and what was wanted, one line without the path.
    """
    return BundleCorrupt(f"{found} (rule: {rule})")


def read_container(file: IO[bytes]) -> tuple[Entry, ...]:
    """Check every rule of the container but the checksums, and list the members.

    Only headers are read: the work is bounded by MAX_MEMBERS whatever the file claims.

    Args:
        file: Seekable; its whole content is the bundle.

    Returns:
        The members in file order, the first two of which are LEADING_MEMBERS.

    Raises:
        BundleCorrupt: A rule is violated.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise violation("file-empty", "the file is empty; wanted a bundle")
    if size > MAX_FILE_BYTES:
        raise violation("file-size", f"the file has {size} bytes; at most {MAX_FILE_BYTES}")
    if _read_at(file, 0, min(size, 4)) != _LOCAL_SIGNATURE:
        raise violation("not-a-bundle", "does not begin like a zip file; wanted an .irstd bundle")
    count, directory = _read_end(file, size)
    entries = []
    position = 0
    for _ in range(count):
        entry = _read_local(file, position, directory)
        entries.append(entry)
        position = entry.offset + entry.size
    if position != directory:
        found = f"the last member ends at byte {position}, the directory begins at {directory}"
        raise violation("member-gap", f"{found}; nothing may lie between")
    _check_names([entry.name for entry in entries])
    _check_directory(file, entries, directory, size)
    return tuple(entries)


def write_container(file: IO[bytes], members: Sequence[tuple[str, bytes]]) -> str:
    """Write the members in the given order; the same members give the same bytes.

    Args:
        file: At position 0.
        members: Name and data of each, LEADING_MEMBERS first.

    Returns:
        The SHA-256 of the bytes written, 64 hexadecimal digits.

    Raises:
        BundleCorrupt: A rule on names, counts or sizes would be violated; nothing was written.
    """
    entries = []
    position = 0
    for name, data in members:
        _check_name(name.encode("utf-8", "surrogatepass"))
        _check_size(name, len(data))
        offset = position + _LOCAL.size + len(name)
        entries.append(Entry(name, offset, len(data), zlib.crc32(data)))
        position = offset + len(data)
    _check_names([entry.name for entry in entries])
    _check_count(len(entries))
    tail = b"".join(map(_central_record, entries))
    total = position + len(tail) + _END.size
    if total > MAX_FILE_BYTES:
        raise violation("file-size", f"the file would have {total} bytes; at most {MAX_FILE_BYTES}")
    tail += _end_record(len(entries), len(tail), position)
    digest = hashlib.sha256()
    for entry, (_, data) in zip(entries, members, strict=True):
        for piece in (_local_header(entry), data):
            digest.update(piece)
            file.write(piece)
    digest.update(tail)
    file.write(tail)
    return digest.hexdigest()


def read_data(file: IO[bytes], entry: Entry) -> bytes:
    """Read one member's data, checking only its length: the caller checks the SHA-256.

    Raises:
        BundleCorrupt: The file has become shorter than its headers say.
    """
    return _read_at(file, entry.offset, entry.size)


def hash_data(file: IO[bytes], entry: Entry) -> str:
    """Return the SHA-256 of one member's data, read in pieces.

    Raises:
        BundleCorrupt: The data does not have the CRC-32 of its header, or ends early.
    """
    digest = hashlib.sha256()
    crc = 0
    file.seek(entry.offset)
    left = entry.size
    while left:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            raise violation("truncated", f"ends inside {entry.name}; the file became shorter")
        digest.update(piece)
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    if crc != entry.crc32:
        found = f"{entry.name} has CRC-32 {crc:08x}, its header says {entry.crc32:08x}"
        raise violation("member-crc", found)
    return digest.hexdigest()


def hash_all(file: IO[bytes]) -> str:
    """Return the SHA-256 of the whole file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _read_at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise violation("truncated", f"ends at byte {offset + len(data)}, inside what it announced")
    return data


def _read_end(file: IO[bytes], size: int) -> tuple[int, int]:
    """Return the number of members and the offset of the directory."""
    tail = _read_at(file, max(0, size - _END.size), min(size, _END.size))
    if len(tail) < _END.size or tail[:4] != _END_SIGNATURE or tail[-2:] != b"\0\0":
        raise _diagnose_end(file, size)
    _, disk, directory_disk, disk_count, count, length, offset, _ = _END.unpack(tail)
    if disk or directory_disk or disk_count != count:
        raise violation("end-record", "the end record speaks of several disks; wanted one")
    _check_count(count)
    if offset + length + _END.size != size:
        found = f"a directory of {length} bytes at {offset} does not end where the end record"
        raise violation("directory-bounds", f"{found} of a {size}-byte file begins")
    return count, offset


def _diagnose_end(file: IO[bytes], size: int) -> BundleCorrupt:
    """Say why the file does not end with an end record without a comment."""
    length = min(size, _END.size + _MAX_COMMENT_BYTES)
    tail = _read_at(file, size - length, length)
    at = tail.rfind(_END_SIGNATURE)
    extra = len(tail) - at - _END.size
    if at < 0 or extra < 0:
        return violation("truncated", "no end record where the file ends; it was cut short")
    if tail[at + _END.size - 2 : at + _END.size] != b"\0\0":
        return violation("comment", "the end record announces a comment; a bundle has none")
    return violation("trailing-bytes", f"{extra} bytes follow the end record; it must be the last")


def _read_local(file: IO[bytes], position: int, directory: int) -> Entry:
    """Read the member header at `position`; members end before `directory`."""
    where = f"the header at byte {position}"
    if position + _LOCAL.size > directory:
        raise violation("member-bounds", f"{where} would reach into the directory at {directory}")
    header = _read_at(file, position, _LOCAL.size)
    if header[:4] != _LOCAL_SIGNATURE:
        raise violation("member-gap", f"no member header at byte {position}, where one must follow")
    (_, version, flags, method, time, date, crc, stored, size, name_bytes, extra) = _LOCAL.unpack(
        header
    )
    if version != _VERSION:
        raise violation("zip-version", f"{where} needs zip version {version}; wanted {_VERSION}")
    if flags:
        raise violation("flags", f"{where} has flags 0x{flags:04x} (encrypted, streamed); wanted 0")
    if method != _STORED:
        raise violation("compression", f"{where} has compression method {method}; wanted 0, stored")
    if (date, time) != (_DATE, _TIME):
        raise violation("timestamp", f"{where} is dated 0x{date:04x}{time:04x}; wanted 1980-01-01")
    if extra:
        raise violation("extra-field", f"{where} has {extra} bytes of extra fields; wanted none")
    offset = position + _LOCAL.size + name_bytes
    _check_name_length(name_bytes)
    name = _check_name(_read_at(file, position + _LOCAL.size, name_bytes))
    if stored != size:
        raise violation("stored-size", f"{name} takes {stored} bytes for {size}; wanted the same")
    _check_size(name, size)
    if offset + size > directory:
        found = f"{name} of {size} bytes at {offset} reaches into the directory at {directory}"
        raise violation("member-bounds", found)
    return Entry(name, offset, size, crc)


def _check_count(count: int) -> None:
    if not len(LEADING_MEMBERS) < count <= MAX_MEMBERS:
        wanted = f"{len(LEADING_MEMBERS) + 1} to {MAX_MEMBERS}"
        raise violation("member-count", f"{count} members; wanted {wanted}")


def _check_size(name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise violation("member-size", f"{name} has {size} bytes; at most {MAX_MEMBER_BYTES}")


def _check_name_length(count: int) -> None:
    if not 0 < count <= MAX_NAME_BYTES:
        found = f"a member name of {count} bytes; wanted 1 to {MAX_NAME_BYTES}"
        raise violation("name-length", found)


def _check_name(raw: bytes) -> str:
    _check_name_length(len(raw))
    name = raw.decode("latin-1")
    if not _NAME_CHARACTERS.fullmatch(name):
        raise violation("name-characters", f"member name {name!r}; only a-z 0-9 . _ - / may occur")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise violation("name-path", f"member name {name!r} is not a plain relative path")
    return name


def _check_names(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise violation("name-duplicate", f"{name} occurs twice")
        seen.add(name)
    if tuple(names[: len(LEADING_MEMBERS)]) != LEADING_MEMBERS:
        wanted = ", ".join(LEADING_MEMBERS)
        raise violation("leading-members", f"begins with {', '.join(names[:2])}; wanted {wanted}")


def _check_directory(file: IO[bytes], entries: Sequence[Entry], offset: int, size: int) -> None:
    wanted = b"".join(map(_central_record, entries))
    length = size - _END.size - offset
    if length != len(wanted):
        found = f"the directory has {length} bytes; {len(wanted)} would repeat the member headers"
        raise violation("directory-repeats", found)
    got = _read_at(file, offset, length)
    start = 0
    for entry in entries:
        end = start + _CENTRAL.size + len(entry.name)
        if got[start:end] != wanted[start:end]:
            found = f"the directory record of {entry.name} does not repeat the member's header"
            raise violation("directory-repeats", found)
        start = end


def _local_header(entry: Entry) -> bytes:
    name = entry.name.encode("ascii")
    size = entry.size
    fields = (_VERSION, 0, _STORED, _TIME, _DATE, entry.crc32, size, size, len(name), 0)
    return _LOCAL.pack(_LOCAL_SIGNATURE, *fields) + name


def _central_record(entry: Entry) -> bytes:
    name = entry.name.encode("ascii")
    size = entry.size
    fields = (_VERSION, _VERSION, 0, _STORED, _TIME, _DATE, entry.crc32, size, size, len(name))
    header = entry.offset - len(name) - _LOCAL.size
    return _CENTRAL.pack(_CENTRAL_SIGNATURE, *fields, 0, 0, 0, 0, 0, header) + name


def _end_record(count: int, length: int, offset: int) -> bytes:
    return _END.pack(_END_SIGNATURE, 0, 0, count, count, length, offset, 0)
