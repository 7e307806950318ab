"""What `finish` leaves: the bundle with its engine, and what is said of it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irstd.bundle import Bundle, write_bundle
from irstd.compile.accuracy import Verdict
from irstd.compile.parity import Parity
from irstd.compile.report import MEMBER as REPORT
from irstd.compile.report import read_report
from irstd.engine_record import EngineDevice
from irstd.fingerprint import environment, to_plain
from irstd.manifest import EngineChoice
from irstd.version import __version__


@dataclasses.dataclass(frozen=True)
class Finished:
    """A bundle with an engine for this device.

    Attributes:
        path: The bundle.
        sha256: Of its bytes.
        engine: What the engine is, JSON values; `digest` is the stem of its members.
        device: Where it was proven.
        origin: Where it comes from: "built", "cache" or "bundle".
        parity: With the golden frames; None where the bundle was finished before and is as it was.
        median_ms: Of one inference; None likewise.
        verdict: Accuracy on data; None without data.
    """

    path: Path
    sha256: str
    engine: Mapping[str, Any]
    device: EngineDevice
    origin: str
    parity: Parity | None = None
    median_ms: float | None = None
    verdict: Verdict | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "bundle": str(self.path),
            "bundle_sha256": self.sha256,
            "engine": dict(self.engine),
            "device": to_plain(self.device),
            "origin": self.origin,
            "golden": None if self.parity is None else self.parity.to_dict(),
            "median_ms": self.median_ms,
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
        }


def proven_on(bundle: Bundle) -> Mapping[str, Any]:
    """Return where a bundle's engine was proven, the fields of EngineDevice; empty if nowhere.

    Args:
        bundle: Finished, or not.
    """
    told = read_report(bundle).get("finish")
    device = told.get("device") if isinstance(told, Mapping) else None
    return device if isinstance(device, Mapping) else {}


def write_finished(
    bundle: Bundle,
    finished: Finished,
    choice: EngineChoice,
    members: Mapping[str, bytes],
    gone: set[str],
    told: Mapping[str, Any],
) -> Finished:
    """Write the bundle with its engine; return `finished` with the hash of the file.

    Args:
        bundle: What was finished.
        finished: Its `path` is written, whole or not at all.
        choice: The one engine that the manifest names.
        members: That the engine brings.
        gone: Names of members that give way to them.
        told: More for the report, JSON values.
    """
    found = finished.to_dict() | {**told, "environment": environment()}
    for name in ("bundle", "bundle_sha256"):
        del found[name]  # of the file that this becomes a part of
    report = json.dumps({**read_report(bundle), "finish": to_plain(found)}, allow_nan=False)
    kept = {name: bundle.read(name) for name in bundle.members if name not in gone}
    manifest = dataclasses.replace(bundle.manifest, engines=(choice,), sdk_version=__version__)
    content = {**kept, **members, REPORT: report.encode()}
    return dataclasses.replace(finished, sha256=write_bundle(finished.path, manifest, content))
