"""What TensorRT for RTX compiled when an engine first ran, kept for the next process.

An engine of it holds no machine code. What the GPU needs is compiled when a context first runs;
with this cache the next process starts at once.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

from irstd.errors import DeviceError
from irstd.files import cache_dir, sha256_hex, write_atomic
from irstd.runtime.tensorrt.api import LOG
from irstd.runtime.tensorrt.engine import Engine

_log = logging.getLogger(__name__)
_KEY_DIGITS = 32


class RuntimeCache:
    """What makes a context of an engine of TensorRT for RTX, with the kernels compiled before.

    Args:
        engine: Of TensorRT for RTX.
        plan: That it was made of.
        device_name: Of the GPU that it runs on.
        folder: Where caches are kept; None: the SDK's.
    """

    def __init__(
        self, engine: Engine, plan: bytes, device_name: str, folder: Path | None = None
    ) -> None:
        version = engine.trt.__version__
        key = sha256_hex("\0".join([sha256_hex(plan), version, device_name]).encode())
        self._path = (folder or cache_dir() / "tensorrt_rtx") / f"{key[:_KEY_DIGITS]}.cache"
        self._engine = engine.cuda_engine
        self._config: Any = self._engine.create_runtime_config()
        self._cache: Any = self._config.create_runtime_cache() if self._config else None
        if self._cache is None:
            raise DeviceError(LOG.explain(f"TensorRT for RTX {version} makes no runtime cache"))
        self._stored = self._load()
        if not self._config.set_runtime_cache(self._cache):
            _log.warning("TensorRT for RTX takes no runtime cache: every start compiles again")

    def make_context(self) -> Any:
        """Return `IExecutionContext`; None where there is no memory for one."""
        return self._engine.create_execution_context(self._config)

    def store(self) -> None:
        """Keep what has been compiled since; a cache that cannot be written is only told of."""
        memory = self._cache.serialize()
        data = b"" if memory is None else bytes(memory)
        if not data or data == self._stored:
            return
        try:
            write_atomic(self._path, data)
        except OSError as error:
            _log.warning(
                "%s: the runtime cache cannot be written (%s); set IRSTD_CACHE to another folder",
                self._path,
                error.strerror or error,
            )
        else:
            self._stored = data

    def _load(self) -> bytes:
        """Return what was kept and is of use here; empty otherwise."""
        data = b""
        with contextlib.suppress(OSError):
            data = self._path.read_bytes()
        if not data or self._cache.deserialize(data):
            return data
        _log.info("%s: of another driver, or damaged; compiled again", self._path)
        return b""
