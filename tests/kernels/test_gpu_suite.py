"""The GPU suite without a GPU: on a machine whose kernels are the definition."""

import itertools
import json
import sys

import numpy as np
import pytest

from irstd.benchmarks.kernels import gpu_peers, gpu_suite
from irstd.benchmarks.kernels.cases import (
    CONTENTS,
    MOST_QUERIES,
    OPERATORS,
    PRECISIONS,
    Case,
    check,
    check_cases,
    compulsory_bytes,
    definition,
    make_inputs,
    result_dtype,
    timed_cases,
)
from irstd.benchmarks.kernels.gpu_peers import Candidate
from irstd.benchmarks.kernels.gpu_report import OURS, table
from irstd.benchmarks.kernels.gpu_sanitizer import verdict
from irstd.benchmarks.kernels.gpu_suite import measure_copy, run_suite
from irstd.benchmarks.kernels.gpu_timing import WARM_CALLS, WARM_UP_ROUNDS, time_in_turns
from irstd.errors import MissingDependency, UsageError

SMALL = [
    Case("haar_gate", "small", "float16", (1, 4, 6, 8)),
    Case("ms_deform_attn", "small", "uint8", (1, 2, 8, 4), ((4, 4), (2, 2)), (2, 2)),
]
COPY_MS = 2.0


class FakeMachine:
    """Kernels that compute the definition, off by `error`; each call takes what its run says."""

    stream = 0

    def __init__(self, error=0.0):
        self.error = error
        self.log = []

    def facts(self):
        return {"name": "Fake 9000", "compute_capability": "8.7"}

    def prepare(self, op):
        return {"image": f"{op}.fatbin"}

    def candidate(self, case, arrays):
        result = definition(case, arrays)
        result = (result + self.error * np.abs(result).max()).astype(result_dtype(case))
        return Candidate(OURS, self._run(OURS, 0.5), lambda: result)

    def copy(self, nbytes):
        self.copied = nbytes
        return self._run("copy", COPY_MS)

    def occupy(self):
        self.log.append("occupy")

    def time_ms(self, run, calls):
        run()
        self.log.append(f"timed {calls}")
        return run.ms * calls

    def _run(self, name, ms):
        return FakeRun(self.log, name, ms)


class FakeRun:
    def __init__(self, log, name, ms):
        self.log, self.name, self.ms = log, name, ms

    def __call__(self):
        self.log.append(self.name)


class FakePeers:
    def __init__(self, machine):
        self.machine = machine
        self.versions = {"fake": "1.0"}

    def makers(self, case):
        yield "twice", self.twice
        yield "missing", self.missing

    def twice(self, case, arrays):
        half_wrong = definition(case, arrays) * 1.5
        return Candidate("twice", FakeRun(self.machine.log, "twice", 1.0), lambda: half_wrong)

    def missing(self, case, arrays):
        raise MissingDependency("it is not installed\nreally")


def test_candidates_take_turns_behind_something_long():
    machine = FakeMachine()
    runs = {name: FakeRun(machine.log, name, ms) for name, ms in (("a", 1.0), ("b", 3.0))}
    timings = time_in_turns(machine, runs, rounds=2)
    turn = [
        event
        for name in "ab"
        for event in ("occupy", name, "timed 1", "occupy", name, name, f"timed {WARM_CALLS}")
    ]
    assert machine.log == turn * (2 + WARM_UP_ROUNDS)
    assert timings["b"].cold.median == timings["b"].warm.median == 3.0


def test_medians_leave_the_warm_up_out(monkeypatch):
    times = itertools.chain([1000.0] * 2 * WARM_UP_ROUNDS, [1.0, 8.0, 9.0, 8.0, 2.0, 8.0])
    machine = FakeMachine()
    monkeypatch.setattr(machine, "time_ms", lambda run, calls: next(times))
    timing = time_in_turns(machine, {"a": lambda: None}, rounds=3)["a"]
    assert (timing.cold.median, timing.cold.fastest, timing.cold.slowest) == (2.0, 1.0, 9.0)
    assert timing.warm.median == 8.0 / WARM_CALLS


def test_the_copy_counts_what_it_reads_and_what_it_writes():
    machine = FakeMachine()
    assert measure_copy(machine, rounds=1) == 2 * machine.copied / (COPY_MS * 1e6)


@pytest.fixture(scope="module")
def body():
    machine = FakeMachine()
    return run_suite(machine, FakePeers(machine), checks=SMALL, timed=SMALL, rounds=1)


def test_rows_have_the_fields_of_the_interface(body):
    fields = {"op", "case", "device", "dtype", "threads", "ours_ms", "peer", "peer_ms", "ratio"}
    assert [row["peer"] for row in body["results"]] == ["twice"] * len(SMALL)
    for row in body["results"]:
        assert fields <= row.keys()
        assert (row["ours_ms"], row["peer_ms"], row["ratio"]) == (0.5, 1.0, 2.0)
        assert row["max_rel_err"] < 1e-3 < row["peer_max_rel_err"]


def test_the_roofline_is_compulsory_bytes_at_the_speed_of_the_copy(body):
    entry = body["roofline"][0]
    x = 4 * 6 * 8 * 2
    weights = 4 * (4 * 2 * 7 * 7 + 4)
    assert entry["bytes"] == 2 * x + weights
    assert entry["fraction"] == pytest.approx(entry["floor_ms"] / entry["cold_ms"]["median"])
    assert entry["floor_ms"] == pytest.approx(entry["bytes"] / body["copy"]["gb_s"] / 1e6)


