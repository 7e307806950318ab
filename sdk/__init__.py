"""Infrared small target detection: from a checkpoint to a fixed frame rate.

    import irstd

    with irstd.open_bundle("acm.irstd") as detector:
        detections = detector(frame)

Everything named here loads on first use, so that `import irstd` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from irstd.version import __version__

if TYPE_CHECKING:
    from irstd import errors
    from irstd.errors import IrstdError
    from irstd.metrics import evaluate
    from irstd.runtime.detector import Detector, open_bundle
    from irstd.types import Detections, InputSpec, Precision

__all__ = [
    "Detections",
    "Detector",
    "InputSpec",
    "IrstdError",
    "Precision",
    "__version__",
    "errors",
    "evaluate",
    "open_bundle",
]

_HOMES = {
    "Detections": "irstd.types",
    "Detector": "irstd.runtime.detector",
    "InputSpec": "irstd.types",
    "IrstdError": "irstd.errors",
    "Precision": "irstd.types",
    "evaluate": "irstd.metrics",
    "open_bundle": "irstd.runtime.detector",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("irstd.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'irstd' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
