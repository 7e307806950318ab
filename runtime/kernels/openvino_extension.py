"""The fused operators inside OpenVINO: an extension library, compiled where it is used.

It is built against the headers in the openvino wheel and linked with the library of CPU kernels,
both kept by content in the cache; its loops run on OpenVINO's own threads.
"""

import ctypes
import importlib.util
import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from irstd.errors import BuildError, MissingDependency
from irstd.runtime.kernels.cpu_library import FOLDER, build_cpu_library, build_shared_library

if TYPE_CHECKING:
    import openvino

DOMAIN = "irstd"  # of ONNX nodes that have a kernel here
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,--no-undefined")
# NodeProto.domain, as protobuf writes it: field 7, a text of 5 bytes.
_NODE_DOMAIN = b"\x3a\x05" + DOMAIN.encode()
_TEXT_BYTES = 512
_numbers = itertools.count()
_log = logging.getLogger(__name__)


def has_fused_nodes(model: bytes) -> bool:
    """Return whether a serialized ONNX graph has nodes of the domain `irstd`.

    A file that holds the same seven bytes elsewhere is taken for one, which costs a compilation.
    """
    return _NODE_DOMAIN in model


def build_openvino_extension() -> Path:
    """Return the path of the extension library, compiling it first if this machine has not yet.

    Raises:
        MissingDependency: OpenVINO is not installed, without its headers, or no C++ compiler.
        BuildError: The compiler refuses the sources, or the cache cannot be written.
    """
    include, libraries = _openvino_folders()
    core = _library(libraries, "openvino")
    flags = [*_FLAGS, f"-I{include}"]
    if not (include / "tbb").is_dir():
        flags.append("-DOV_THREAD=2")  # OV_THREAD_SEQ: a build whose thread pool is not TBB
    names = [core, _library(libraries, "openvino_onnx_frontend")]
    names += [path.name for path in libraries.glob("libtbb.so.*")]
    linked = [str(build_cpu_library()), f"-L{libraries}", *(f"-l:{name}" for name in names)]
    _log.debug("OpenVINO extension: for %s", core)
    return build_shared_library("openvino", [FOLDER / "openvino_extension.cpp"], flags, linked)


class KernelFaults:
    """What kernels of one model could not compute: OpenVINO loses exceptions that they throw.

    Args:
        library: From `build_openvino_extension`.
    """

    def __init__(self, library: Path) -> None:
        self._prefix = f"{DOMAIN}-{next(_numbers)}/".encode()
        self._text = ctypes.create_string_buffer(_TEXT_BYTES)
        try:
            self._take = ctypes.CDLL(str(library)).irstd_openvino_take_fault
        except OSError as error:
            raise BuildError(
                f"{library}: does not load ({error}); delete it and try again"
            ) from error

    def watch(self, model: "openvino.Model") -> None:
        """Mark the nodes of a model, before it is compiled, as those to report."""
        for node in model.get_ops():
            if node.get_type_info().version_id == DOMAIN:
                node.set_friendly_name(self._prefix.decode() + node.get_friendly_name())

    def take(self) -> str | None:
        """Return what went wrong since the last call, one line; None if nothing did."""
        if not self._take(self._prefix, self._text, _TEXT_BYTES):
            return None
        return self._text.value.decode(errors="replace")


def said_by_kernel(error: Exception) -> str | None:
    """Return the line of an error of OpenVINO that a kernel wrote; None if none did."""
    lines = str(error).splitlines()
    return next((line for line in lines if line.startswith(f"{DOMAIN}.")), None)


def _openvino_folders() -> tuple[Path, Path]:
    """Return the folders of OpenVINO's headers and libraries, without importing it."""
    found = importlib.util.find_spec("openvino")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("openvino is not installed; pip install 'irstd-sdk[cpu]'")
    root = Path(found.submodule_search_locations[0])
    include, libraries = root / "include", root / "libs"
    if not (include / "openvino" / "core" / "extension.hpp").is_file() or not libraries.is_dir():
        raise MissingDependency(
            f"{root}: this installation of OpenVINO has no headers, which its kernels are compiled "
            "with; pip install --force-reinstall openvino"
        )
    return include, libraries


def _library(folder: Path, stem: str) -> str:
    found = sorted(folder.glob(f"lib{stem}.so.*"))
    if not found:
        raise BuildError(f"{folder}: no lib{stem}.so; reinstall it: pip install openvino")
    return found[-1].name
