"""`irstd-bench kernels`: its rows, its peers, and what it refuses."""

import json

import numpy as np
import pytest

from irstd.benchmarks.command import main
from irstd.benchmarks.kernels import cpu_cases, cpu_suite
from irstd.benchmarks.kernels.cases import Case, make_inputs
from irstd.benchmarks.kernels.cpu_case import OURS
from irstd.benchmarks.kernels.cpu_cases import SEED
from irstd.benchmarks.kernels.module_cases import Size, module_case
from irstd.benchmarks.kernels.roofline import measure_roofline

TINY = {
    "haar_gate": Case("haar_gate", "tiny", "float32", (1, 3, 12, 20)),
    "spectral_split": Case("spectral_split", "tiny", "float32", (1, 3, 16, 32)),
    "ms_deform_attn": Case(
        "ms_deform_attn", "tiny", "float32", (1, 2, 8, 4), ((8, 6), (4, 3)), (5, 4)
    ),
    "ms_deform_attn bytes": Case(
        "ms_deform_attn", "tiny", "uint8", (1, 2, 8, 4), ((8, 6), (4, 3)), (5, 4)
    ),
}
MODULE = Size(8, channels=16, heads=2)
PEERS = {"torch", "onnxruntime", "openvino"}


@pytest.fixture
def tiny(monkeypatch):
    """Time small shapes, one round each."""

    def cases(op=None):
        for case in TINY.values():
            if op in (None, case.op):
                make = (
                    cpu_cases._plain_case if case.precision == "float32" else cpu_cases._bytes_case
                )
                yield make(case)
        for dtype in ("float32", "uint8") if op in (None, "ms_deform_attn_module") else ():
            yield module_case("tiny", MODULE, dtype)

    monkeypatch.setattr(cpu_suite, "cpu_cases", cases)
    monkeypatch.setattr(cpu_suite, "ROUNDS", 1)


@pytest.mark.usefixtures("tiny")
def test_there_is_a_row_for_every_case_and_peer(capsys, tmp_path):
    out = tmp_path / "kernels.json"
    assert main(["kernels", "--json", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == report
    assert (report["schema_version"], report["kind"]) == (1, "kernels")
    assert report["command"].startswith("irstd-bench kernels ")
    assert report["roofline"]["copy_gb_s"] > 0
    found = {(row["op"], row["dtype"], row["peer"]) for row in report["results"]}
    cases = {(case.op, case.precision) for case in TINY.values()}
    cases |= {("ms_deform_attn_module", dtype) for dtype in ("float32", "uint8")}
    assert found == {(*case, peer) for case in cases for peer in PEERS}
    for row in report["results"]:
        assert (row["device"], row["threads"]) == ("cpu", 1)
        assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"])
        assert row["max_rel_err"] <= (1e-5 if row["dtype"] == "float32" else 6e-2)
        assert row["peer_max_rel_err"] <= 1e-4  # peers compute in float32, always


@pytest.mark.usefixtures("tiny")
def test_one_operator_can_be_asked_for(capsys):
    assert main(["kernels", "--op", "haar_gate", "--threads", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("haar_gate tiny float32") == len(PEERS)
    assert "spectral_split" not in text
    assert "in turns" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--op", "conv"), "ms_deform_attn"),
        (("--device", "tpu"), "cuda"),
        (("--threads", "0"), "whole number from 1"),
    ],
)
def test_flags_that_mean_nothing_are_refused(words, message, capsys):
    assert main(["kernels", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_cases_of_the_goals_are_among_them():
    listed = {(case.op, case.label, case.dtype) for case in cpu_cases.cpu_cases("haar_gate")}
    assert ("haar_gate", "reference", "float32") in listed


def test_a_wrong_result_would_show():
    case = cpu_cases._plain_case(TINY["haar_gate"])
    result = np.array(dict(case.prepare(1))[OURS]())
    assert case.error(result) < 1e-5
    result[0, 0, 0, 0] += 1
    assert case.error(result) > 1e-3


def test_inputs_are_drawn_alike_every_time():
    case = TINY["spectral_split"]
    first, second = (make_inputs(case, np.random.default_rng(SEED)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_roofline_is_measured():
    roofline = measure_roofline()
    assert roofline.copy_gb_s > 0
    for peak in (roofline.float_gmac_s, roofline.int8_gmac_s):
        assert peak is None or peak > 0
