"""Finishing a bundle: its engine, built and proven on the device that will run it.

Needs neither onnx nor torch: numpy, PyYAML, OpenCV, TensorRT, and cuda-python or pycuda.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import Bundle, read_bundle, write_bundle
from irstd.compile.accuracy import Verdict, is_labelled, judge, score_frames, unmeasured
from irstd.compile.builders.cpu import time_sessions
from irstd.compile.builders.tensorrt import inspect_plan
from irstd.compile.builders.torch_tensorrt_bundle import NAME as TORCH_TENSORRT
from irstd.compile.builders.torch_tensorrt_bundle import torch_source
from irstd.compile.engine_store import StoredEngine
from irstd.compile.finish_checks import check_target
from irstd.compile.finish_engine import Bench, Made, make_engine, open_engine, use_held
from irstd.compile.frame_sets import input_tensors, read_checked
from irstd.compile.golden import Golden
from irstd.compile.parity import Parity, compare_logits
from irstd.compile.progress import SILENT, Progress
from irstd.compile.report import MEMBER as REPORT
from irstd.compile.report import read_report
from irstd.compile.verify import stored_budget
from irstd.engine_record import PLAN, RECORD, TIMING, EngineRecord, member_names
from irstd.engine_record import describe as describe_record
from irstd.errors import BudgetExceeded, IrstdError, ParityFailed, UsageError
from irstd.files import check_writable
from irstd.fingerprint import environment, to_plain
from irstd.frames import Frame, LabelledFiles, list_labelled
from irstd.manifest import EngineChoice, Manifest
from irstd.runtime.finished import check_device, read_record
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.machine.identity import this_device
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import Session
from irstd.types import Precision
from irstd.version import __version__

SESSION = "tensorrt"


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was asked for besides the golden frames.

    Attributes:
        data: Data folder to score the engine on, against FP32.
        list_file: Restricts `data`.
        budget: Allowed change; None takes the build's.
    """

    data: Path | None = None
    list_file: Path | None = None
    budget: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Finished:
    """A bundle with an engine for this device.

    Attributes:
        path: The bundle.
        sha256: Of its bytes.
        record: What its engine was built from and for.
        origin: Where the engine comes from: "built", "cache" or "bundle".
        parity: With the golden frames; None where the bundle was finished before and is as it was.
        median_ms: Of one inference; None likewise.
        verdict: Accuracy on data; None without data.
    """

    path: Path
    sha256: str
    record: EngineRecord
    origin: str
    parity: Parity | None = None
    median_ms: float | None = None
    verdict: Verdict | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "bundle": str(self.path),
            "bundle_sha256": self.sha256,
            "engine": describe_record(self.record),
            "origin": self.origin,
            "golden": None if self.parity is None else self.parity.to_dict(),
            "median_ms": self.median_ms,
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
        }


