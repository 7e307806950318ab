"""Does a bundle still compute what it did when it was built, here and now?

Needs neither onnx nor torch: it runs where the bundle runs. Without ONNX Runtime, as on a device,
the bundle's own engine is held against the golden frames, and the FP32 graph is not computed again.
"""

import contextlib
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
from irstd.errors import MissingDependency, ParityFailed, UsageError
from irstd.frames import Frame, LabelledFiles, list_labelled
from irstd.runtime.detector import Detector, open_bundle
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import open_session
from irstd.targets import find_target
from irstd.types import Precision

_FP32_ENGINE = "onnxruntime"


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        bundle_sha256: Of the bundle's bytes.
        engine: What ran the deployed graph.
        reference: Parity of the plain FP32 graph with the golden logits; None if not computed.
        deployed: Parity of the deployed graph, in the chosen engine, with the golden logits.
        not_verified: What could not be verified here, and why; empty if all was.
        verdict: Accuracy on data; None without data.
        built_within_budget: Whether the build kept its own budget; None where nobody measured.
    """

    bundle_sha256: str
    engine: str
    reference: Parity | None
    deployed: Parity
    verdict: Verdict | None
    built_within_budget: bool | None
    not_verified: tuple[str, ...] = ()

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
            "reference": None if self.reference is None else self.reference.to_dict(),
            "deployed": self.deployed.to_dict(),
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "built_within_budget": self.built_within_budget,
            "not_verified": list(self.not_verified),
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
        MissingDependency: The bundle's engine is not installed, or it has none and there is no ONNX
            Runtime to compute its graphs; or labelled data, and none to score the FP32 graph with.
    """
    bundle = read_bundle(path)
    files = [] if data is None else list_labelled(data, list_file)
    if budget and not is_labelled(files):
        raise UsageError("--budget needs labelled frames: give --data DIR with masks/")
    golden = Golden.read(bundle)
    # A portable bundle has no engine yet: its graph is computed node by node.
    engine = "auto" if bundle.manifest.engines else "reference"
    with contextlib.ExitStack() as opened:
        fp32, lacking = _open_fp32(bundle, opened, is_scored=is_labelled(files))
        detector = opened.enter_context(open_bundle(path, engine=engine))
        reference, deployed = _parities(bundle, golden, fp32, detector)
        if budget is None:
            budget = stored_budget(bundle) if is_labelled(files) else {}
        verdict = None
        if data is not None:
            verdict = _verdict(files, fp32, detector, budget, progress)
        return Verification(
            bundle.sha256,
            detector.engine,
            reference,
            deployed,
            verdict,
            _stored_pass(bundle),
            (f"the FP32 graph: {lacking}",) if lacking else (),
        )


def _open_fp32(
    bundle: Bundle, opened: contextlib.ExitStack, *, is_scored: bool
) -> tuple[FrameRunner | None, str]:
    """Open the FP32 graph, or say what is lacking.

    Args:
        bundle: That holds it.
        opened: Closes it.
        is_scored: Whether it will be scored on data, so that nothing goes without it.

    Raises:
        MissingDependency: Nothing can be verified without it.
    """
    try:
        session = open_session(_FP32_ENGINE, bundle.read(bundle.manifest.reference))
    except MissingDependency as error:
        path = bundle.path
        if not bundle.manifest.engines:
            raise MissingDependency(
                f"{path}: holds no engine yet, and without one its graphs are computed by ONNX "
                f"Runtime ({error}); on its device: irstd-compile finish {path}"
            ) from error
        if is_scored:
            is_portable = find_target(bundle.manifest.target).portable
            on_device = f"; or on the device, by TensorRT: irstd-compile finish {path} --data DIR"
            raise MissingDependency(
                f"{path}: --data compares with the FP32 graph, which ONNX Runtime computes "
                f"({error}){on_device if is_portable else ''}"
            ) from error
        return None, str(error)
    opened.callback(session.close)
    return FrameRunner(session, bundle.manifest.input), ""


def _parities(
    bundle: Bundle, golden: Golden, fp32: FrameRunner | None, detector: Detector
) -> tuple[Parity | None, Parity]:
    reference = None
    if fp32 is not None:
        got = [fp32.logits(frame) for frame in golden.frames]
        reference = compare_logits(got, golden.logits, Precision.FP32)
    deployed = golden.check(detector.logits, bundle.manifest.precision)
    advice = "build the bundle again on this machine"
    if bundle.manifest.engines and find_target(bundle.manifest.target).portable:
        advice = f"build its engine again: irstd-compile finish {bundle.path} --rebuild"
    for what, found in (("the FP32 graph", reference), (detector.engine, deployed)):
        if found is not None and not found.passed:
            raise ParityFailed(
                f"{bundle.path}: {what} disagrees with the golden frames: {found}; {advice}"
            )
    return reference, deployed


def _verdict(
    files: list[LabelledFiles],
    fp32: FrameRunner | None,
    detector: Detector,
    budget: Mapping[str, float],
    progress: Progress,
) -> Verdict:
    if fp32 is None or not is_labelled(files):
        return unmeasured(files)
    spec, threshold = detector.manifest.input, detector.manifest.threshold

    def read(file: LabelledFiles) -> Frame:
        return read_checked(file, spec)

    before = score_frames(files, read, fp32.logits, threshold, progress, "scoring fp32")
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
