"""Files written whole or not at all, and the hash that identifies their bytes."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from irstd.errors import UsageError

SYSTEM_BYTES = 1 << 16


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


def keep_content(path: Path, sha256: str, read: Callable[[], bytes]) -> None:
    """Let a file of a cache hold what its name promises.

    Whoever may write there may run code here, but a half-written file must not.

    Args:
        path: Left alone if its content is right.
        sha256: Of the content, 64 hexadecimal digits.
        read: Gives the content.

    Raises:
        OSError: It cannot be read or written.
    """
    if not path.is_file() or sha256_of_file(path) != sha256:
        write_atomic(path, read())


def read_system(path: Path) -> str:
    """Return what a small file of /etc, /proc or /sys says; empty where it is not to be had.

    Blanks around it are left out, as is the NUL that texts of the device tree end in; what is no
    UTF-8 is replaced. At most SYSTEM_BYTES are read.
    """
    try:
        with path.open("rb") as file:
            return file.read(SYSTEM_BYTES).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


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
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # Unlike those of tempfile, as public as the umask allows.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all.

    What UTF-8 cannot say, such as a byte of a file's name that is none, is escaped.
    """
    with atomic_open(path) as file:
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


def printable(text: str) -> str:
    """Escape what would act on a terminal, and what a manifest may not hold, in any name."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def to_path(value: str | os.PathLike[str]) -> Path:
    """Read a path that a user gave.

    Raises:
        UsageError: It is empty, which pathlib takes for the working folder, or holds a NUL.
    """
    text = os.fspath(value)
    if not text or "\0" in text:
        raise UsageError(f"{text!r} names no file or folder")
    return Path(text)


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a path that cannot be written before an hour is spent on what should go there.

    Args:
        path: What will be written.
        inputs: Files that are read meanwhile, or needed afterwards; missing ones are ignored.

    Raises:
        UsageError: It is one of the inputs, or a device, pipe or socket.
        OSError: It is a folder, or lies under a file or in a folder that is not writable.
    """
    if any(path.samefile(file) for file in inputs if path.exists() and file.exists()):
        raise UsageError(f"{path}: is an input of this command; write to another file")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path}: is no regular file; name a file")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def cache_dir() -> Path:
    """Return the folder for rebuildable artefacts: `$IRSTD_CACHE`, else the XDG cache.

    Raises:
        UsageError: None is named, and the user has no home, as in some containers.
    """
    if explicit := os.environ.get("IRSTD_CACHE"):
        return Path(explicit)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "irstd"
    try:
        return Path.home() / ".cache" / "irstd"
    except RuntimeError as error:  # no HOME, and no entry of this user in /etc/passwd
        raise UsageError("this user has no home folder: set IRSTD_CACHE to a folder") from error