def test_peers_that_are_absent_are_named(body):
    assert body["roofline"][0]["absent"] == {"missing": "it is not installed"}
    assert "not timed: missing: it is not installed" in table(body).splitlines()


def test_the_report_is_json_and_the_table_short(body):
    assert json.loads(json.dumps(body)) == body
    lines = table(body).splitlines()
    assert lines[0] == "Fake 9000, compute capability 8.7"
    assert "2 of 2 checks passed" in lines
    assert any("haar_gate small float16" in line and "twice 2.00" in line for line in lines)
    assert max(map(len, lines)) < 140


def test_a_wrong_kernel_is_named_by_the_checks_and_by_the_timings():
    machine = FakeMachine(error=0.01)
    body = run_suite(machine, None, checks=SMALL, timed=SMALL[:1], rounds=1)
    assert body["failed"] == [SMALL[0].name, SMALL[1].name, SMALL[0].name]
    lines = table(body).splitlines()
    assert "0 of 2 checks passed" in lines
    assert f"  FAILED {SMALL[0].name}" in lines
    assert body["results"][0]["peer"] is None


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_fails(broken, rng):
    case = SMALL[0]
    arrays = make_inputs(case, rng)
    result = definition(case, arrays)
    assert check(case, arrays, result).ok
    result[0, 0, 0, 0] = broken
    assert not check(case, arrays, result).ok


def test_a_result_of_another_shape_fails(rng):
    arrays = make_inputs(SMALL[0], rng)
    assert not check(SMALL[0], arrays, definition(SMALL[0], arrays)[..., :-1]).ok


def test_large_grids_are_compared_at_some_of_their_queries(rng):
    side = int(MOST_QUERIES**0.5) + 1
    case = Case("ms_deform_attn", "large", "float32", (1, 1, 1, 1), ((4, 4), (2, 2)), (side, side))
    arrays = make_inputs(case, rng)
    result = definition(case, arrays)
    assert check(case, arrays, result).ok
    assert not check(case, arrays, result + 0.1).ok


def test_the_sweep_covers_every_operator_precision_and_content():
    cases = list(check_cases())
    assert {(c.op, c.precision) for c in cases} >= {
        (op, precision) for op in OPERATORS for precision in ("float32", "float16")
    }
    attention = [c for c in cases if c.op == "ms_deform_attn"]
    assert {c.precision for c in attention} == set(PRECISIONS)
    assert {c.content for c in attention} == set(CONTENTS)
    assert {c.size[2] for c in attention} == {1, 8, 16, 32}
    assert {len(c.level_hw) for c in attention} == {2, 3, 4}
    assert {c.op for c in timed_cases() if c.label == "reference"} == set(OPERATORS)
    assert len({c.name for c in cases}) == len(cases)


@pytest.mark.parametrize("case", list(check_cases()), ids=lambda case: case.name)
def test_every_case_has_inputs_of_its_precision_and_a_finite_result(case, rng):
    arrays = make_inputs(case, rng)
    main = arrays["value" if case.op == "ms_deform_attn" else "x"]
    assert main.dtype == np.dtype(case.precision)
    result = definition(case, arrays)
    assert np.isfinite(result).all()
    assert np.isfinite(result.astype(result_dtype(case))).all()
    assert compulsory_bytes(arrays, result.astype(result_dtype(case))) > 0


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in check_cases()
        if case.precision == "float32" or (case.precision, case.op) == ("float16", "spectral_split")
    ],
    ids=lambda case: case.name,
)
def test_the_torch_peer_computes_the_definition(case, rng):
    torch = pytest.importorskip("torch")
    arrays = make_inputs(case, rng)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    result = gpu_peers.plain_function(case)(**tensors).numpy()
    assert result.dtype == result_dtype(case)
    assert check(case, arrays, result).ok


@pytest.mark.parametrize("op", ["haar_gate", "ms_deform_attn"])
def test_the_torch_peer_takes_halves(op, rng):
    """With weights and reference points in float32, as the kernels take them."""
    torch = pytest.importorskip("torch")
    halves = [case for case in check_cases() if (case.op, case.precision) == (op, "float16")]
    case = next(case for case in halves if case.explicit or op == "haar_gate")
    arrays = make_inputs(case, rng)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    result = gpu_peers.plain_function(case)(**tensors).numpy()
    assert result.dtype == np.float16
    assert result.shape == definition(case, arrays).shape
    if op == "haar_gate":  # torch 2.13 on a CPU samples maps in half wrongly
        assert check(case, arrays, result).error < 0.05


@pytest.mark.parametrize(
    ("queries", "lanes", "threads"), [(65536, 32, 512), (7, 32, 224), (1, 32, 32), (2, 300, 300)]
)
def test_threads_of_flash_divide_the_queries(queries, lanes, threads):
    assert gpu_peers.flash_threads(queries, lanes) == threads


def test_peers_without_torch_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match="torch is not installed"):
        gpu_peers.TorchPeers(0)


@pytest.mark.parametrize(
    ("code", "said", "wanted"),
    [
        (0, "ERROR SUMMARY: 0 errors", "clean"),
        (86, "=== ERROR SUMMARY: 3 errors\nbye", "exit code 86: ERROR SUMMARY: 3 errors"),
        (5, "2 of 3 checks passed\n  FAILED haar", "exit code 5:   FAILED haar"),
        (1, "", "exit code 1: "),
    ],
)
def test_verdicts_of_the_sanitizer(code, said, wanted):
    assert verdict(code, said) == wanted


def test_rounds_must_be_positive(capsys):
    assert gpu_suite.main(["--rounds", "0"]) == UsageError.exit_code
    assert "--rounds 0: wanted 1 or more" in capsys.readouterr().err
