"""The CPU builder: the fastest engine that is right, never a faster one that is wrong."""

import json
import time
from typing import Any

import numpy as np
import pytest

from irstd.compile.builders import cpu
from irstd.compile.builders.cpu import choose_engine, reference_outputs
from irstd.errors import BuildError, MissingDependency, ParityFailed
from irstd.runtime.sessions.fake_session import FakeSession
from irstd.types import Precision

SHAPE = (1, 1, 4, 4)
INPUTS = [np.random.default_rng(n).normal(0, 5, SHAPE).astype(np.float32) for n in range(3)]


class Slow(FakeSession):
    def __init__(self, seconds, function=None):
        super().__init__(SHAPE, function)
        self.seconds, self.runs, self.closed = seconds, 0, 0

    def run(self, x):
        self.runs += 1
        time.sleep(self.seconds)
        return super().run(x)

    def close(self):
        self.closed += 1
        super().close()


@pytest.fixture
def engines(monkeypatch):
    """A dict of session name -> session or error; "reference" is what is right."""
    found: dict[str, Any] = {"reference": lambda: FakeSession(SHAPE)}
    opened: dict[str, list[int | None]] = {}

    def open_session(name, model, *, threads=None):
        made = found[name]
        if isinstance(made, Exception):
            raise made
        session = made() if callable(made) else made
        opened.setdefault(name, []).append(threads)
        return session

    monkeypatch.setattr(cpu, "open_session", open_session)
    monkeypatch.setattr(cpu, "installed_sessions", lambda: list(found))
    monkeypatch.setattr(cpu, "library_version", lambda name: f"{name} 1.0")
    monkeypatch.setattr(cpu, "ROUNDS", 5)
    monkeypatch.setattr(cpu, "WARM_UP_ROUNDS", 1)
    found["opened"] = opened
    return found


def choose(*preference, precision=Precision.FP32):
    return choose_engine(b"graph", "model.onnx", INPUTS, precision, preference)


def by_name(trials):
    return {choice.session: choice for choice in trials.choices}


def wrong(x):
    return x * np.float32(1.5)


def test_the_faster_of_two_right_ones_is_chosen(engines):
    engines["a"], engines["b"] = Slow(0.004), Slow(0.0)
    trials = choose("a", "b")
    assert trials.chosen.session == trials.evaluator == "b"
    found = by_name(trials)
    assert found["b"].reason == "fastest that passes parity"
    assert found["a"].reason.endswith("times slower than b")
    assert found["a"].median_ms > found["b"].median_ms > 0
    assert found["a"].library == "a 1.0"
    assert {choice.member for choice in trials.choices} == {"model.onnx"}
    assert trials.refused == {}


def test_a_fast_engine_that_is_wrong_is_passed_over(engines):
    engines["fast"], engines["right"] = Slow(0.0, wrong), Slow(0.002)
    found = by_name(choose("fast", "right"))
    assert found["right"].chosen
    assert found["right"].reason == "the one that passes parity"
    assert not found["fast"].chosen
    assert not found["fast"].passed
    assert found["fast"].median_ms is None  # its speed is of no interest
    assert found["fast"].reason.startswith("parity fails: mean error")
    assert found["fast"].max_abs_error == pytest.approx(0.5 * max(np.abs(x).max() for x in INPUTS))


def test_engines_are_compared_and_timed_on_one_thread(engines):
    engines["a"] = Slow(0.0)
    choose("a")
    assert engines["opened"]["a"] == [1]


def test_engines_take_turns(engines):
    order = []
    for name in "ab":
        engines[name] = FakeSession(SHAPE, lambda x, n=name: (order.append(n), x)[1])
    choose("a", "b")
    timed = "".join(order)[2 * len(INPUTS) :]
    assert timed == "ab" * 6


def test_an_engine_that_refuses_is_recorded_and_the_other_chosen(engines):
    engines["a"], engines["b"] = BuildError("a refuses the graph: no such operator"), Slow(0.0)
    trials = choose("a", "b")
    assert trials.chosen.session == "b"
    assert trials.refused == {"a": "a refuses the graph: no such operator"}


def test_a_broken_installation_is_recorded_and_the_other_chosen(engines):
    engines["a"], engines["b"] = MissingDependency("a is installed but does not load"), Slow(0.0)
    assert choose("a", "b").refused == {"a": "a is installed but does not load"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_results_do_not_reach_the_manifest(bad, engines):
    """JSON has no NaN; an engine that computes it counts as one that did not run."""
    engines["a"] = Slow(0.0, lambda x: np.full_like(x, bad))
    engines["b"] = Slow(0.0)
    with np.errstate(invalid="ignore"):
        trials = choose("a", "b")
    assert "computes NaN or infinity" in trials.refused["a"]
    json.dumps([vars(choice) for choice in trials.choices], allow_nan=False)


def test_all_wrong_is_a_parity_failure_that_says_all_findings(engines):
    engines["a"], engines["openvino"] = Slow(0.0, wrong), BuildError("openvino refuses it")
    with pytest.raises(ParityFailed) as caught:
        choose("a", "openvino", precision=Precision.INT8)
    text = str(caught.value)
    assert "int8 graph" in text
    assert "a: parity fails: mean error" in text
    assert "openvino: openvino refuses it" in text
    assert "another --precision" in text


def test_where_openvino_is_missing_the_advice_is_to_install_it(engines):
    engines["onnxruntime"] = Slow(0.0, wrong)
    with pytest.raises(ParityFailed, match="pip install openvino"):
        choose("openvino", "onnxruntime")


def test_nothing_installed(engines):
    with pytest.raises(MissingDependency, match=r"wanted x or y.*pip install 'irstd-sdk\[cpu\]'"):
        choose("x", "y")


def test_every_session_is_closed_whatever_happens(engines):
    sessions = [Slow(0.0), Slow(0.0, wrong), Slow(0.0)]
    engines["a"], engines["b"] = sessions[:2]
    choose("a", "b")
    assert [session.closed for session in sessions[:2]] == [1, 1]

    def interrupted(x):
        raise KeyboardInterrupt

    engines["a"], engines["b"] = sessions[2], Slow(0.0, interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose("a", "b")
    assert sessions[2].closed == 1
    assert engines["b"].closed == 1


def test_timing_of_a_slow_graph_ends(engines, monkeypatch):
    monkeypatch.setattr(cpu, "ROUNDS", 10_000)
    monkeypatch.setattr(cpu, "TIMING_LIMIT_S", 0.02)
    engines["a"] = Slow(0.005)
    choose("a")
    assert cpu.FEWEST_ROUNDS <= engines["a"].runs <= 40


def test_reference_outputs_are_copies(monkeypatch):
    monkeypatch.setattr(cpu, "open_session", lambda name, model: FakeSession(SHAPE))
    first, second, third = reference_outputs(b"graph", INPUTS)
    for got, x in zip((first, second, third), INPUTS, strict=True):
        np.testing.assert_array_equal(got, x[0, 0])


def test_real_engines_agree_on_fp32(make_tiny, make_image):
    from irstd.compile.rewrites import rewrite

    plain, _ = rewrite(make_tiny(), 32, 32)
    trials = choose_engine(
        plain.SerializeToString(), "model.onnx", [make_image(1, 32, 32)], Precision.FP32,
        ("openvino", "onnxruntime"),
    )  # fmt: skip
    assert {choice.session for choice in trials.choices} == {"openvino", "onnxruntime"}
    assert all(choice.passed for choice in trials.choices)
    assert trials.chosen is not None
