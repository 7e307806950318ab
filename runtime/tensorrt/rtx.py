"""TensorRT for RTX: its import, and that it is alone in its process."""

import importlib
import sys
from types import ModuleType

from irstd.errors import MissingDependency, UsageError, one_line

# The second is what there is where its wheels are installed without the package of the first name.
MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
_INSTALL = "pip install 'irstd-sdk[rtx]'"


def load_tensorrt_rtx() -> ModuleType:
    """Import TensorRT for RTX.

    Returns:
        The module `tensorrt_rtx`.

    Raises:
        MissingDependency: It is not installed, or its libraries do not load.
        UsageError: TensorRT is loaded in this process.
    """
    refuse_beside("TensorRT for RTX", "tensorrt")
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in MODULES:
                raise MissingDependency(f"{name} lacks {error.name}; {_INSTALL}") from error
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingDependency(
                f"{name} is installed but does not load ({one_line(error)}); reinstall it: "
                f"{_INSTALL}"
            ) from error
    raise MissingDependency(f"TensorRT for RTX is not installed; {_INSTALL}")


def is_rtx(trt: ModuleType) -> bool:
    """Whether an imported TensorRT is that for RTX: it alone has a runtime cache."""
    return hasattr(trt, "IRuntimeCache")


def refuse_beside(wanted: str, other: str) -> None:
    """Refuse to load a TensorRT beside another: their libraries share symbols.

    Args:
        wanted: What is to be loaded, for people.
        other: Module that must not have been imported.

    Raises:
        UsageError: It has.
    """
    if any(name in sys.modules for name in (other, f"{other}_bindings")):
        raise UsageError(
            f"{other} is loaded, and {wanted} in the same process is unsafe: use another process"
        )
