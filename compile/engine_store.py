"""Engines in the cache: found again by their key, kept whole, built by one process at a time.

Three plain files an engine, `engines/<key>.plan`, `.timing` and `.json`, so that NVIDIA's own tools
load the plan. The record is written last and states the hashes of the other two: an engine is there
when its record is there and true, whatever was interrupted before.
"""

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from irstd.compile.progress import Progress
from irstd.engine_record import (
    MAX_RECORD_BYTES,
    RECORD,
    EngineDevice,
    EngineKey,
    EngineRecord,
    member_names,
    parse_record,
)
from irstd.errors import BuildError, BundleCorrupt
from irstd.files import sha256_hex, write_atomic

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StoredEngine:
    """An engine and what lies beside it.

    Attributes:
        record: What it was built from and for.
        plan: What TensorRT loads.
        timing: TensorRT's timing cache; empty where it gave none.
    """

    record: EngineRecord
    plan: bytes = dataclasses.field(repr=False)
    timing: bytes = dataclasses.field(repr=False)


def find_engine(folder: Path | None, key: EngineKey) -> StoredEngine | None:
    """Return the engine of a key; None where there is none, or one that is not whole.

    Args:
        folder: The cache, None for none.
        key: What it was built from and for.
    """
    if folder is None:
        return None
    plan_path, timing_path, record_path = (folder / name for name in member_names(key.digest))
    try:
        record = _read_record(record_path)
        plan, timing = plan_path.read_bytes(), timing_path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, BundleCorrupt) as error:
        _log.warning("%s; built anew", error)
        return None
    hashes = (sha256_hex(plan), sha256_hex(timing))
    if record.key != key or hashes != (record.plan_sha256, record.timing_sha256):
        _log.warning("%s: is not what its record says; built anew", plan_path)
        return None
    return StoredEngine(record, plan, timing)


def find_timing(folder: Path | None, device: EngineDevice) -> bytes:
    """Return the timing cache that was written last for a device; empty where there is none.

    Each build starts from an earlier one's and adds to it, so that the last holds the most.

    Args:
        folder: The cache, None for none.
        device: What must be equal, library and driver included: times measured elsewhere mislead.
    """
    if folder is None:
        return b""
    for path in sorted((folder / "engines").glob(f"*{RECORD}"), key=_written_at, reverse=True):
        with contextlib.suppress(OSError, BundleCorrupt):
            record = _read_record(path)
            if record.key.device != device:
                continue
            timing = (folder / member_names(record.key.digest)[1]).read_bytes()
            if timing and sha256_hex(timing) == record.timing_sha256:
                return timing
    return b""


def _read_record(path: Path) -> EngineRecord:
    with path.open("rb") as file:
        return parse_record(file.read(MAX_RECORD_BYTES + 1), str(path))


def _written_at(path: Path) -> float:
    """Return when a file was written; of one that is gone by now, long ago."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def keep_engine(folder: Path | None, engine: StoredEngine) -> None:
    """Write an engine into the cache, its record last.

    Raises:
        BuildError: The cache cannot be written.
        OSError: The disk is full.
    """
    if folder is None:
        return
    contents = (engine.plan, engine.timing, engine.record.to_json())
    for name, content in zip(member_names(engine.record.key.digest), contents, strict=True):
        path = folder / name
        try:
            write_atomic(path, content)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise BuildError(
                f"{path}: the cache cannot be written ({error.strerror or error}); "
                "give another folder with --cache DIR, or none with --no-cache"
            ) from error


@contextlib.contextmanager
def sole_builder(folder: Path | None, key: EngineKey, progress: Progress) -> Iterator[None]:
    """Let one process at a time build an engine; the next finds it in the cache.

    The system gives the lock back when a process ends, however it ends.

    Args:
        folder: The cache; None: nothing is shared, so nothing is waited for.
        key: Of the engine.
        progress: Told when another process has to be waited for.

    Raises:
        BuildError: The cache cannot be written.
    """
    if folder is None:
        yield
        return
    path = folder / "engines" / f"{key.digest}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise BuildError(
            f"{path}: the cache cannot be written ({error.strerror or error}); "
            "give another folder with --cache DIR, or none with --no-cache"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.stage("waiting for another process that builds this engine")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:  # a network file system without locks: both build, either is right
            _log.warning("%s: cannot be locked (%s)", path, error.strerror)
        yield
    finally:
        os.close(handle)
