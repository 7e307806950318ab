"""Finishing a bundle: its engine, built and proven on the device that will run it.

Needs neither onnx nor torch: numpy, PyYAML, OpenCV, TensorRT, and cuda-python or pycuda.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from irstd.bundle import Bundle, read_bundle
from irstd.compile.accuracy import is_labelled
from irstd.compile.builders.tensorrt import inspect_plan
from irstd.compile.builders.tensorrt_rtx import SESSION as TENSORRT_RTX
from irstd.compile.builders.torch_tensorrt_bundle import NAME as TORCH_TENSORRT
from irstd.compile.builders.torch_tensorrt_bundle import torch_source
from irstd.compile.engine_store import StoredEngine
from irstd.compile.finish_checks import check_dla, check_portable, check_target
from irstd.compile.finish_engine import (
    Bench,
    Made,
    make_engine,
    open_engine,
    use_held,
)
from irstd.compile.finish_proof import Candidate, Proof, measure, prove
from irstd.compile.finish_result import Finished, write_finished
from irstd.compile.finish_rtx import finish_rtx, runs_rtx
from irstd.compile.golden import Golden
from irstd.compile.progress import SILENT, Progress
from irstd.engine_record import PLAN, RECORD, TIMING, PlanForm, member_names
from irstd.engine_record import describe as describe_record
from irstd.errors import BundleCorrupt, IrstdError, UsageError
from irstd.files import check_writable
from irstd.frames import LabelledFiles, list_labelled
from irstd.manifest import EngineChoice
from irstd.runtime.finished import check_device, plan_options, read_record
from irstd.runtime.machine.identity import this_device
from irstd.runtime.tensorrt.api import load_tensorrt, version_of

SESSION = "tensorrt"
AUTO = "auto"


def finish_bundle(
    path: Path,
    out: Path | None = None,
    proof: Proof | None = None,
    *,
    rebuild: bool = False,
    builder: str = AUTO,
    weights: Path | None = None,
    form: PlanForm = PlanForm.WHOLE,
    plugins: bool = True,
    dla_core: int | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Finished:
    """Build the engine of a bundle on this device, prove it, and put it into the bundle.

    What takes long is kept in the cache as soon as it is there, so an interrupted run goes on where
    it was. A bundle that already holds such an engine for this very device is left as it is.

    Args:
        path: The bundle.
        out: Where the finished one goes; None: in the place of `path`.
        proof: What to verify besides the golden frames.
        rebuild: Build anew, whatever the bundle and the cache hold.
        builder: "auto" takes "tensorrt_rtx" where the target prefers it and it is installed, else
            "tensorrt"; "torch_tensorrt" builds from the torch module, anew.
        weights: Of the torch module; None takes the shipped ones.
        form: What TensorRT's plan brings along; the other builders know whole ones only.
        plugins: Whether fused operators run in plugins where these can be compiled here; else, and
            where they cannot, they run as standard operators.
        dla_core: Core of the Deep Learning Accelerator that runs what it can; None: all on the GPU.
        cache: Folder for engines, None for none.
        progress: Told of each stage.

    Raises:
        BundleMismatch: The bundle is for another device, or its engine is another machine's.
        MissingDependency: No usable TensorRT, or no package that reaches the driver.
        DeviceError: No GPU, or a plugin does not load.
        BuildError: TensorRT refuses the graph, or has not the memory to build its engine.
        ParityFailed: The engine disagrees with the golden frames.
        BudgetExceeded: Its accuracy on data is out of budget.
        UsageError: A budget on unlabelled data, or a form of plan or a DLA that is not to be had.
    """
    proof = proof or Proof()
    if out is None:  # a link stays one, and what it leads to is finished
        path = out = Path(os.path.realpath(path)) if path.is_symlink() else path
    check_writable(out)
    files = [] if proof.data is None else list_labelled(proof.data, proof.list_file)
    if proof.budget and not is_labelled(files):
        raise UsageError("--budget needs labelled frames: give --data DIR with masks/")
    job = _Job(
        out, proof, files, rebuild, builder, weights, form, plugins, dla_core, cache, progress
    )
    while True:
        bundle = read_bundle(path)
        try:
            return _finish(bundle, job)
        except BundleCorrupt:
            if read_bundle(path).sha256 == bundle.sha256:
                raise
            progress.stage(f"{path} was changed by another process: starting again")


@dataclasses.dataclass(frozen=True)
class _Job:
    """The arguments of `finish_bundle`, and the files of its data."""

    out: Path
    proof: Proof
    files: Sequence[LabelledFiles]
    rebuild: bool
    builder: str
    weights: Path | None
    form: PlanForm
    plugins: bool
    dla_core: int | None
    cache: Path | None
    progress: Progress


def _finish(bundle: Bundle, job: _Job) -> Finished:
    out, proof, files, progress = job.out, job.proof, job.files, job.progress
    check_portable(bundle)
    golden = Golden.read(bundle)
    progress.stage("looking at this device")
    is_rtx = job.builder == TENSORRT_RTX or (job.builder == AUTO and runs_rtx(bundle))
    _check_builder(job, is_rtx=is_rtx)
    if is_rtx:
        return finish_rtx(bundle, out, golden, files, proof, rebuild=job.rebuild, progress=progress)
    device, properties = this_device()
    target = check_target(bundle, device, properties.memory_bytes)
    if job.dla_core is not None:
        check_dla(bundle, target, job.dla_core, version_of(load_tensorrt()))
    torch = torch_source(bundle, job.weights) if job.builder == TORCH_TENSORRT else None
    earlier = None if job.rebuild or torch else held_engine(bundle)
    if earlier is not None:
        check_device(bundle, earlier.record, device)
    held = earlier if earlier and _is_wanted(earlier, job) else None
    if held and out == bundle.path and not files:
        engine = describe_record(held.record)
        return Finished(out, bundle.sha256, engine, held.record.key.device, "bundle")
    bench = Bench(
        bundle,
        device,
        properties,
        job.cache,
        progress,
        rebuild=job.rebuild,
        torch=torch,
        form=job.form,
        dla_core=job.dla_core,
        # Plugins are compiled for one TensorRT.
        plugins=job.plugins and job.form is not PlanForm.VERSION_COMPATIBLE,
        earlier=earlier,
    )
    made = use_held(bundle, held) if held else make_engine(bench, bundle.manifest.model)
    candidate = Candidate(
        bundle,
        golden,
        made.engine.record.key.device,
        made.origin == "built",
        lambda: open_engine(bundle, made.engine),
        lambda: open_engine(bundle, make_engine(bench, bundle.manifest.reference).engine),
    )
    progress.stage("running the golden frames")
    parity, median_ms = prove(candidate)
    verdict = measure(candidate, files, proof, out, progress)
    progress.stage(f"writing {out}")
    engine = describe_record(made.engine.record)
    finished = Finished(out, "", engine, device, made.origin, parity, median_ms, verdict)
    return _write(bundle, finished, made)


def _is_wanted(engine: StoredEngine, job: _Job) -> bool:
    """Whether an engine of this device is what was asked for."""
    key = engine.record.key
    same = key.form is job.form and key.dla_core == job.dla_core
    return same and (job.plugins or not key.plugins)


def held_engine(bundle: Bundle) -> StoredEngine | None:
    """Return the engine that a finished bundle holds; None for one that has still to be finished.

    Raises:
        BundleCorrupt: A rule of docs/bundle-format.md is violated.
    """
    for choice in bundle.manifest.engines:
        if choice.session == SESSION and choice.member.endswith(PLAN):
            record = read_record(bundle, choice.member)
            plan, timing, _ = member_names(record.key.digest)
            return StoredEngine(record, bundle.read(plan), bundle.read(timing))
    return None


def _write(bundle: Bundle, finished: Finished, made: Made) -> Finished:
    engine = made.engine
    plan, timing, record = member_names(engine.record.key.digest)
    members = {
        **made.libraries,
        plan: engine.plan,
        timing: engine.timing,
        record: engine.record.to_json(),
    }
    choice = EngineChoice(
        session=SESSION,
        library=engine.record.key.device.library,
        member=plan,
        median_ms=finished.median_ms,
        max_abs_error=finished.parity.max_abs_error if finished.parity else 0.0,
        passed=True,
        chosen=True,
        reason=f"built on {engine.record.key.device}",
    )
    layers = inspect_plan(engine.plan, **plan_options(bundle, engine.record))
    told = {"build": made.build, "layers": layers}
    return write_finished(bundle, finished, choice, members, _replaced(bundle), told)


def _check_builder(job: _Job, *, is_rtx: bool) -> None:
    """Refuse what the builder does not have."""
    if job.weights is not None and job.builder != TORCH_TENSORRT:
        raise UsageError(f"--weights goes with --builder {TORCH_TENSORRT}")
    asked = job.form.flag or ("" if job.dla_core is None else "--dla")
    if job.form.flag and job.dla_core is not None:
        raise UsageError(f"--dla goes without {job.form.flag}: NVIDIA names no such plans")
    if asked and (is_rtx or job.builder == TORCH_TENSORRT):
        raise UsageError(f"{asked} goes with --builder {SESSION}")


def _replaced(bundle: Bundle) -> set[str]:
    """Return the members of earlier engines, whole or not: they give way to the new one."""
    ours = (PLAN, TIMING, RECORD)
    gone = {name for name in bundle.members if name.startswith("engines/") and name.endswith(ours)}
    for choice in bundle.manifest.engines:
        try:
            gone |= set(read_record(bundle, choice.member).libraries.values())
        except IrstdError:
            continue  # a damaged record names nothing
    return gone
