"""Usage statistics of engine libraries: off. What a camera's computer runs is nobody's business."""

import os
import sys


def keep_libraries_quiet() -> None:
    """Keep ONNX Runtime and OpenVINO from reporting to their makers; call before either is loaded.

    Both do unless told otherwise: OpenVINO at every import (`openvino.tools.ovc`, to Google
    Analytics, an identity in ~/intel), ONNX Runtime through a store in ~/.cache/Microsoft.
    OpenVINO has no switch for one process, but does without the package that sends. A library that
    is loaded already stays as it is, and so does `ORT_DISABLE_TELEMETRY` where it is set.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
