"""The plugins of a bundle's fused operators, compiled with this device's own tools."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

from irstd.bundle import Bundle
from irstd.compile.progress import Progress
from irstd.compile.report import read_report
from irstd.engine_record import PLUGIN_GRAPH
from irstd.errors import BuildError, BundleCorrupt, MissingDependency
from irstd.files import cache_dir, keep_content, sha256_hex
from irstd.runtime.finished import load_plugin
from irstd.runtime.kernels.cuda.bindings import Properties, find_binding
from irstd.runtime.kernels.cuda.images import image_for
from irstd.runtime.kernels.tensorrt.plugin_library import build_plugin
from irstd.runtime.tensorrt.api import load_tensorrt, version_of

_log = logging.getLogger(__name__)
# Nodes of domain "irstd", by the folder of their kernels.
_OPERATORS = {
    "HaarGate": "haar_gate",
    "MSDeformAttn": "ms_deform_attn",
    "SpectralSplit": "spectral_split",
}


@dataclasses.dataclass(frozen=True)
class Plugins:
    """Plugin libraries that are loaded.

    Attributes:
        members: The member of the finished bundle that will hold each operator's library.
        libraries: The bytes of each such member.
        lacking: Why there are none for a bundle that has a use for them; empty otherwise.
    """

    members: Mapping[str, str] = dataclasses.field(default_factory=dict)
    libraries: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    lacking: str = ""


def compile_plugins(bundle: Bundle, properties: Properties, progress: Progress) -> Plugins:
    """Compile and load what the bundle's plugin graph needs.

    Where they cannot be compiled there are none, and the log says why: the graph in standard
    operators computes the same.

    Args:
        bundle: To be finished.
        properties: Of the GPU.
        progress: Told of the stage.

    Raises:
        BundleCorrupt: The report names an operator that there is not.
        DeviceError: A library that was compiled does not load.
    """
    ops = plugin_operators(bundle)
    if not ops:
        return Plugins()
    progress.stage(f"compiling plugins: {', '.join(ops)}")
    members, libraries = {}, {}
    try:
        driver_version = find_binding().driver_version()
        version = version_of(load_tensorrt())
        for op in ops:
            image = image_for(op, properties.architecture, driver_version).data
            kernels = cache_dir() / "kernels" / f"{op}-{sha256_hex(image)}.image"
            keep_content(kernels, sha256_hex(image), functools.partial(bytes, image))
            path = build_plugin(op, kernels, tensorrt=(version.major, version.minor))
            members[op] = f"kernels/{op}/{path.name}"
            libraries[members[op]] = path.read_bytes()
            load_plugin(op, path)
    except (MissingDependency, BuildError, OSError) as error:
        lacking = (
            f"fused operators run as standard ones, in more time: {error}; once that is mended, "
            "finish with --rebuild"
        )
        _log.warning("%s", lacking)
        return Plugins(lacking=lacking)
    return Plugins(members, libraries)


def plugin_operators(bundle: Bundle) -> list[str]:
    """Return the operators whose plugins the bundle's plugin graph needs, sorted.

    Raises:
        BundleCorrupt: The report names none, or one that there is not.
    """
    if PLUGIN_GRAPH not in bundle.members:
        return []
    nodes = read_report(bundle).get("plugins")
    names: list[Any] = list(nodes.values()) if isinstance(nodes, dict) else [nodes]
    if not names:
        raise BundleCorrupt(f"{bundle.path}: report.json names no plugin of {PLUGIN_GRAPH}")
    if unknown := [name for name in names if not isinstance(name, str) or name not in _OPERATORS]:
        raise BundleCorrupt(
            f"{bundle.path}: report.json names the plugin {str(unknown[0])[:40]!r}; this SDK has "
            f"{', '.join(_OPERATORS)}"
        )
    return sorted({_OPERATORS[name] for name in names})
