"""What an engine has to show before `finish` puts it into a bundle.

Needs neither onnx nor torch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import Bundle
from irstd.compile.accuracy import Verdict, is_labelled, judge, score_frames, unmeasured
from irstd.compile.builders.cpu import time_sessions
from irstd.compile.frame_sets import input_tensors, read_checked
from irstd.compile.golden import Golden
from irstd.compile.parity import Parity, compare_logits
from irstd.compile.progress import Progress
from irstd.compile.verify import stored_budget
from irstd.engine_record import EngineDevice
from irstd.errors import BudgetExceeded, ParityFailed
from irstd.frames import Frame, LabelledFiles
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.preprocess import Preprocessor
from irstd.runtime.sessions import Session
from irstd.types import Precision


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
class Candidate:
    """An engine to be proven.

    Attributes:
        bundle: Whose deployed graph it computes.
        golden: Frames of the bundle.
        device: Where it runs.
        is_new: Whether it was built just now.
        open: Opens it.
        open_plain: Opens an engine of the bundle's FP32 graph, built for that alone.
    """

    bundle: Bundle
    golden: Golden
    device: EngineDevice
    is_new: bool
    open: Callable[[], Session]
    open_plain: Callable[[], Session]


def prove(candidate: Candidate) -> tuple[Parity, float]:
    """Run the golden frames; return how near they came, and the median ms of one inference.

    Raises:
        ParityFailed: The engine disagrees with them.
    """
    bundle, golden = candidate.bundle, candidate.golden
    session = candidate.open()
    try:
        runner = FrameRunner(session, bundle.manifest.input)
        parity = golden.check(runner.logits, bundle.manifest.precision)
        if not parity.passed:
            raise _disagrees(candidate, parity)
        tensors = input_tensors(golden.frames, Preprocessor(bundle.manifest.input))
        inputs: list[NDArray[np.float32]] = [x.copy() for x in tensors]
        return parity, time_sessions({"engine": session}, inputs)["engine"]
    finally:
        session.close()


def measure(
    candidate: Candidate,
    files: Sequence[LabelledFiles],
    proof: Proof,
    out: Path,
    progress: Progress,
) -> Verdict | None:
    """Score the engine on data against FP32 on the same device; None without data.

    Args:
        candidate: The engine, which `prove` has passed.
        files: Of the data folder.
        proof: What was asked for.
        out: What is not written if the budget is violated.
        progress: Told of each frame.

    Raises:
        ParityFailed: The FP32 engine disagrees with the golden frames.
        BudgetExceeded: The accuracy is out of budget.
    """
    if proof.data is None:
        return None
    if not is_labelled(files):
        return unmeasured(files)
    bundle = candidate.bundle
    manifest = bundle.manifest

    def read(file: LabelledFiles) -> Frame:
        return read_checked(file, manifest.input)

    def score(session: Session, what: str, *, is_reference: bool) -> Any:
        try:
            runner = FrameRunner(session, manifest.input)
            if is_reference:
                _check_reference(candidate, runner)
            return score_frames(files, read, runner.logits, manifest.threshold, progress, what)
        finally:
            session.close()

    before = score(candidate.open_plain(), "scoring fp32", is_reference=True)
    after = score(candidate.open(), "scoring the engine", is_reference=False)
    budget = stored_budget(bundle) if proof.budget is None else proof.budget
    verdict = judge(before, after, budget)
    if verdict.violations:
        raise BudgetExceeded(
            f"{bundle.path}: on this device {'; '.join(verdict.violations)}; {out} was not written"
        )
    return verdict


def _disagrees(candidate: Candidate, parity: Parity) -> ParityFailed:
    path = candidate.bundle.path
    anew = f"build it anew: irstd-compile finish {path} --rebuild; if it still does, "
    return ParityFailed(
        f"{path}: the engine of {candidate.device} disagrees with the golden "
        f"frames: {parity}; nothing was written; {'' if candidate.is_new else anew}build the "
        "bundle with another --precision"
    )


def _check_reference(candidate: Candidate, runner: FrameRunner) -> None:
    bundle, golden = candidate.bundle, candidate.golden
    got = [runner.logits(frame) for frame in golden.frames]
    parity = compare_logits(got, golden.logits, Precision.FP32)
    if not parity.passed:
        raise ParityFailed(
            f"{bundle.path}: TensorRT's FP32 engine of {bundle.manifest.reference} disagrees with "
            f"the golden frames: {parity}; the budget cannot be verified on this device"
        )
