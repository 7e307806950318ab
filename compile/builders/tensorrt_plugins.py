"""The plugins that a graph needs, made known to TensorRT before it is parsed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from irstd.errors import DeviceError, UsageError
from irstd.runtime.tensorrt.api import LOG, Version, version_of

QUICK_AHEAD_OF_TIME = Version(10, 9)


@dataclass(frozen=True)
class QuickPlugins:
    """Kernels that go into the plan: for which GPU they are.

    Attributes:
        multiprocessors: Of the GPU.
        architecture: Ten times the compute capability that the PTX asks for.
    """

    multiprocessors: int
    architecture: int


def load_libraries(registry: Any, libraries: Iterable[Path]) -> None:
    """Load plugin libraries into TensorRT.

    Args:
        registry: `tensorrt.IPluginRegistry`.
        libraries: Shared libraries; TensorRT loads one that it has already only once.

    Raises:
        UsageError: There is no such file.
        DeviceError: It does not load.
    """
    for path in libraries:
        if not path.is_file():
            raise UsageError(f"{path}: no such plugin library; irstd-compile finish compiles it")
        if registry.load_library(str(path)) is None:
            raise DeviceError(
                LOG.explain(
                    f"{path}: TensorRT does not load this plugin library: it was compiled for "
                    "another TensorRT or another machine; irstd-compile finish compiles it here"
                )
            )


def register_quick(trt: ModuleType, plugins: QuickPlugins) -> None:
    """Make the operators known as kernels that the plan carries.

    A name can be registered once in a process: a second build there takes the first's.

    Args:
        trt: The module `tensorrt`, of 10.9 or later.
        plugins: For which GPU.

    Raises:
        UsageError: That TensorRT is too old.
        MissingDependency: No nvcc to compile the kernels with.
    """
    version = version_of(trt)
    if version < QUICK_AHEAD_OF_TIME:
        raise UsageError(
            f"TensorRT {version} puts no kernels into a plan; wanted {QUICK_AHEAD_OF_TIME} or "
            "later, or plugin libraries"
        )
    import importlib

    from irstd.runtime.kernels.tensorrt.quick import register
    from irstd.runtime.kernels.tensorrt.quick_nodes import quick_nodes

    plugin = importlib.import_module("tensorrt.plugin")
    for node in quick_nodes(plugins.multiprocessors, plugins.architecture):
        if node.name not in _registered:
            register(plugin, node)
            _registered.add(node.name)


_registered: set[str] = set()
