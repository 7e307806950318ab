"""Does a bundle still compute what it did when it was built, here and now?"""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import Bundle, read_bundle
from irstd.compile.accuracy import Verdict, judge
from irstd.compile.parity import Parity, Tolerance, compare_logits
from irstd.errors import BudgetExceeded, BundleCorrupt, ParityFailed
from irstd.frames import Frame, list_labelled
from irstd.runtime.detector import open_bundle
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import open_session
from irstd.types import Precision


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        bundle_sha256: Of the bundle's bytes.
        engine: What ran the deployed graph.
        reference: Parity of the plain FP32 graph with the golden logits.
        deployed: Parity of the deployed graph, in the chosen engine, with the golden logits.
        verdict: Accuracy on data; None without data.
    """

    bundle_sha256: str
    engine: str
    reference: Parity
    deployed: Parity
    verdict: Verdict | None


def verify_bundle(
    path: Path,
    data: Path | None = None,
    list_file: Path | None = None,
    budget: Mapping[str, float] | None = None,
) -> Verification:
    """Check hashes, golden frames and, with data, accuracy against FP32.

    Args:
        path: The bundle.
        data: Data folder to score both graphs on.
        list_file: Restricts `data`.
        budget: Allowed change; needs labelled data.

    Raises:
        BundleError: The file is not sound, or not for this machine.
        ParityFailed: A golden frame disagrees.
        BudgetExceeded: Accuracy is out of budget.
    """
    bundle = read_bundle(path)
    tolerance, frames = _tolerance(bundle), _golden(bundle, "frame")
    session = open_session("onnxruntime", bundle.read(bundle.manifest.reference))
    fp32 = FrameRunner(session, bundle.manifest.input).logits
    # A portable bundle has no engine yet: its graph is computed node by node.
    with open_bundle(path, engine="auto" if bundle.manifest.engines else "reference") as detector:
        reference = compare_logits(
            [fp32(frame) for frame in frames], _golden(bundle, "logits"), Precision.FP32
        )
        deployed = compare_logits(
            [detector.logits(frame) for frame in frames],
            _golden(bundle, "deployed"),
            bundle.manifest.precision,
        )
        deployed = dataclasses.replace(deployed, tolerance=tolerance)
        for what, found in (("the FP32 graph", reference), (detector.engine, deployed)):
            if not found.passed:
                raise ParityFailed(f"{path}: {what} disagrees with the golden frames: {found}")
        verdict = None
        if data is not None:
            files = list_labelled(data, list_file)
            threshold = bundle.manifest.threshold
            verdict = judge(files, fp32, detector.logits, threshold, budget or {})
            if verdict.violations:
                raise BudgetExceeded(f"{path}: {'; '.join(verdict.violations)}")
        engine = detector.engine
    return Verification(bundle.sha256, engine, reference, deployed, verdict)


def _golden(bundle: Bundle, kind: str) -> list[NDArray[np.float32] | Frame]:
    names = sorted(name for name in bundle.members if name.startswith(f"golden/{kind}_"))
    arrays = []
    for name in names:
        try:
            arrays.append(np.load(io.BytesIO(bundle.read(name)), allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise BundleCorrupt(f"{bundle.path}: {name} is not an array ({error})") from error
    return arrays


def _tolerance(bundle: Bundle) -> Tolerance:
    try:
        return Tolerance(**json.loads(bundle.read("golden/tolerance.json")))
    except (ValueError, TypeError, KeyError) as error:
        raise BundleCorrupt(f"{bundle.path}: golden/tolerance.json is damaged") from error
