"""The import of TensorRT: which one it is, what is wrong with it, and what it says.

TensorRT is imported inside a function only. The module that comes back is handed on: whoever
builds and runs can be tested against the genuine bindings of every version, without the libraries
behind them (tests/contract).
"""

import collections
import contextlib
import functools
import importlib
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from irstd.errors import MissingDependency, one_line

_log = logging.getLogger(__name__)

LOG_LINES = 50
# What an error carries of them: the message stays one that can be read.
TOLD_LINES = 8
# How a line of the log says that memory was short, of the device or, on a Jetson, of all.
OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|could not be allocated|allocator error|"
    r"CUDA initialization failure with error: 2\b",
    re.IGNORECASE,
)
_WORSE_THAN_INFO = ("internal error", "error", "warning")


@dataclass(frozen=True, order=True)
class Version:
    """A version of TensorRT, such as 10.13.3.9; parts that are not given are 0."""

    major: int
    minor: int
    patch: int = 0
    build: int = 0

    def __str__(self) -> str:
        parts = [self.major, self.minor, self.patch, self.build]
        return ".".join(map(str, parts if self.build else parts[:3]))


OLDEST = Version(8, 6)
STRONGLY_TYPED = Version(10, 0)


@dataclass(frozen=True)
class KnownBad:
    """Versions that must not be used.

    Attributes:
        first: The first of them.
        last: The last of them; a build number is not compared.
        reason: What goes wrong, and where it is reported.
        instead: What to install.
    """

    first: Version
    last: Version
    reason: str
    instead: str


KNOWN_BAD = (
    KnownBad(
        Version(10, 2),
        Version(10, 2),
        "it looks for libnvinfer_builder_resource_win.so.10.2.0, which no package has, and builds "
        "nothing (ultralytics/ultralytics#24367)",
        "10.3 or later",
    ),
)


def load_tensorrt() -> ModuleType:
    """Import TensorRT.

    Returns:
        The module `tensorrt`, of a version that this SDK works with.

    Raises:
        MissingDependency: It is not installed, hidden by a virtual environment, or something else
            of that name; its libraries do not load; it is older than 8.6, or known to be bad.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorrt", "tensorrt_bindings"):
            raise MissingDependency(f"tensorrt lacks the package {error.name}: {error}") from error
        raise MissingDependency(_not_installed()) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependency(
            f"tensorrt is installed but does not load ({one_line(error)}): its libraries are "
            "missing or of another version; Jetson: sudo apt install --reinstall nvidia-jetpack, "
            "elsewhere: pip install --force-reinstall tensorrt"
        ) from error
    version = version_of(trt)
    if version < OLDEST:
        raise MissingDependency(
            f"TensorRT {version}; wanted {OLDEST} or later: JetPack 6 or later has it"
        )
    if bad := known_bad(version):
        raise MissingDependency(
            f"TensorRT {version} is known to be bad: {bad.reason}; install {bad.instead}"
        )
    return trt


def version_of(trt: ModuleType) -> Version:
    """Return the version of an imported TensorRT.

    Raises:
        MissingDependency: The module is no TensorRT.
    """
    text = str(getattr(trt, "__version__", ""))
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if not found or not hasattr(trt, "Runtime"):
        raise MissingDependency(
            f"the module tensorrt in {getattr(trt, '__file__', None) or 'this Python'} is not "
            "NVIDIA's: it has no Runtime or no version; remove it"
        )
    return Version(*(int(part) for part in found.groups(default="0")))


def known_bad(version: Version) -> KnownBad | None:
    """Return why a version must not be used; None for one that may."""
    release = Version(version.major, version.minor, version.patch)
    return next((bad for bad in KNOWN_BAD if bad.first <= release <= bad.last), None)


def _not_installed() -> str:
    """Return why there is no TensorRT in this Python, and what to do."""
    hidden = _system_packages() if sys.prefix != sys.base_prefix else None
    if hidden is None:
        return (
            "TensorRT is not installed; Jetson: sudo apt install nvidia-jetpack, elsewhere: "
            "pip install tensorrt"
        )
    return (
        f"TensorRT is installed in {hidden}, but hidden by the virtual environment {sys.prefix}: "
        f"set include-system-site-packages = true in {sys.prefix}/pyvenv.cfg, or make it again "
        "with python3 -m venv --system-site-packages"
    )


def _system_packages(roots: Iterable[Path] | None = None) -> Path | None:
    """Return the system's folder of packages that holds TensorRT for this Python, if any does."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [
        root / lib / packages
        for root in (roots or (Path("/usr"), Path("/usr/local"), Path(sys.base_prefix)))
        for lib in (f"lib/{name}", "lib/python3")
        for packages in ("dist-packages", "site-packages")
    ]
    return next((folder for folder in folders if (folder / "tensorrt").is_dir()), None)


