"""Files written whole or not at all, and the hash that identifies their bytes."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_DEFAULT_MODE = 0o666


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_open(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing; it takes the name only on success.

    The bytes are on disk before the rename, so a reader sees the old file or the whole new one,
    also after a crash. On any exception the temporary file is removed and `path` is untouched.

    Args:
        path: The file to write. Missing parent folders are made.

    Raises:
        OSError: The folder is not writable or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, _DEFAULT_MODE & ~umask)  # mkstemp makes private files
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_open(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def cache_dir() -> Path:
    """Return the folder for rebuildable artefacts: `$IRSTD_CACHE`, else the XDG cache."""
    if explicit := os.environ.get("IRSTD_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "irstd"
