"""`report.json`: everything about a build, for people and scripts that come later."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from irstd.errors import BundleCorrupt
from irstd.fingerprint import environment, to_plain

if TYPE_CHECKING:
    from irstd.bundle import Bundle
    from irstd.compile.accuracy import Verdict
    from irstd.compile.builders.cpu import EngineTrials
    from irstd.compile.frame_sets import FrameSets
    from irstd.compile.lower import Lowered
    from irstd.compile.prepare import Prepared
    from irstd.compile.settings import BuildSettings

MEMBER = "report.json"


def make_report(
    settings: "BuildSettings",
    frames: "FrameSets",
    prepared: "Prepared",
    lowered: "Lowered",
    trials: "EngineTrials",
    verdict: "Verdict",
) -> dict[str, Any]:
    """Return the report of a build as JSON values."""
    report: dict[str, Any] = to_plain(
        {
            "settings": settings.resolved(),
            "environment": environment(),
            "calibrated_on": [file.stem for file in frames.calibrate],
            "verified_on": [file.stem for file in frames.verify],
            "logits_from_sigmoid": prepared.had_sigmoid,
            "int8_nodes": lowered.int8_nodes,
            "float_nodes": lowered.float_nodes,
            "kernels": lowered.kernels,
            "written_out": lowered.written_out,
            "plugins": lowered.plugins,
            "lint": [dataclasses.asdict(finding) for finding in lowered.findings],
            "engines": [dataclasses.asdict(choice) for choice in trials.choices],
            "engines_refused": trials.refused,
            "engines_built": trials.built,
            "verdict": verdict.to_dict(),
        }
    )
    return report


def read_report(bundle: "Bundle") -> dict[str, Any]:
    """Return the report of a bundle; empty if it has none.

    Raises:
        BundleCorrupt: It is not a JSON object.
    """
    if MEMBER not in bundle.members:
        return {}
    try:
        report = json.loads(bundle.read(MEMBER))
    except (ValueError, RecursionError) as error:
        raise BundleCorrupt(f"{bundle.path}: {MEMBER} is not JSON ({error})") from error
    if not isinstance(report, dict):
        raise BundleCorrupt(f"{bundle.path}: {MEMBER} is not a JSON object")
    return report
