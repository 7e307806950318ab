"""Stage results by content hash: a repeated or interrupted build continues where it was."""

import logging
from collections.abc import Callable
from pathlib import Path

from irstd.files import sha256_hex, write_atomic
from irstd.fingerprint import content_key
from irstd.version import __version__

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 64


def cached(
    folder: Path | None, stage: str, parts: tuple[object, ...], make: Callable[[], bytes]
) -> bytes:
    """Return the result of a stage, from the cache when it is there and whole.

    Args:
        folder: The cache; None computes every time.
        stage: Name of the stage.
        parts: Everything that the result depends on: text, bytes or JSON-able values.
        make: Computes the result.
    """
    if folder is None:
        return make()
    key = content_key(stage, __version__, *parts)
    path = folder / "stages" / f"{stage}-{key[:32]}"
    if path.is_file():
        stored = path.read_bytes()
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if sha256_hex(content).encode() == digest:
            _log.info("%s: from the cache", stage)
            return content
        _log.warning("%s: damaged, made again", path)
    content = make()
    write_atomic(path, sha256_hex(content).encode() + content)
    return content