def finish_bundle(
    path: Path,
    out: Path | None = None,
    proof: Proof | None = None,
    *,
    rebuild: bool = False,
    builder: str = SESSION,
    weights: Path | None = None,
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Finished:
    """Build the engine of a bundle on this device, prove it, and put it into the bundle.

    What takes long is kept in the cache as soon as it is there, so an interrupted run goes on where
    it was. A bundle that already holds an engine for this very device is left as it is.

    Args:
        path: The bundle.
        out: Where the finished one goes; None: in the place of `path`.
        proof: What to verify besides the golden frames.
        rebuild: Build anew, whatever the bundle and the cache hold.
        builder: "tensorrt", or "torch_tensorrt": from the torch module, anew.
        weights: Of the torch module; None takes the shipped ones.
        cache: Folder for engines, None for none.
        progress: Told of each stage.

    Raises:
        BundleMismatch: The bundle is for another device, or its engine is another machine's.
        MissingDependency: No usable TensorRT, no package that reaches the driver, or no headers or
            compiler for the plugins that the graph needs.
        DeviceError: No GPU, or a plugin does not load.
        BuildError: TensorRT refuses the graph, or has not the memory to build its engine.
        ParityFailed: The engine disagrees with the golden frames.
        BudgetExceeded: Its accuracy on data is out of budget.
        UsageError: A budget on unlabelled data.
    """
    out, proof = out or path, proof or Proof()
    check_writable(out)
    bundle = read_bundle(path)
    files = [] if proof.data is None else list_labelled(proof.data, proof.list_file)
    if proof.budget and not is_labelled(files):
        raise UsageError("--budget needs labelled frames: give --data DIR with masks/")
    golden = Golden.read(bundle)
    progress.stage("looking at this device")
    device, properties = this_device()
    check_target(bundle, device, properties.memory_bytes)
    torch = torch_source(bundle, weights) if builder == TORCH_TENSORRT else None
    held = None if rebuild or torch else held_engine(bundle)
    if held is not None:
        check_device(bundle, held.record.key.device, device)
        if out == path and not files:
            return Finished(path, bundle.sha256, held.record, "bundle")
    bench = Bench(bundle, device, properties, cache, progress, rebuild=rebuild, torch=torch)
    made = use_held(bundle, held) if held else make_engine(bench, bundle.manifest.model)
    progress.stage("running the golden frames")
    session = open_engine(made.engine)
    try:
        runner = FrameRunner(session, bundle.manifest.input)
        parity = golden.check(runner.logits, bundle.manifest.precision)
        if not parity.passed:
            raise _disagrees(bundle, made, parity)
        median_ms = _median_ms(session, golden, bundle.manifest)
    finally:
        session.close()
    verdict = None if proof.data is None else _verdict(bench, golden, made.engine, files, proof)
    if verdict is not None and verdict.violations:
        raise BudgetExceeded(
            f"{bundle.path}: on this device {'; '.join(verdict.violations)}; {out} was not written"
        )
    progress.stage(f"writing {out}")
    finished = Finished(out, "", made.engine.record, made.origin, parity, median_ms, verdict)
    return dataclasses.replace(finished, sha256=_write(bundle, out, finished, made))


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


def _disagrees(bundle: Bundle, made: Made, parity: Parity) -> ParityFailed:
    anew = f"build it anew: irstd-compile finish {bundle.path} --rebuild; if it still does, "
    return ParityFailed(
        f"{bundle.path}: the engine of {made.engine.record.key.device} disagrees with the golden "
        f"frames: {parity}; nothing was written; {'' if made.origin == 'built' else anew}build the "
        "bundle with another --precision"
    )


def _median_ms(session: Session, golden: Golden, manifest: Manifest) -> float:
    tensors = input_tensors(golden.frames, Preprocessor(manifest.input))
    inputs: list[NDArray[np.float32]] = [x.copy() for x in tensors]
    return time_sessions({SESSION: session}, inputs)[SESSION]


def _verdict(
    bench: Bench,
    golden: Golden,
    engine: StoredEngine,
    files: list[LabelledFiles],
    proof: Proof,
) -> Verdict:
    """Score the engine against an FP32 engine of the plain graph, which is built for that alone."""
    if not is_labelled(files):
        return unmeasured(files)
    manifest, progress = bench.bundle.manifest, bench.progress
    budget = stored_budget(bench.bundle) if proof.budget is None else proof.budget

    def read(file: LabelledFiles) -> Frame:
        return read_checked(file, manifest.input)

    def score(engine: StoredEngine, what: str, *, is_reference: bool) -> Any:
        session = open_engine(engine)
        try:
            runner = FrameRunner(session, manifest.input)
            if is_reference:
                _check_reference(bench.bundle, golden, runner)
            return score_frames(files, read, runner.logits, manifest.threshold, progress, what)
        finally:
            session.close()

    plain = make_engine(bench, manifest.reference).engine
    before = score(plain, "scoring fp32", is_reference=True)
    return judge(before, score(engine, "scoring the engine", is_reference=False), budget)


def _check_reference(bundle: Bundle, golden: Golden, runner: FrameRunner) -> None:
    got = [runner.logits(frame) for frame in golden.frames]
    parity = compare_logits(got, golden.logits, Precision.FP32)
    if not parity.passed:
        raise ParityFailed(
            f"{bundle.path}: TensorRT's FP32 engine of {bundle.manifest.reference} disagrees with "
            f"the golden frames: {parity}; the budget cannot be verified on this device"
        )


def _write(bundle: Bundle, out: Path, finished: Finished, made: Made) -> str:
    engine = made.engine
    plan, timing, record = member_names(engine.record.key.digest)
    gone = _replaced(bundle)
    kept = {name: bundle.read(name) for name in bundle.members if name not in gone}
    members = {
        **kept, **made.libraries, REPORT: _report(bundle, finished, made),
        plan: engine.plan, timing: engine.timing, record: engine.record.to_json(),
    }  # fmt: skip
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
    manifest = dataclasses.replace(bundle.manifest, engines=(choice,), sdk_version=__version__)
    return write_bundle(out, manifest, members)


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


def _report(bundle: Bundle, finished: Finished, made: Made) -> bytes:
    found = finished.to_dict() | {
        "build": made.build,
        "layers": inspect_plan(made.engine.plan),
        "environment": environment(),
    }
    for name in ("bundle", "bundle_sha256"):
        del found[name]  # of the file that this becomes a part of
    report = {**read_report(bundle), "finish": to_plain(found)}
    return json.dumps(report, allow_nan=False).encode()
