"""The CPU target: try each installed engine on the machine at hand, keep the fastest that is right.

There is nothing to store but the graph, which every CPU engine reads.
"""

import dataclasses
import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.compile.parity import compare_logits
from irstd.errors import BuildError, MissingDependency, ParityFailed
from irstd.manifest import EngineChoice
from irstd.runtime.sessions import Session, installed_sessions, library_version, open_session
from irstd.types import Precision

ROUNDS = 40
WARM_UP_ROUNDS = 5
REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class _Trial:
    name: str
    session: Session
    passed: bool
    max_abs_error: float
    finding: str


def choose_engine(
    model: bytes,
    member: str,
    inputs: Sequence[NDArray[np.float32]],
    precision: Precision,
    preference: Sequence[str],
) -> tuple[EngineChoice, ...]:
    """Try engines on one graph and choose one.

    Args:
        model: Serialized static graph.
        member: Name of the bundle member that will hold it.
        inputs: Input tensors to compare and time on.
        precision: Of the graph; chooses the tolerance.
        preference: Session names in order of preference; those not installed are passed over.

    Returns:
        Every engine tried, one of them chosen. Times are medians of single-threaded runs, the
        engines taking turns.

    Raises:
        MissingDependency: None of them is installed.
        ParityFailed: None computes what the graph says.
    """
    names = [name for name in preference if name in installed_sessions()]
    if not names:
        wanted = " or ".join(preference)
        raise MissingDependency(f"no engine for this target is installed (wanted {wanted}): "
                                "pip install 'irstd-sdk[cpu]'")  # fmt: skip
    reference = reference_outputs(model, inputs)
    trials, refusals = [], []
    for name in names:
        try:
            trials.append(_try(name, model, inputs, reference, precision))
        except BuildError as error:
            refusals.append(EngineChoice(name, library_version(name), member, None, float("inf"),
                                         False, False, str(error)))  # fmt: skip
    medians = _time([trial for trial in trials if trial.passed], inputs)
    for trial in trials:
        trial.session.close()
    fastest = min(medians, key=lambda name: medians[name], default=None)
    choices = [
        EngineChoice(
            session=trial.name,
            library=library_version(trial.name),
            member=member,
            median_ms=medians.get(trial.name),
            max_abs_error=trial.max_abs_error,
            passed=trial.passed,
            chosen=trial.name == fastest,
            reason=_reason(trial, fastest, medians),
        )
        for trial in trials
    ]
    if fastest is None:
        findings = "; ".join(f"{choice.session}: {choice.reason}" for choice in choices + refusals)
        raise ParityFailed(f"no installed engine computes what the {precision.value} graph says: "
                           f"{findings}. Build with another --precision")  # fmt: skip
    return tuple(choices + refusals)


def reference_outputs(
    model: bytes, inputs: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return the (H, W) logits of a graph computed node by node in float32, no fusion."""
    session = open_session(REFERENCE, model)
    try:
        return [session.run(x)[0][0, 0].copy() for x in inputs]
    finally:
        session.close()


def _try(
    name: str,
    model: bytes,
    inputs: Sequence[NDArray[np.float32]],
    reference: Sequence[NDArray[np.float32]],
    precision: Precision,
) -> _Trial:
    session = open_session(name, model, threads=1)
    outputs = [session.run(x)[0][0, 0].copy() for x in inputs]
    parity = compare_logits(outputs, reference, precision)
    finding = ("parity holds: " if parity.passed else "parity fails: ") + str(parity)
    return _Trial(name, session, parity.passed, parity.max_abs_error, finding)


def _time(trials: Sequence[_Trial], inputs: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """Return the median milliseconds of one inference by engine, engines taking turns."""
    samples: dict[str, list[float]] = {trial.name: [] for trial in trials}
    for step in range(WARM_UP_ROUNDS + ROUNDS):
        x = inputs[step % len(inputs)]
        for trial in trials:
            started = time.perf_counter()
            trial.session.run(x)
            samples[trial.name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(times[WARM_UP_ROUNDS:]) for name, times in samples.items()}


def _reason(trial: _Trial, fastest: str | None, medians: dict[str, float]) -> str:
    if not trial.passed:
        return trial.finding
    if trial.name == fastest:
        return "fastest that passes parity" if len(medians) > 1 else "the one that passes parity"
    return f"{medians[trial.name] / medians[fastest or trial.name]:.2f} times slower than {fastest}"
