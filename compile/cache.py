"""Stage results by content hash: a repeated or interrupted build continues where it was."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path

from irstd.errors import BuildError
from irstd.files import sha256_hex, write_atomic
from irstd.fingerprint import content_key
from irstd.version import __version__

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 64
_KEY_DIGITS = 32


def cached(
    folder: Path | None, stage: str, parts: tuple[object, ...], make: Callable[[], bytes]
) -> bytes:
    """Return the result of a stage, from the cache when it is there and whole.

    Args:
        folder: The cache; None computes every time.
        stage: Name of the stage.
        parts: Everything that the result depends on: text, bytes or JSON-able values.
        make: Computes the result.

    Raises:
        BuildError: The cache cannot be written.
        OSError: The disk is full.
    """
    if folder is None:
        return make()
    key = content_key(stage, __version__, *parts)
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
