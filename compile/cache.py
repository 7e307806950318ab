"""Stage results by content hash: a repeated or interrupted build continues where it was."""

import errno
import functools
import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path

import irstd.calibration
import irstd.compile
import irstd.runtime
from irstd.errors import BuildError
from irstd.files import sha256_hex, sha256_of_file, write_atomic
from irstd.fingerprint import content_key

_log = logging.getLogger(__name__)
# The libraries that shape a stage's result, besides the engines, which name themselves.
_LIBRARIES = ("numpy", "opencv-python-headless", "onnx", "onnxsim", "onnxruntime", "torch")
_DIGEST_BYTES = 64
_KEY_DIGITS = 32


def cached(
    folder: Path | None, stage: str, parts: tuple[object, ...], make: Callable[[], bytes]
) -> bytes:
    """Return the result of a stage, from the cache when it is there and whole.

    Args:
        folder: The cache; None computes every time.
        stage: Name of the stage.
        parts: What the result depends on besides this package's own sources and the libraries
            that it computes with: text, bytes or JSON-able values.
        make: Computes the result.

    Raises:
        BuildError: The cache cannot be written.
        OSError: The disk is full.
    """
    if folder is None:
        return make()
    key = content_key(stage, _makers(), *parts)
    path = folder / "stages" / f"{stage}-{key[:_KEY_DIGITS]}"
    stored = _read(path)
    if stored is not None:
        _log.info("%s: from the cache", stage)
        return stored
    content = make()
    try:
        write_atomic(path, sha256_hex(content).encode() + content)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise BuildError(
            f"{path}: the cache cannot be written ({error.strerror or error}); "
            "give another folder with --cache DIR, or none with --no-cache"
        ) from error
    return content


@functools.cache
def _makers() -> dict[str, str]:
    """Return the versions of all that computes: a hash of our sources, and of each library."""
    packages = (irstd, irstd.compile, irstd.calibration, irstd.runtime)
    files = {path for package in packages for root in package.__path__
             for path in Path(root).rglob("*.py")}  # fmt: skip
    sources = "".join(sorted(sha256_of_file(path) for path in files))
    return {"irstd": sha256_hex(sources.encode())} | {name: _version(name) for name in _LIBRARIES}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read(path: Path) -> bytes | None:
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s: cannot be read (%s), made again", path, error.strerror)
        return None
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    if sha256_hex(content).encode() == digest:
        return content
    _log.warning("%s: damaged, made again", path)
    return None
