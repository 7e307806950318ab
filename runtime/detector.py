"""A bundle, opened: frames in, detections out."""

import dataclasses
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import Bundle, read_bundle
from irstd.errors import BundleMismatch, MissingDependency, UsageError
from irstd.frames import Frame
from irstd.manifest import EngineChoice, Manifest
from irstd.runtime.finished import PLAN_SESSIONS, is_engine, is_plan, prepare_plan, wants_finish
from irstd.runtime.frame_runner import FrameRunner
from irstd.runtime.postprocess import detect, sigmoid
from irstd.runtime.sessions import (
    SESSIONS,
    Session,
    installed_sessions,
    library_version,
    open_session,
)
from irstd.runtime.stream import StreamResult, run_stream
from irstd.types import Detections

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StageTimes:
    """Where the time of one frame went.

    Attributes:
        pre_ms: Checking, normalising, padding or tiling, and stitching.
        infer_ms: Inside the engine.
        post_ms: From logits to detections.
    """

    pre_ms: float
    infer_ms: float
    post_ms: float


class Detector:
    """Finds targets in frames. Made by `open_bundle`; a context manager.

    Belongs to the thread that made it, because its buffers are reused from frame to frame: open
    one for each thread.

    Args:
        session: The engine, which the detector closes.
        manifest: What the bundle says of it.
        engine: What it is, one line.
        bundle_sha256: Of the bundle file.

    Raises:
        BuildError: The engine does not fit the manifest.
    """

    def __init__(
        self, session: Session, manifest: Manifest, *, engine: str, bundle_sha256: str
    ) -> None:
        self._session = session
        self._manifest = manifest
        self._engine = engine
        self._bundle_sha256 = bundle_sha256
        self._thread = threading.get_ident()
        self._last_timing = StageTimes(0.0, 0.0, 0.0)
        self._runner: FrameRunner | None = FrameRunner(session, manifest.input)

    def __call__(self, frame: Frame) -> Detections:
        """Find the targets in one frame.

        Args:
            frame: (H, W) uint8 for bit depth 8, uint16 for 14 and 16, or float32 in the same grey
                levels (not 0..1). Any size: a smaller one than the engine's input is padded, a
                larger one tiled, or it is resized, as the bundle says.

        Returns:
            Detections in the frame's own pixels, by descending score; empty if there are none.

        Raises:
            InputError: Another dtype or shape, NaN, or a level outside the bit depth.
            UsageError: The detector is closed, or another thread's.
        """
        runner = self._usable()
        started = time.perf_counter()
        logits = runner.logits(frame, reuse=True)
        inferred = time.perf_counter()
        found = detect(logits, self._manifest.threshold)
        done = time.perf_counter()
        pre_s = inferred - started - runner.infer_s
        self._last_timing = StageTimes(pre_s * 1e3, runner.infer_s * 1e3, (done - inferred) * 1e3)
        return found

    def logits(self, frame: Frame) -> NDArray[np.float32]:
        """Return the (H, W) float32 logits of a frame; arguments and errors as in a call."""
        return self._usable().logits(frame)

    def probabilities(self, frame: Frame) -> NDArray[np.float32]:
        """Return the (H, W) float32 probabilities in [0, 1]; arguments and errors as in a call."""
        return sigmoid(self._usable().logits(frame, reuse=True))

    def stream(
        self,
        frames: Iterable[Frame],
        fps: float | None = None,
        policy: str | None = None,
        deadline_ms: float | None = None,
    ) -> Iterator[StreamResult]:
        """Run frames at a fixed rate and yield what became of each, in frame order.

        Arguments, results and errors are those of irstd.runtime.stream.run_stream.
        """
        self._usable()
        return run_stream(self, frames, fps, policy, deadline_ms)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself: input, threshold, precision, network, licences."""
        return self._manifest

    @property
    def engine(self) -> str:
        """The engine that runs, with its version and, if it is not the bundle's choice, why."""
        return self._engine

    @property
    def bundle_sha256(self) -> str:
        """SHA-256 of the bundle file, 64 hexadecimal digits."""
        return self._bundle_sha256

    @property
    def last_timing(self) -> StageTimes:
        """Where the time of the last call went; zeros before the first."""
        return self._last_timing

    def close(self) -> None:
        """Free the engine. Calling it again does nothing; any thread may."""
        if self._runner is not None:
            self._runner = None
            self._session.close()

    def __enter__(self) -> "Detector":
        self._usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _usable(self) -> FrameRunner:
        if self._runner is None:
            raise UsageError("the detector is closed; open the bundle again")
        if threading.get_ident() != self._thread:
            raise UsageError(
                "the detector belongs to the thread that opened it; call open_bundle in each thread"
            )
        return self._runner


