"""The build, stage after stage. Each stage is a function that can be called alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import write_bundle
from irstd.compile.accuracy import Verdict
from irstd.compile.assemble import deployed_member, make_manifest, make_members
from irstd.compile.builders.cpu import REFERENCE, EngineTrials, choose_engine, reference_outputs
from irstd.compile.builders.tensorrt_rtx_bundle import rtx_trials
from irstd.compile.frame_sets import (
    choose_frames,
    golden_frames,
    input_tensors,
    read_calibration,
    read_checked,
)
from irstd.compile.lower import Lowered, lower
from irstd.compile.measure import measure_accuracy
from irstd.compile.prepare import Prepared, prepare
from irstd.compile.progress import SILENT, Progress
from irstd.compile.report import make_report
from irstd.compile.settings import BuildSettings, LoweringSettings
from irstd.compile.sources import open_source
from irstd.errors import BudgetExceeded, UsageError
from irstd.files import check_writable
from irstd.manifest import Manifest
from irstd.runtime.preprocess import Preprocessor
from irstd.targets import find_target
from irstd.types import Precision


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
    settings: BuildSettings, out: Path, cache: Path | None, progress: Progress = SILENT
) -> BuildResult:
    """Build a bundle.

    Args:
        settings: What to build.
        out: The bundle's path; written whole or not at all.
        cache: Folder for stage results, None for none.
        progress: Told of each stage, and of the frames within it.

    Raises:
        BudgetExceeded: Accuracy is out of budget; `out` is written only with `settings.keep`.
        ParityFailed: No engine computes what the graph says.
        IrstdError: See the stages.
    """
    check_writable(out, settings.input_files)
    precision = settings.lowering.precision
    frames = choose_frames(settings.frames, precision, budget=bool(settings.budget))
    progress.stage("loading the source")
    source = open_source(settings.source, cache)
    progress.stage("rewriting the graph")
    prepared = prepare(source, settings.source, cache)
    golden = golden_frames(frames.verify, prepared.spec, settings.frames.seed)
    inputs = [x.copy() for x in input_tensors(golden, Preprocessor(prepared.spec))]
    refuse_probabilities(prepared, settings.source.output, inputs)
    progress.stage(f"lowering to {precision.value}")
    if precision is Precision.INT8:
        seen = read_calibration(frames.calibrate, prepared.spec)
    else:
        seen = [read_checked(file, prepared.spec) for file in frames.calibrate] or golden
    lowered = lower(prepared, settings.lowering, seen, cache, progress)
    progress.stage("trying engines")
    trials = build_engines(prepared, lowered, settings.lowering, inputs, cache, progress)
    progress.stage(f"verifying on {len(frames.verify)} frames")
    verdict = measure_accuracy(
        frames.verify, prepared, lowered, trials.evaluator, settings.budget, cache, progress
    )
    if verdict.violations and not settings.keep:
        raise BudgetExceeded(
            f"{'; '.join(verdict.violations)}; {out} was not written (--keep writes it)"
        )
    progress.stage(f"writing {out}")
    report = make_report(settings, frames, prepared, lowered, trials, verdict)
    manifest = make_manifest(source, prepared, settings, trials)
    members = make_members(prepared, lowered, golden, report) | dict(trials.members)
    digest = write_bundle(out, manifest, members)
    return BuildResult(out, digest, manifest, verdict, report)


def refuse_probabilities(
    prepared: Prepared, output: str, inputs: Sequence[NDArray[np.float32]]
) -> None:
    """Refuse a graph that seems to end in probabilities without a Sigmoid to remove.

    Args:
        prepared: The plain graph.
        output: What the user says that it computes, one of OUTPUT_KINDS.
        inputs: Tensors to try it on.

    Raises:
        UsageError: Every output lies in [0, 1], and nobody said that these are logits.
    """
    if output != "auto" or prepared.had_sigmoid:
        return
    outputs = reference_outputs(prepared.model.SerializeToString(), inputs)
    if all(output.min() >= 0 and output.max() <= 1 for output in outputs):
        raise UsageError(
            "every output lies in [0, 1], and the graph does not end in Sigmoid: say what it "
            "computes, --output probabilities or --output logits"
        )


def build_engines(
    prepared: Prepared,
    lowered: Lowered,
    settings: LoweringSettings,
    inputs: Sequence[NDArray[np.float32]],
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> EngineTrials:
    """Build for the target's engines: those that run here, and those that any machine can build.

    Args:
        prepared: The plain FP32 graph.
        lowered: The deployed graph.
        settings: Target and form.
        inputs: Tensors to compare and time on.
        cache: Folder for stage results, None for none.
        progress: Told of the builds that take time.

    Raises:
        MissingDependency: None of the target's engines is installed.
        ParityFailed: None computes what the graph says.
    """
    target = find_target(settings.target)
    if target.portable:
        return rtx_trials(lowered.model, target, cache, progress)
    preference = [*target.engines]
    if lowered.precision is Precision.INT8 and settings.form != target.int8_form:
        # A signed graph on a CPU is there to be evaluated: where instructions saturate, computing
        # node by node is the only engine that does it right.
        preference.append(REFERENCE)
    member = deployed_member(lowered.precision)
    plain = prepared.model.SerializeToString()
    return choose_engine(lowered.model, member, inputs, lowered.precision, preference, plain)
