"""From the plain graph to the one that is deployed: the target's form, in the asked precision."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from irstd.calibration.calibrate import calibrate, observe_extremes
from irstd.calibration.scales import ScaleTable
from irstd.compile.cache import cached
from irstd.compile.frame_sets import input_tensors
from irstd.compile.fused import place_kernels, place_plugins
from irstd.compile.half import to_float16
from irstd.compile.legalise import legalise
from irstd.compile.lint import Finding, lint
from irstd.compile.onnx_graph import checked
from irstd.compile.opset import to_opset19
from irstd.compile.plugin_graph import plugin_graph
from irstd.compile.prepare import Prepared
from irstd.compile.progress import SILENT, Progress
from irstd.compile.quantize import (
    FORMS,
    QuantizationPlan,
    plan_int8,
    quantize,
    tensors_to_calibrate,
)
from irstd.compile.settings import LoweringSettings
from irstd.errors import ExportError
from irstd.files import sha256_hex
from irstd.frames import Frame
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import library_version, open_session
from irstd.targets import Target, find_target
from irstd.types import Precision

_OBSERVER = "onnxruntime"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A graph in its deployed precision.

    Attributes:
        model: Serialized.
        precision: Of `model`.
        scales: The ranges it was quantized with, None for floating point.
        int8_nodes: Convolutions that compute in INT8.
        float_nodes: Nodes that stay in a higher precision than the rest, each with the reason.
        kernels: Nodes that run in fused kernels, each with its operator.
        written_out: Fused operators that became standard ones, each with the reason.
        findings: What in the graph an NVIDIA engine will not run as it is meant.
        plugin_model: The same graph with plugin nodes, serialized (irstd.compile.plugin_graph);
            None where there is nothing for plugins.
        plugins: Nodes that run in plugins there, each with its operator.
    """

    model: bytes
    precision: Precision
    scales: ScaleTable | None = None
    int8_nodes: tuple[str, ...] = ()
    float_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kernels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    written_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    plugin_model: bytes | None = None
    plugins: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Observed:
    """What the frames have shown of a graph.

    Attributes:
        maxima: Largest absolute value of each activation, for float16.
        scales: The ranges for INT8.
    """

    maxima: Mapping[str, float] = dataclasses.field(default_factory=dict)
    scales: ScaleTable | None = None


