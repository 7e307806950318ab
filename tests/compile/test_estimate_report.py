import json
import math
from pathlib import Path

import pytest

from irstd.compile import command
from irstd.compile.estimate_report import (
    LIKELY,
    check_fps,
    describe_estimates,
    estimate_source,
    verdict,
)
from irstd.errors import BundleError, ExportError, UsageError
from irstd.targets import TARGETS
from irstd.types import Precision

GPUS = [name for name, target in TARGETS.items() if target.device]
FIELDS = {
    "target", "device", "power_mode", "precision", "estimate_ms", "likely_ms", "floor_ms",
    "bottleneck", "shares", "gmacs", "unknown_operators", "verdict", "dla_mac_share",
}  # fmt: skip


@pytest.fixture
def tiny_source(tiny_onnx):
    return str(tiny_onnx())


def test_all_targets_and_precisions(tiny_source) -> None:
    report = estimate_source(tiny_source)
    rows = report["estimates"]
    assert [(row["target"], row["precision"]) for row in rows] == [
        (target, precision.value) for target in GPUS for precision in Precision
    ]
    assert report["input_hw"] == [32, 32]
    assert "estimate" in report["note"]
    for row in rows:
        assert set(row) == FIELDS
        assert 0 < row["floor_ms"] < row["estimate_ms"] < row["likely_ms"][0] < row["likely_ms"][1]
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["bottleneck"] in row["shares"]
        assert row["verdict"] is None
        has_dla = bool(TARGETS[row["target"]].device.dla_cores)
        assert (row["dla_mac_share"] is not None) == has_dla
    json.dumps(report, allow_nan=False)


def test_one_target_shows_its_layers(tiny_source) -> None:
    report = estimate_source(tiny_source, "jetson-orin-nano", Precision.INT8)
    (row,) = report["estimates"]
    assert row["dla"] is None
    total_us = math.fsum(layer["estimate_us"] for layer in row["layers"])
    assert total_us == pytest.approx(1e3 * row["estimate_ms"])
    assert {layer["precision"] for layer in row["layers"]} >= {"int8"}
    text = describe_estimates(report)
    assert text.startswith("ESTIMATE, not a measurement: ")
    assert "slowest of" in text


def test_a_board_with_dla_shows_what_it_could_run(tiny_source) -> None:
    report = estimate_source(tiny_source, "jetson-agx-orin", Precision.FP16)
    dla = report["estimates"][0]["dla"]
    assert dla["cores"] == 2
    assert dla["operators_on_dla"] == dla["operators"] - len(dla["on_gpu"])
    assert {row["operator"] for row in dla["on_gpu"]} == {"ConvTranspose", "GlobalAveragePool"}
    assert "not tried" in dla["note"]
    assert "DLA (2 cores) could run" in describe_estimates(report)


def test_power_modes(tiny_source) -> None:
    fast, slow = (
        estimate_source(tiny_source, "jetson-orin-nano", Precision.FP16, power_mode=mode)
        for mode in (None, "7W")
    )
    assert fast["estimates"][0]["power_mode"] == "MAXN_SUPER"
    assert slow["estimates"][0]["estimate_ms"] > fast["estimates"][0]["estimate_ms"]
    with pytest.raises(UsageError, match="no power mode '1W'; one of MAXN_SUPER"):
        estimate_source(tiny_source, "jetson-orin-nano", power_mode="1W")
    with pytest.raises(UsageError, match="goes with one --target"):
        estimate_source(tiny_source, "all", power_mode="7W")


def test_a_bundle_is_estimated_as_it_was_built(build, tmp_path) -> None:
    path = build("board.irstd", target="jetson-orin-nx", precision="int8").path
    report = estimate_source(str(path))
    (row,) = report["estimates"]
    assert (row["target"], row["precision"]) == ("jetson-orin-nx", "int8")
    assert row["dla"]["cores"] == 2
    elsewhere = estimate_source(str(path), "rtx-50")["estimates"]
    assert [row["target"] for row in elsewhere] == ["rtx-50"]
    assert len(estimate_source(str(path), "all")["estimates"]) == len(GPUS)
    with pytest.raises(UsageError, match="is int8; estimate its source"):
        estimate_source(str(path), precision=Precision.FP16)
    with pytest.raises(UsageError, match="is for 32x32; estimate its source"):
        estimate_source(str(path), size_hw=(64, 64))


@pytest.mark.parametrize("precision", Precision)
def test_a_source_is_estimated_as_it_will_be_built(build, tiny_onnx, precision) -> None:
    source = tiny_onnx()
    path = build(source=source, target="jetson-orin-nano", precision=precision.value).path
    (built,) = estimate_source(str(path))["estimates"]
    (before,) = estimate_source(str(source), "jetson-orin-nano", precision)["estimates"]
    assert before["layers"] == built["layers"]


