"""Engine sessions: a graph in, arrays in, arrays out. Nothing above this package knows a library.

A session's file imports its library when it is opened, so naming an engine costs nothing.
"""

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType

from irstd.errors import MissingDependency, UsageError
from irstd.runtime.sessions.fake_session import open_fake
from irstd.runtime.sessions.onnxruntime_session import open_onnxruntime, open_reference
from irstd.runtime.sessions.openvino_session import open_openvino
from irstd.runtime.sessions.protocol import Session
from irstd.runtime.sessions.telemetry import keep_libraries_quiet
from irstd.runtime.sessions.tensorrt_session import (
    import_tensorrt,
    import_tensorrt_rtx,
    open_tensorrt,
    open_tensorrt_rtx,
)

__all__ = [
    "ENGINES",
    "SESSIONS",
    "Session",
    "installed_sessions",
    "library_version",
    "open_session",
]

SESSIONS: dict[str, Callable[[bytes, int | None], Session]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "reference": open_reference,
    "tensorrt": open_tensorrt,
    "tensorrt_rtx": open_tensorrt_rtx,
    "fake": open_fake,
}

# The modules that a library may be installed as. "reference" is a way to run onnxruntime, so it
# shares its library.
_LIBRARIES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "reference": ("onnxruntime",),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
# What a user may ask for by name: every session but the one for tests.
ENGINES = tuple(_LIBRARIES)

# Those that say more than that they are not installed.
_IMPORTS = {"tensorrt": import_tensorrt, "tensorrt_rtx": import_tensorrt_rtx}

# Here, because everything that loads one of the libraries imports this package before.
keep_libraries_quiet()

MOST_THREADS = 1024
_INSTALL = "pip install 'irstd-sdk[cpu]'"


def open_session(
    name: str,
    model: bytes,
    *,
    threads: int | None = None,
    weights: bytes | None = None,
    dla_core: int | None = None,
) -> Session:
    """Load a graph into an engine.

    Args:
        name: Key of SESSIONS.
        model: What that engine loads: a serialized ONNX graph with static shapes, one float32
            image input (1, C, H, W) and float32 outputs; for "tensorrt" and "tensorrt_rtx" the
            plan that it built; for "fake" see FakeSession.
        threads: Threads that one inference may use; None leaves the choice to the library.
        weights: The serialized ONNX graph, for a plan of "tensorrt" that holds no weights.
        dla_core: Of the Deep Learning Accelerator, for a plan of "tensorrt" that was built for one.

    Raises:
        UsageError: No such session, `threads` outside 1 to MOST_THREADS, or `weights` or
            `dla_core` for another session.
        MissingDependency: Its library is not installed, or its installation is broken.
        BuildError: The library refuses the graph.
        BundleMismatch: A plan is of another library or GPU, damaged, or lacks weights.
        DeviceError: There is no GPU, or no memory.
    """
    opener = SESSIONS[_known(name)]
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MOST_THREADS):
        raise UsageError(f"threads {threads!r}: wanted a whole number from 1 to {MOST_THREADS}")
    if name == "tensorrt":
        _library(name)
        return open_tensorrt(model, threads, weights, dla_core)
    if weights is not None or dla_core is not None:
        what = "dla_core" if weights is None else "weights"
        raise UsageError(
            f"{what} for a session of {name}: wanted tensorrt, whose plans may need it"
        )
    _library(name)
    return opener(model, threads)


def installed_sessions() -> list[str]:
    """Return the sessions whose library is installed, without loading any of them."""
    return [
        name for name, modules in _LIBRARIES.items() if any(map(importlib.util.find_spec, modules))
    ]


def library_version(name: str) -> str:
    """Return the library of a session and its version, such as "openvino 2026.4.1".

    Raises:
        UsageError: No such session.
        MissingDependency: Its library is not installed, or its installation is broken.
    """
    module = _library(_known(name))
    if module is None:
        return name
    # OpenVINO appends its build number and branch after a dash.
    version = str(module.__version__).split("-")[0]
    form = ", node by node" if name == "reference" else ""
    return f"{_LIBRARIES[name][0]} {version}{form}"


def _known(name: str) -> str:
    if name not in SESSIONS:
        raise UsageError(f"unknown engine {name!r}; one of {', '.join(SESSIONS)}")
    return name


def _library(name: str) -> ModuleType | None:
    """Import the library behind a session; None for a session that needs none."""
    if name not in _LIBRARIES:
        return None
    if name in _IMPORTS:
        return _IMPORTS[name]()
    (library,) = _LIBRARIES[name]
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise MissingDependency(f"{library} lacks {error.name}; {_INSTALL}") from error
        raise MissingDependency(f"{library} is not installed; {_INSTALL}") from error
    except ImportError as error:  # installed, but a shared library of it does not load
        raise MissingDependency(
            f"{library} is installed but does not load ({error}); reinstall it: {_INSTALL}"
        ) from error
