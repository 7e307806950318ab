"""What a bundle says of itself: `manifest.json` as frozen dataclasses (docs/bundle-format.md)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from irstd.types import InputSpec, Precision

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class EngineChoice:
    """One engine that was tried for a bundle.

    Attributes:
        session: Key of irstd.runtime.sessions.SESSIONS.
        library: Library and version, such as "openvino 2026.4.1".
        member: The bundle member that the session loads.
        median_ms: Median time of one inference on the building machine; None if not timed.
        max_abs_error: Largest difference of a logit from the reference on the golden frames.
        passed: Whether parity held.
        chosen: Whether it is the one that `engine="auto"` takes. At most one is.
        reason: Why it was chosen or not, one line.
    """

    session: str
    library: str
    member: str
    median_ms: float | None
    max_abs_error: float
    passed: bool
    chosen: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything that running a bundle needs to know, but the graphs themselves.

    Attributes:
        network: Name of the network, or of the ONNX file it came from.
        input: Size and preprocessing.
        threshold: Probability above which a pixel is positive.
        precision: Of `model`.
        target: Key of irstd.targets.TARGETS.
        model: Member with the graph that is deployed.
        reference: Member with the plain FP32 graph.
        engines: What was tried; empty for a target whose engine is built on the device.
        global_pooling: Whether a gate sees the whole input, so that padding and tiling change the
            result; None when not known.
        calibration: Calibration method, None for FP32 and FP16.
        int8_form: "cpu" or "nvidia", None for FP32 and FP16.
        licences: Licence statement for each part that has one ("weights", "data", ...).
        resolved: The build's resolved settings, JSON values only.
        sdk_version: Version that wrote the bundle.
    """

    network: str
    input: InputSpec
    threshold: float
    precision: Precision
    target: str
    model: str
    reference: str
    engines: tuple[EngineChoice, ...]
    global_pooling: bool | None
    calibration: str | None
    int8_form: str | None
    licences: Mapping[str, str]
    resolved: Mapping[str, Any]
    sdk_version: str