def test_a_bundle_for_the_cpu_is_measured(bundle) -> None:
    with pytest.raises(UsageError, match="cpu is measured, not estimated: irstd-bench latency"):
        estimate_source(str(bundle))


def test_a_larger_size_takes_longer(tiny_onnx) -> None:
    source = str(tiny_onnx(size_hw=("H", "W")))
    small, large = (
        estimate_source(source, "rtx-30", Precision.FP16, size_hw=size)["estimates"][0]
        for size in ((64, 64), (512, 512))
    )
    assert large["gmacs"] == pytest.approx(64 * small["gmacs"], rel=0.01)
    assert large["estimate_ms"] > small["estimate_ms"]
    with pytest.raises(ExportError, match="--imgsz HxW"):
        estimate_source(source)


def test_a_network_by_name_needs_no_weights() -> None:
    pytest.importorskip("torch")
    report = estimate_source("alcnet", "jetson-thor", Precision.FP16, size_hw=(64, 64))
    assert report["network"] == "alcnet"
    assert report["estimates"][0]["unknown_operators"] == {}


@pytest.mark.parametrize("fps", [0, -1, "nan", "inf", "fast", None, [], 1e6, "1e400"])
def test_frame_rates_that_are_none(fps) -> None:
    with pytest.raises(UsageError, match=r"--fps .*: wanted frames a second"):
        check_fps(fps)


def test_verdicts(tiny_source) -> None:
    row = estimate_source(tiny_source, "rtx-40", Precision.FP16, fps=30)["estimates"][0]
    assert row["verdict"]["state"] == "within reach"
    low, high = LIKELY["fp16"]
    periods_ms = (
        row["floor_ms"] * 0.99,
        row["estimate_ms"] * low * 0.99,
        row["estimate_ms"] * high * 0.99,
        row["estimate_ms"] * high * 1.01,
    )
    states = [_verdict(tiny_source, 1e3 / period_ms)["state"] for period_ms in periods_ms]
    assert states == ["out of reach", "unlikely", "doubtful", "within reach"]


def test_the_likely_range_holds_the_committed_comparison_with_public_measurements() -> None:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "estimate-public.json"
    results = json.loads(path.read_text("utf-8"))["results"]
    assert {row["precision"] for row in results} == set(LIKELY)
    for row in results:
        low, high = LIKELY[row["precision"]]
        assert low <= row["ratio"] <= high


def _verdict(source, fps):
    from irstd.compile.estimate import estimate_cost, machine_of
    from irstd.compile.estimate_layers import graph_cost
    from irstd.compile.estimate_source import open_subject

    target = TARGETS["rtx-40"]
    model = open_subject(source, target, Precision.FP16).graphs[Precision.FP16]
    found = estimate_cost(graph_cost(model), machine_of(target.device, target.device.mode()))
    return verdict(found, "fp16", fps)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("resnet", UsageError, "neither a network"),
        ("none.onnx", ExportError, "no such file"),
        ("none.irstd", BundleError, "no such file"),
    ],
)
def test_sources_that_are_none(source, error, words) -> None:
    with pytest.raises(error, match=words):
        estimate_source(source, "rtx-50")


@pytest.mark.parametrize("target", ["tpu", "", "jetson", "ALL"])
def test_unknown_targets_answer_with_the_list(tiny_source, target) -> None:
    with pytest.raises(UsageError, match=r"unknown target .*; one of cpu, jetson-orin-nano"):
        estimate_source(tiny_source, target)


def test_the_command(tiny_source, compile_command) -> None:
    code, report, _ = compile_command("estimate", tiny_source, "--target", "all", "--fps", "30")
    assert code == 0
    assert report["kind"] == "estimate"
    assert {row["verdict"]["state"] for row in report["estimates"]} == {"within reach"}
    code, report, _ = compile_command("estimate", tiny_source, "--fps", "0")
    assert (code, report["error"]["type"]) == (2, "UsageError")
    code, report, _ = compile_command("estimate", tiny_source, "--precision", "int4")
    assert code == 2


def test_the_command_for_people(tiny_source, capsys) -> None:
    assert command.main(["estimate", tiny_source, "--precision", "fp16"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ESTIMATE, not a measurement")
    assert all(target in out for target in GPUS)


def test_targets_tell_peaks_and_jetpacks(compile_command) -> None:
    code, report, _ = compile_command("targets")
    assert code == 0
    rows = {row["name"]: row for row in report["targets"]}
    nano = rows["jetson-orin-nano"]
    assert nano["peaks"][0]["int8_tops"] == pytest.approx(33.4, rel=0.01)
    assert nano["device"]["power_modes"][0]["name"] == "MAXN_SUPER"
    assert rows["cpu"]["device"] is None
    assert rows["cpu"]["peaks"] == []
    assert [row["version"] for row in report["jetpacks"]][-1] == "5.0.2"
