"""The CPU target: try each installed engine on the machine at hand, keep the fastest that is right.

There is nothing to store but the graph, which every CPU engine reads.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.compile.parity import (
    TOLERANCES,
    Parity,
    Tolerance,
    compare_logits,
    tolerance_for,
)
from irstd.errors import BuildError, ExportError, MissingDependency, ParityFailed
from irstd.manifest import EngineChoice
from irstd.runtime.sessions import Session, installed_sessions, library_version, open_session
from irstd.types import Precision

ROUNDS = 40
WARM_UP_ROUNDS = 5
FEWEST_ROUNDS = 9
TIMING_LIMIT_S = 10.0
REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class EngineTrials:
    """What became of each engine that was tried.

    Attributes:
        choices: Those that ran; at most one is chosen.
        refused: Those that did not, by session name, each with the reason.
        members: Engines for a device that is not this one, by their name in the bundle.
        built: What is known of each of them, JSON values.
    """

    choices: tuple[EngineChoice, ...] = ()
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    members: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    built: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def chosen(self) -> EngineChoice | None:
        """The engine that a bundle takes by itself; None where it is built on the device."""
        return next((choice for choice in self.choices if choice.chosen), None)

    @property
    def evaluator(self) -> str:
        """Session that the deployed graph is scored in: the chosen one, else node by node."""
        return self.chosen.session if self.chosen else REFERENCE


@dataclasses.dataclass(frozen=True)
class _Trial:
    name: str
    library: str
    session: Session
    parity: Parity


def choose_engine(
    model: bytes,
    member: str,
    inputs: Sequence[NDArray[np.float32]],
    precision: Precision,
    preference: Sequence[str],
    source: bytes | None = None,
) -> EngineTrials:
    """Try engines on one graph and choose the fastest that computes what the graph says.

    Args:
        model: Serialized static graph.
        member: Name of the bundle member that will hold it.
        inputs: Input tensors to compare and time on, at least one.
        precision: Of the graph; chooses the tolerance.
        preference: Names of sessions; those not installed are passed over.
        source: Serialized FP32 graph that `model` was quantized from; widens the tolerance where
            quantization itself costs more than the table allows.

    Returns:
        Every engine tried, one of them chosen. Times are medians of single-threaded runs, the
        engines taking turns.

    Raises:
        MissingDependency: None of them is installed.
        ExportError: The graph itself computes NaN or infinity.
        ParityFailed: None computes what the graph says.
    """
    names = [name for name in preference if name in installed_sessions()]
    if not names:
        raise MissingDependency(
            f"no engine for this target is installed (wanted {' or '.join(preference)}): "
            "pip install 'irstd-sdk[cpu]'"
        )
    reference = reference_outputs(model, inputs)
    if not all(np.isfinite(logits).all() for logits in reference):
        raise ExportError("the graph computes NaN or infinity on these frames; see its weights")
    tolerance = TOLERANCES[precision]
    if source is not None:
        tolerance = tolerance_for(precision, reference, reference_outputs(source, inputs))
    trials: list[_Trial] = []
    refused: dict[str, str] = {}
    try:
        for name in names:
            try:
                trials.append(_try(name, model, inputs, reference, precision, tolerance))
            except (BuildError, MissingDependency) as error:
                refused[name] = str(error)
        passed = {trial.name: trial.session for trial in trials if trial.parity.passed}
        medians = time_sessions(passed, inputs)
    finally:
        for trial in trials:
            trial.session.close()
    fastest = min(medians, key=lambda name: medians[name], default=None)
    choices = tuple(_choice(trial, member, fastest, medians) for trial in trials)
    if fastest is None:
        findings = {choice.session: choice.reason for choice in choices} | refused
        told = "; ".join(f"{name}: {finding}" for name, finding in findings.items())
        raise ParityFailed(
            f"no installed engine computes what the {precision.value} graph says: {told}. "
            f"{_advice(names)}"
        )
    return EngineTrials(choices, refused)


def reference_outputs(
    model: bytes, inputs: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return the (H, W) logits of a graph computed node by node in float32, no fusion.

    Args:
        model: Serialized static graph.
        inputs: Tensors of its input shape.
    """
    session = open_session(REFERENCE, model)
    try:
        return _outputs(session, inputs)
    finally:
        session.close()


def _outputs(session: Session, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    return [session.run(x)[0][0, 0].copy() for x in inputs]


def _try(
    name: str,
    model: bytes,
    inputs: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    precision: Precision,
    tolerance: Tolerance,
) -> _Trial:
    session = open_session(name, model, threads=1)
    try:
        parity = compare_logits(_outputs(session, inputs), reference, precision, tolerance)
        library = library_version(name)
    except BaseException:
        session.close()
        raise
    if not math.isfinite(parity.max_abs_error):
        session.close()
        raise BuildError(f"{name} computes NaN or infinity where the graph does not")
    return _Trial(name, library, session, parity)


def time_sessions(
    sessions: Mapping[str, Session], inputs: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Return the median milliseconds of one inference by engine, engines taking turns."""
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    begun = time.perf_counter()
    for step in range(WARM_UP_ROUNDS + ROUNDS):
        x = inputs[step % len(inputs)]
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(x)
            samples[name].append(1e3 * (time.perf_counter() - started))
        enough = step + 1 >= WARM_UP_ROUNDS + FEWEST_ROUNDS
        if enough and time.perf_counter() - begun > TIMING_LIMIT_S:
            break
    return {name: statistics.median(times[WARM_UP_ROUNDS:]) for name, times in samples.items()}


def _choice(
    trial: _Trial, member: str, fastest: str | None, medians: Mapping[str, float]
) -> EngineChoice:
    return EngineChoice(
        session=trial.name,
        library=trial.library,
        member=member,
        median_ms=medians.get(trial.name),
        max_abs_error=trial.parity.max_abs_error,
        passed=trial.parity.passed,
        chosen=trial.name == fastest,
        reason=_reason(trial, fastest, medians),
    )


def _reason(trial: _Trial, fastest: str | None, medians: Mapping[str, float]) -> str:
    if not trial.parity.passed or fastest is None:
        return f"parity fails: {trial.parity}"
    if trial.name == fastest:
        return "fastest that passes parity" if len(medians) > 1 else "the one that passes parity"
    return f"{medians[trial.name] / medians[fastest]:.2f} times slower than {fastest}"


def _advice(tried: Sequence[str]) -> str:
    if "openvino" in tried:
        return "Build with another --precision"
    return "Install the other engine (pip install openvino), or build with another --precision"