class Log:
    """What TensorRT said last. Its threads write, any thread reads.

    Args:
        capacity: Lines that are kept.

    Attributes:
        interrupted: Ctrl-C came while a line was written, where nothing may be raised: that would
            have to pass through TensorRT's C++. Whoever called TensorRT asks, and raises.
    """

    def __init__(self, capacity: int = LOG_LINES) -> None:
        self._lines: collections.deque[tuple[str, str]] = collections.deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._collectors: list[tuple[str, list[str]]] = []
        self.interrupted = False

    def add(self, severity: str, message: str) -> None:
        """Keep a line, and hand it to the logger of this module at the same severity."""
        with self._lock:
            self._lines.append((severity, message.strip()))
            for wanted, found in self._collectors:
                if wanted in message:
                    found.append(message.strip())
        _log.log(_LEVELS.get(severity, logging.INFO), "%s", message.strip())

    def clear(self) -> None:
        """Forget all lines, before an operation whose errors are to be told apart."""
        with self._lock:
            self._lines.clear()
            self.interrupted = False

    @contextlib.contextmanager
    def collecting(self, text: str) -> Iterator[list[str]]:
        """Collect the messages that hold `text`, however many, in the list that this yields."""
        collector: tuple[str, list[str]] = (text, [])
        with self._lock:
            self._collectors.append(collector)
        try:
            yield collector[1]
        finally:
            with self._lock:
                self._collectors.remove(collector)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines kept, oldest first, each with its severity in front."""
        with self._lock:
            return tuple(f"[{severity}] {message}" for severity, message in self._lines)

    def explain(self, summary: str) -> str:
        """Return an error's message: the summary, then the lines of the log that matter.

        Those are the last errors and warnings; where there are none, the last lines of any kind.
        """
        with self._lock:
            kept = list(self._lines)
        grave = [line for line in kept if line[0] in _WORSE_THAN_INFO] or kept
        if not grave:
            return f"{summary}; TensorRT's log says nothing"
        told = [f"[{severity}] {one_line(text)}" for severity, text in grave[-TOLD_LINES:]]
        return "\n  ".join([f"{summary}; TensorRT's log says:", *told])


_LEVELS = {
    "internal error": logging.ERROR,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "verbose": logging.DEBUG,
}

# TensorRT keeps the first logger of a process and complains of any other.
LOG = Log()


@functools.cache
def tensorrt_logger(trt: ModuleType) -> Any:
    """Return the process's `tensorrt.ILogger`: it writes to LOG.

    Args:
        trt: The module `tensorrt`. One process has one, and one logger, which lives as long.
    """
    names = {
        trt.ILogger.INTERNAL_ERROR: "internal error",
        trt.ILogger.ERROR: "error",
        trt.ILogger.WARNING: "warning",
        trt.ILogger.INFO: "info",
        trt.ILogger.VERBOSE: "verbose",
    }

    class Forwarding(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            # The thousands of verbose lines of a build would push the errors out.
            try:
                if severity != trt.ILogger.VERBOSE or _log.isEnabledFor(logging.DEBUG):
                    LOG.add(names[severity], msg)
            except KeyboardInterrupt:
                LOG.interrupted = True

    return Forwarding()
