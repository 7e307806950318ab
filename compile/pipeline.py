"""The build, stage after stage. Each stage is a function that can be called alone."""

import dataclasses
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from irstd.bundle import write_bundle
from irstd.calibration.calibrate import calibrate
from irstd.calibration.scales import ScaleTable
from irstd.calibration.tap import expose_tensors
from irstd.compile.accuracy import Verdict, judge
from irstd.compile.builders.cpu import choose_engine, reference_outputs
from irstd.compile.cache import cached
from irstd.compile.frame_sets import (
    FrameSets,
    choose_frames,
    golden_frames,
    input_tensors,
    read_calibration,
)
from irstd.compile.half import to_float16
from irstd.compile.legalise import legalise
from irstd.compile.opset import to_opset19
from irstd.compile.parity import TOLERANCES
from irstd.compile.prepare import Prepared, prepare
from irstd.compile.quantize import QuantizationPlan, plan_int8, quantize, tensors_to_calibrate
from irstd.compile.settings import BuildSettings
from irstd.compile.sources import Source, open_source
from irstd.errors import BudgetExceeded, UsageError
from irstd.files import sha256_hex
from irstd.fingerprint import environment
from irstd.frames import Frame
from irstd.manifest import EngineChoice, Manifest
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import open_session
from irstd.targets import find_target
from irstd.types import Precision
from irstd.version import __version__

_log = logging.getLogger(__name__)

REFERENCE_MEMBER = "model.onnx"
THRESHOLD = 0.5

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A graph in its deployed precision.

    Attributes:
        model: Serialized.
        scales: The ranges it was quantized with, None for floating point.
        plan: Which convolutions compute in INT8, None for floating point.
        kept_float32: Nodes of an FP16 graph that stay in FP32, with reasons.
    """

    model: bytes
    scales: ScaleTable | None
    plan: QuantizationPlan | None
    kept_float32: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes:
        path: The bundle.
        sha256: Of the bundle's bytes.
        manifest: Its manifest.
        verdict: Accuracy against FP32.
        report: Everything about the build, JSON values; stored in the bundle.
    """

    path: Path
    sha256: str
    manifest: Manifest
    verdict: Verdict
    report: Mapping[str, Any]


def run_build(
    settings: BuildSettings, out: Path, cache: Path | None, progress: Progress = _log.info
) -> BuildResult:
    """Build a bundle.

    Args:
        settings: What to build.
        out: The bundle's path; written whole or not at all.
        cache: Folder for stage results, None for none.
        progress: Told what is being done, one line a stage.

    Raises:
        BudgetExceeded: Accuracy is out of budget; `out` is written only with `settings.keep`.
        ParityFailed: No engine computes what the graph says.
        IrstdError: See the stages.
    """
    progress("loading the source")
    source = open_source(settings, cache)
    frames = choose_frames(settings)
    progress("rewriting the graph")
    prepared = prepare(source, settings, cache)
    preprocessor = Preprocessor(prepared.spec)
    integer = settings.precision is Precision.INT8
    calibration = read_calibration(frames.calibrate, prepared.spec) if integer else []
    golden = golden_frames(frames.verify, prepared.spec, settings.seed)
    golden_inputs = [x.copy() for x in input_tensors(golden, preprocessor)]
    refuse_probabilities(prepared, settings, golden_inputs)
    progress(f"lowering to {settings.precision.value}")
    lowered = lower(prepared, settings, calibration, cache)
    progress("trying engines")
    engines = build_engines(lowered, settings, golden_inputs)
    progress(f"verifying on {len(frames.verify)} frames")
    verdict = verify_accuracy(prepared, lowered, engines, frames, settings)
    manifest = _manifest(source, prepared, settings, engines)
    report = _report(settings, frames, prepared, lowered, engines, verdict)
    if verdict.violations and not settings.keep:
        raise BudgetExceeded(
            f"{'; '.join(verdict.violations)}; {out} was not written (--keep writes it)"
        )
    progress(f"writing {out}")
    members = _members(prepared, lowered, manifest, golden, golden_inputs, report)
    digest = write_bundle(out, manifest, members)
    return BuildResult(out, digest, manifest, verdict, report)


def refuse_probabilities(
    prepared: Prepared, settings: BuildSettings, inputs: Sequence[NDArray[np.float32]]
) -> None:
    """Refuse a graph that seems to end in probabilities without a Sigmoid to remove.

    Raises:
        UsageError: Every output lies in [0, 1], and nobody said that these are logits.
    """
    if settings.output != "auto" or prepared.had_sigmoid:
        return
    outputs = reference_outputs(prepared.model.SerializeToString(), inputs)
    if all(output.min() >= 0 and output.max() <= 1 for output in outputs):
        raise UsageError(
            "every output lies in [0, 1], and the graph does not end in Sigmoid: say what it "
            "computes, --output probabilities or --output logits"
        )


def lower(
    prepared: Prepared, settings: BuildSettings, frames: Sequence[Frame], cache: Path | None
) -> Lowered:
    """Bring the plain graph into the target's form and the asked precision.

    Args:
        prepared: The plain FP32 graph.
        settings: Target, precision, calibration.
        frames: Calibration frames; used for INT8 only.
        cache: Folder for stage results, None for none.

    Raises:
        CalibrationError: The frames give no usable ranges.
    """
    target = find_target(settings.target)
    plain = prepared.model
    if settings.precision is Precision.FP32:
        return Lowered(legalise(plain, target).SerializeToString(), None, None, {})
    if settings.precision is Precision.FP16:
        half, reasons = to_float16(legalise(plain, target))
        return Lowered(half.SerializeToString(), None, None, reasons)
    plan = plan_int8(plain, settings.form, settings.bit_depth)
    scales = calibrate_graph(prepared, plan, frames, settings.calibration, cache)
    integer = quantize(
        legalise(to_opset19(plain), target), scales, plan, prepared.image_range
    )
    onnx.checker.check_model(integer, full_check=True)
    return Lowered(integer.SerializeToString(), scales, plan, {})