def lower(
    prepared: Prepared,
    settings: LoweringSettings,
    frames: Sequence[Frame],
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Lowered:
    """Bring the plain graph into the target's form and the asked precision.

    Args:
        prepared: The plain FP32 graph.
        settings: Target, precision, calibration.
        frames: INT8: they calibrate. FP16: they show which activations leave its range. FP32: not
            used.
        cache: Folder for stage results, None for none.
        progress: Told of each frame.

    Raises:
        CalibrationError: The frames give no usable ranges.
        ExportError: The result is not sound ONNX.
    """
    target = find_target(settings.target)
    placed = place_kernels(prepared.fused or prepared.model, target)
    prepared = dataclasses.replace(prepared, model=placed.model)
    observed = _observe(prepared, target, placed.bodies, settings, frames, cache, progress)
    lowered = _lower(prepared, target, placed.bodies, settings, observed)
    lowered = dataclasses.replace(lowered, kernels=placed.kernels, written_out=placed.written_out)
    if prepared.fused is not None and "tensorrt" in target.engines:
        lowered = _with_plugins(lowered, prepared, target, settings, observed)
    return _linted(lowered, target)


def _with_plugins(
    lowered: Lowered,
    prepared: Prepared,
    target: Target,
    settings: LoweringSettings,
    observed: _Observed,
) -> Lowered:
    """Add the graph whose fused nodes run in TensorRT's plugins, by the same observations."""
    assert prepared.fused is not None
    placed = place_plugins(prepared.fused)
    lowered = dataclasses.replace(
        lowered, written_out={**lowered.written_out, **placed.written_out}
    )
    if not placed.kernels:
        return lowered
    fused = dataclasses.replace(prepared, model=placed.model)
    other = _lower(fused, target, placed.bodies, settings, observed)
    graph = plugin_graph(onnx.load_model_from_string(other.model), observed.maxima)
    return dataclasses.replace(
        lowered, plugin_model=graph.SerializeToString(), plugins=placed.kernels
    )


def _linted(lowered: Lowered, target: Target) -> Lowered:
    """Add what the rules for NVIDIA's engines find; nothing for a CPU."""
    if target.compute_capability is None:
        return lowered
    findings = lint(checked(onnx.load_model_from_string(lowered.model), "lint"))
    for finding in findings:
        _log.warning("%s", finding)
    return dataclasses.replace(lowered, findings=findings)


def _observe(
    prepared: Prepared,
    target: Target,
    bodies: frozenset[str],
    settings: LoweringSettings,
    frames: Sequence[Frame],
    cache: Path | None,
    progress: Progress,
) -> _Observed:
    """Run the graph on the frames, as far as the precision asks for it."""
    if settings.precision is Precision.FP32:
        return _Observed()
    if settings.precision is Precision.FP16:
        return _Observed(_maxima(prepared, frames))
    plan = plan_int8(prepared.model, settings.form, prepared.spec, bodies)
    scales = calibrate_graph(prepared, plan, frames, settings.calibration, cache, progress)
    on_cpu = target.compute_capability is None
    return _Observed({} if on_cpu else _maxima(prepared, frames), scales)


def _lower(
    prepared: Prepared,
    target: Target,
    bodies: frozenset[str],
    settings: LoweringSettings,
    observed: _Observed,
) -> Lowered:
    """Lower a graph; the nodes named in `bodies` stay in float32, as a kernel does."""
    plain, scales = prepared.model, observed.scales
    if settings.precision is Precision.FP32:
        return Lowered(legalise(plain, target).SerializeToString(), Precision.FP32)
    if scales is None:
        half, reasons = to_float16(legalise(plain, target), observed.maxima, bodies)
        return Lowered(half.SerializeToString(), Precision.FP16, float_nodes=reasons)
    plan = plan_int8(plain, settings.form, prepared.spec, bodies)
    legal = legalise(to_opset19(plain), target)
    reasons = dict(plan.float_nodes)
    if target.compute_capability is None:  # CPUs compute float16 in float32, and slower
        integer = quantize(legal, scales, plan, prepared.spec)
    else:
        integer = quantize(legal, scales, plan, prepared.spec, np.float16)
        integer, kept = to_float16(integer, observed.maxima, bodies)
        reasons |= kept
    return Lowered(integer.SerializeToString(), Precision.INT8, scales, plan.int8_nodes, reasons)


def calibrate_graph(
    prepared: Prepared,
    plan: QuantizationPlan,
    frames: Sequence[Frame],
    method: str,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> ScaleTable:
    """Run the plain graph on frames and choose a range for each activation that needs one.

    Args:
        prepared: The plain FP32 graph.
        plan: What will be quantized.
        frames: As `read_calibration` returns them.
        method: Key of irstd.calibration.observers.METHODS.
        cache: Folder for stage results, None for none.
        progress: Told of each frame.

    Raises:
        CalibrationError: No frames, or activations that are not finite.
        ExportError: The plan is empty.
    """
    if not plan.int8_nodes:
        raise ExportError(
            "no layer of the graph can be quantized: its convolutions are the head, read too few "
            "channels, or there are none; build with --precision fp16 or fp32"
        )
    # One table for every form. Where only the image feeds INT8 layers its range is known; observing
    # the result does no harm.
    plans = [plan_int8(prepared.model, form, prepared.spec, plan.untouched) for form in FORMS]
    wanted = [name for other in plans for name in tensors_to_calibrate(prepared.model, other)]
    names = list(dict.fromkeys(wanted)) or [prepared.model.graph.output[0].name]
    tapped = expose_tensors(prepared.model, names).SerializeToString()
    preprocessor = Preprocessor(prepared.spec)

    def compute() -> bytes:
        session = open_session(_OBSERVER, tapped)
        try:
            table = calibrate(
                session,
                names,
                lambda: input_tensors(progress.track(frames, "calibrating"), preprocessor),
                method,
            )
        finally:
            session.close()
        return table.to_json().encode()

    seen = sha256_hex("".join(_digest(frame) for frame in frames).encode())
    parts = (tapped, prepared.spec, seen, method, library_version(_OBSERVER))
    return ScaleTable.from_json(cached(cache, "scales", parts, compute))


def expose_tensors(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of `model` whose outputs are the named float32 tensors, in that order."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        tapped.graph.output.append(value)
    return tapped


def _maxima(prepared: Prepared, frames: Sequence[Frame]) -> dict[str, float]:
    """Return the largest absolute value of each float activation on the frames."""
    values = [*prepared.model.graph.value_info, *prepared.model.graph.output]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names = [name for node in prepared.model.graph.node for name in node.output if name in floats]
    session = open_session(_OBSERVER, expose_tensors(prepared.model, names).SerializeToString())
    try:
        tensors = input_tensors(frames, Preprocessor(prepared.spec))
        extremes, _ = observe_extremes(session, names, tensors)
    finally:
        session.close()
    return {name: max(-low, high) for name, (low, high) in extremes.items()}


def _digest(frame: NDArray[np.generic]) -> str:
    return sha256_hex(f"{frame.dtype} {frame.shape} ".encode() + frame.tobytes())
