"""Scores of a build's graphs on its frames, kept by content hash: most of a build's time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from irstd.compile.accuracy import (
    THRESHOLD,
    Verdict,
    is_labelled,
    judge,
    score_frames,
    unmeasured,
)
from irstd.compile.cache import cached
from irstd.compile.frame_sets import read_checked
from irstd.compile.lower import Lowered
from irstd.compile.prepare import Prepared
from irstd.compile.progress import SILENT, Progress
from irstd.files import sha256_hex, sha256_of_file
from irstd.fingerprint import environment
from irstd.frames import Frame, LabelledFiles
from irstd.metrics import Scores
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.sessions import library_version, open_session
from irstd.types import InputSpec

FP32_ENGINE = "onnxruntime"


def measure_accuracy(
    files: Sequence[LabelledFiles],
    prepared: Prepared,
    lowered: Lowered,
    engine: str,
    budget: Mapping[str, float],
    cache: Path | None = None,
    progress: Progress = SILENT,
) -> Verdict:
    """Score the deployed graph against FP32 as deployed: same size, padding and tiles.

    Args:
        files: Frames that verify, in any number; without masks there is nothing to measure.
        prepared: The plain FP32 graph.
        lowered: The deployed graph.
        engine: Session that runs it.
        budget: From `parse_budget`, or empty.
        cache: Folder for stage results, None for none.
        progress: Told of each frame.

    Raises:
        InputError: A frame that is unreadable or of another bit depth, a mask that does not fit,
            or no target at all.
    """
    if not is_labelled(files):
        return unmeasured(files)
    spec = prepared.spec
    seen = sha256_hex("".join(_digest(file) for file in files).encode())

    def score(model: bytes, session: str, what: str) -> Scores:
        # The same graph computes slightly different numbers on another processor.
        processor = environment()["cpu_model"]
        parts = (model, spec, seen, THRESHOLD, library_version(session), processor)
        content = cached(
            cache,
            "scores",
            parts,
            lambda: json.dumps(vars(_score(files, spec, model, session, progress, what))).encode(),
        )
        return Scores(**json.loads(content))

    before = score(prepared.model.SerializeToString(), FP32_ENGINE, "scoring fp32")
    return judge(before, score(lowered.model, engine, "scoring the deployed graph"), budget)


def _score(
    files: Sequence[LabelledFiles],
    spec: InputSpec,
    model: bytes,
    session_name: str,
    progress: Progress,
    what: str,
) -> Scores:
    def read(file: LabelledFiles) -> Frame:
        return read_checked(file, spec)

    session = open_session(session_name, model)
    try:
        logits = FrameRunner(session, spec).logits
        return score_frames(files, read, logits, THRESHOLD, progress, what)
    finally:
        session.close()


def _digest(file: LabelledFiles) -> str:
    mask = "" if file.mask is None else sha256_of_file(file.mask)
    return sha256_of_file(file.image) + mask