def open_bundle(path: str | Path, engine: str = "auto", threads: int | None = None) -> Detector:
    """Open a bundle on the CPU engine that it chose, or on the one named.

    Args:
        path: A .irstd file.
        engine: "auto" takes the engine that the build chose; if its library, or the compiler that
            its fused kernels need, is not installed here, another one that passed parity, with a
            warning and the reason in `Detector.engine`. A
            name of irstd.runtime.sessions.SESSIONS takes that engine and no other; where the bundle
            has not tried it, it gets the deployed graph, which is how a bundle for another device
            is evaluated on a CPU.
        threads: Threads that one inference may use; None leaves the choice to the library.

    Raises:
        BundleError: Missing or corrupt.
        BundleMismatch: Built for a device on which it has still to be finished, or its engine is
            another machine's; it is never loaded then.
        UsageError: No such engine, or `threads` below 1.
        MissingDependency: No usable engine is installed.
        DeviceError: No GPU for an engine that needs one, or a plugin of it does not load.
        BuildError: The engine refuses the graph.
    """
    bundle = read_bundle(Path(path))
    choices = _installed(bundle) if engine == "auto" else [_named(bundle, engine)]
    choice, session = _open_first(bundle, choices, threads)
    description = library_version(choice.session)
    if choice.note:
        _log.warning("%s: runs on %s: %s", path, description, choice.note)
        description = f"{description} ({choice.note})"
    _log.info("%s: %s", path, session.description)
    try:
        return Detector(session, bundle.manifest, engine=description, bundle_sha256=bundle.sha256)
    except BaseException:
        session.close()
        raise


@dataclasses.dataclass(frozen=True)
class _Engine:
    session: str
    member: str
    note: str  # why it is not what the build chose; empty if it is


def _open_first(
    bundle: Bundle, choices: Sequence[_Engine], threads: int | None
) -> tuple[_Engine, Session]:
    """Open the first engine that has all it needs here, such as a compiler for fused kernels."""
    *others, last = choices
    lacking = ""
    for choice in others:
        try:
            session = _open(bundle, choice, threads)
        except MissingDependency as error:
            lacking = lacking or f"{choice.session} cannot run here: {error}"
        else:
            return dataclasses.replace(choice, note=lacking or choice.note), session
    session = _open(bundle, last, threads)
    return dataclasses.replace(last, note=lacking or last.note), session


def _open(bundle: Bundle, choice: _Engine, threads: int | None) -> Session:
    if is_plan(choice.member):
        options = prepare_plan(bundle, choice.member)
        return open_session(choice.session, bundle.read(choice.member), threads=threads, **options)
    if choice.session in PLAN_SESSIONS and not is_engine(choice.member):
        raise wants_finish(bundle)
    return open_session(choice.session, bundle.read(choice.member), threads=threads)


def _installed(bundle: Bundle) -> list[_Engine]:
    """Return the engines that passed parity and are installed here, the bundle's choice first."""
    manifest = bundle.manifest
    if not manifest.engines:
        raise wants_finish(bundle)
    passed = [tried for tried in manifest.engines if tried.passed and tried.session in SESSIONS]
    if not passed:
        raise BundleMismatch(f"{bundle.path}: no engine of it passed parity; name one to run it")
    ranked = sorted(passed, key=lambda tried: (not tried.chosen, _time_ms(tried)))
    here = set(installed_sessions()) | {"fake"}
    found = [
        _Engine(tried.session, tried.member, "" if tried.chosen else _why_not(ranked[0]))
        for tried in ranked
        # What an engine lacks here is told when it is opened.
        if tried.session in here or is_engine(tried.member)
    ]
    if not found:
        wanted = " or ".join(tried.session for tried in ranked)
        raise MissingDependency(
            f"{bundle.path}: needs {wanted}, not installed; pip install 'irstd-sdk[cpu]'"
        )
    return found


def _why_not(first: EngineChoice) -> str:
    if first.chosen:
        return f"the build chose {first.session}, which is not installed"
    return "the build chose none"


def _named(bundle: Bundle, engine: str) -> _Engine:
    if engine not in SESSIONS:
        raise UsageError(f"unknown engine {engine!r}; one of auto, {', '.join(SESSIONS)}")
    for tried in bundle.manifest.engines:
        if tried.session == engine:
            note = "" if tried.passed else f"asked for; parity failed: {tried.reason}"
            return _Engine(engine, tried.member, note)
    manifest = bundle.manifest
    origin = f"the build for {manifest.target} " + (
        "tried others" if manifest.engines else "left the engine to the device"
    )
    return _Engine(engine, manifest.model, f"asked for; {origin}")


def _time_ms(tried: EngineChoice) -> float:
    return float("inf") if tried.median_ms is None else tried.median_ms
