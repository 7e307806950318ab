"""Does a bundle still compute what it did when it was built, here and now?

Needs neither onnx nor torch: it runs where the bundle runs.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irstd.bundle import Bundle, read_bundle
from irstd.compile.accuracy import (
    Verdict,
    check_budget,
    is_labelled,
    judge,
    score_frames,
    unmeasured,
)
from irstd.compile.frame_sets import read_checked
from irstd.compile.golden import Golden
from irstd.compile.parity import Parity, compare_logits
from irstd.compile.progress import SILENT, Progress
from irstd.compile.report import read_report
from irstd.errors import ParityFailed, UsageError
from irstd.frames import Frame, LabelledFiles, list_labelled
from irstd.runtime.detector import Detector, open_bundle
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import open_session
from irstd.types import Precision

_FP32_ENGINE = "onnxruntime"


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        bundle_sha256: Of the bundle's bytes.
        engine: What ran the deployed graph.
        reference: Parity of the plain FP32 graph with the golden logits.
        deployed: Parity of the deployed graph, in the chosen engine, with the golden logits.
        verdict: Accuracy on data; None without data.
        built_within_budget: Whether the build kept its own budget; None where nobody measured.
    """

    bundle_sha256: str
    engine: str
    reference: Parity
    deployed: Parity
    verdict: Verdict | None
    built_within_budget: bool | None

    @property
    def passed(self) -> bool:
        """Whether accuracy is within budget: on the data given, else as the build found it."""
        if self.verdict is not None:
            return self.verdict.passed
        return self.built_within_budget is not False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `passed` as JSON values."""
        return {
            "bundle_sha256": self.bundle_sha256,
            "engine": self.engine,
            "reference": self.reference.to_dict(),
            "deployed": self.deployed.to_dict(),
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "built_within_budget": self.built_within_budget,
            "passed": self.passed,
        }


def verify_bundle(
    path: Path,
    data: Path | None = None,
    list_file: Path | None = None,
    budget: Mapping[str, float] | None = None,
    progress: Progress = SILENT,
) -> Verification:
    """Check hashes, golden frames and, with data, accuracy against FP32.

    Args:
        path: The bundle.
        data: Data folder to score both graphs on.
        list_file: Restricts `data`.
        budget: Allowed change; needs labelled data. None takes the build's.
        progress: Told of each frame.

    Raises:
        BundleError: The file is not sound, or not for this machine.
        ParityFailed: A golden frame disagrees.
        UsageError: A budget on unlabelled data.
    """
    bundle = read_bundle(path)
    files = [] if data is None else list_labelled(data, list_file)
    if budget and not is_labelled(files):
        raise UsageError("--budget needs labelled frames: give --data DIR with masks/")
    golden = Golden.read(bundle)
    # A portable bundle has no engine yet: its graph is computed node by node.
    engine = "auto" if bundle.manifest.engines else "reference"
    session = open_session(_FP32_ENGINE, bundle.read(bundle.manifest.reference))
    try:
        runner = FrameRunner(session, bundle.manifest.input)
        with open_bundle(path, engine=engine) as detector:
            reference, deployed = _parities(bundle, golden, runner, detector)
            if budget is None:
                budget = stored_budget(bundle) if is_labelled(files) else {}
            verdict = None
            if data is not None:
                verdict = _verdict(files, runner, detector, budget, progress)
            return Verification(
                bundle.sha256, detector.engine, reference, deployed, verdict, _stored_pass(bundle)
            )
    finally:
        session.close()


def _parities(
    bundle: Bundle, golden: Golden, runner: FrameRunner, detector: Detector
) -> tuple[Parity, Parity]:
    reference = compare_logits(
        [runner.logits(frame) for frame in golden.frames], golden.logits, Precision.FP32
    )
    deployed = compare_logits(
        [detector.logits(frame) for frame in golden.frames],
        golden.deployed,
        bundle.manifest.precision,
    )
    deployed = dataclasses.replace(deployed, tolerance=golden.tolerance)
    for what, found in (("the FP32 graph", reference), (detector.engine, deployed)):
        if not found.passed:
            raise ParityFailed(
                f"{bundle.path}: {what} disagrees with the golden frames: {found}; "
                "build the bundle again on this machine"
            )
    return reference, deployed


def _verdict(
    files: list[LabelledFiles],
    runner: FrameRunner,
    detector: Detector,
    budget: Mapping[str, float],
    progress: Progress,
) -> Verdict:
    if not is_labelled(files):
        return unmeasured(files)
    spec, threshold = detector.manifest.input, detector.manifest.threshold

    def read(file: LabelledFiles) -> Frame:
        return read_checked(file, spec)

    before = score_frames(files, read, runner.logits, threshold, progress, "scoring fp32")
    after = score_frames(files, read, detector.logits, threshold, progress, "scoring the bundle")
    return judge(before, after, budget)


def stored_budget(bundle: Bundle) -> Mapping[str, float]:
    """Return the budget that the bundle was built with; those of other SDK versions as they are."""
    budget = bundle.manifest.resolved.get("budget")
    return check_budget(budget) if isinstance(budget, Mapping) else {}


def _stored_pass(bundle: Bundle) -> bool | None:
    verdict = read_report(bundle).get("verdict")
    passed = verdict.get("passed") if isinstance(verdict, Mapping) else None
    return passed if isinstance(passed, bool) else None