def calibrate_graph(
    prepared: Prepared,
    plan: QuantizationPlan,
    frames: Sequence[Frame],
    method: str,
    cache: Path | None,
) -> ScaleTable:
    """Run the plain graph on frames and choose a range for each activation that needs one."""
    names = tensors_to_calibrate(prepared.model, plan)
    tapped = expose_tensors(prepared.model, names).SerializeToString()
    preprocessor = Preprocessor(prepared.spec)

    def compute() -> bytes:
        session = open_session("onnxruntime", tapped)
        try:
            table = calibrate(session, names, lambda: input_tensors(frames, preprocessor), method)
        finally:
            session.close()
        return table.to_json().encode()

    seen = sha256_hex(b"".join(sha256_hex(frame.tobytes()).encode() for frame in frames))
    spec = dataclasses.asdict(prepared.spec)
    return ScaleTable.from_json(cached(cache, "scales", (tapped, spec, seen, method), compute))


def build_engines(
    lowered: Lowered, settings: BuildSettings, inputs: Sequence[NDArray[np.float32]]
) -> tuple[EngineChoice, ...]:
    """Build for the target's engines; empty where the engine is built on the device itself."""
    target = find_target(settings.target)
    if target.portable:
        return ()
    preference = [*target.engines]
    if settings.precision is Precision.INT8 and settings.form != target.int8_form:
        # A signed graph on a CPU is there to be evaluated: where instructions saturate, computing
        # node by node is the only engine that does it right.
        preference.append("reference")
    member = deployed_member(settings.precision)
    return choose_engine(lowered.model, member, inputs, settings.precision, preference)


def verify_accuracy(
    prepared: Prepared,
    lowered: Lowered,
    engines: Sequence[EngineChoice],
    frames: FrameSets,
    settings: BuildSettings,
) -> Verdict:
    """Score the deployed graph against FP32 as deployed: same size, padding and tiles."""
    chosen = next((choice.session for choice in engines if choice.chosen), "reference")
    fp32 = open_session("onnxruntime", prepared.model.SerializeToString())
    deployed = open_session(chosen, lowered.model)
    try:
        return judge(
            frames.verify,
            FrameRunner(fp32, prepared.spec).logits,
            FrameRunner(deployed, prepared.spec).logits,
            THRESHOLD,
            settings.budget,
        )
    finally:
        fp32.close()
        deployed.close()


def deployed_member(precision: Precision) -> str:
    """Return the member that holds the deployed graph."""
    return f"model.{precision.value}.onnx"


def _manifest(
    source: Source,
    prepared: Prepared,
    settings: BuildSettings,
    engines: tuple[EngineChoice, ...],
) -> Manifest:
    integer = settings.precision is Precision.INT8
    return Manifest(
        network=source.network,
        input=prepared.spec,
        threshold=THRESHOLD,
        precision=settings.precision,
        target=settings.target,
        model=deployed_member(settings.precision),
        reference=REFERENCE_MEMBER,
        engines=engines,
        global_pooling=source.global_pooling,
        calibration=settings.calibration if integer else None,
        int8_form=settings.form if integer else None,
        licences=source.licences,
        resolved=settings.resolved(),
        sdk_version=__version__,
    )


def _report(
    settings: BuildSettings,
    frames: FrameSets,
    prepared: Prepared,
    lowered: Lowered,
    engines: Sequence[EngineChoice],
    verdict: Verdict,
) -> dict[str, Any]:
    plan = lowered.plan
    return {
        "settings": settings.resolved(),
        "environment": environment(),
        "calibrated_on": [file.stem for file in frames.calibrate],
        "verified_on": [file.stem for file in frames.verify],
        "logits_from_sigmoid": prepared.had_sigmoid,
        "int8_nodes": list(plan.int8_nodes) if plan else [],
        "float_nodes": dict(plan.float_nodes) if plan else dict(lowered.kept_float32),
        "engines": [dataclasses.asdict(choice) for choice in engines],
        "verdict": verdict_report(verdict),
    }


def verdict_report(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    return dataclasses.asdict(verdict) | {"passed": verdict.passed}


def _members(
    prepared: Prepared,
    lowered: Lowered,
    manifest: Manifest,
    golden: Sequence[Frame],
    inputs: Sequence[NDArray[np.float32]],
    report: Mapping[str, Any],
) -> dict[str, bytes]:
    plain = prepared.model.SerializeToString()
    members = {REFERENCE_MEMBER: plain, manifest.model: lowered.model}
    if lowered.scales is not None:
        members["scales.json"] = lowered.scales.to_json().encode()
    pairs = zip(
        golden, reference_outputs(plain, inputs), reference_outputs(lowered.model, inputs),
        strict=True,
    )  # fmt: skip
    for index, (frame, reference, deployed) in enumerate(pairs):
        members[f"golden/frame_{index:03d}.npy"] = _npy(frame)
        members[f"golden/logits_{index:03d}.npy"] = _npy(reference)
        members[f"golden/deployed_{index:03d}.npy"] = _npy(deployed)
    tolerance = dataclasses.asdict(TOLERANCES[manifest.precision])
    members["golden/tolerance.json"] = json.dumps(tolerance).encode()
    members["report.json"] = json.dumps(report, allow_nan=False).encode()
    return members


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
