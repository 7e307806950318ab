"""The check of the estimate's method: its pairing, its fit, its verdict, on made-up numbers."""

import importlib.util
import sys
from pathlib import Path

import pytest

from irstd.benchmarks.kernels.roofline import Roofline
from irstd.compile.estimate import estimate_layer
from irstd.compile.estimate_layers import Layer
from irstd.errors import BenchmarkInvalid, DeviceError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_estimate.py"
PEAKS = (Roofline(40.0, None, 20.0), 60.0, 8)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_estimate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_estimate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_estimate"]


def layer(name: str, reduction: int = 144, macs: int = 10**7) -> Layer:
    return Layer(
        name, "Conv", (name, f"{name}/relu"), ("Conv", "Relu"), "fp32", macs=macs, operations=0,
        read_bytes=10_000, weight_bytes=1000, write_bytes=10_000, reduction=reduction,
        in_channels=16, out_channels=16, pixels=4096,
    )  # fmt: skip


def profile(script, best_us, names, layers):
    return script.Profile(b"", tuple(layers), names, best_us)


def test_layers_are_paired_by_name_and_what_lost_its_name_by_order(script) -> None:
    found = profile(
        script,
        {"a": 5.0, "Backprop_7": 7.0, "c/relu": 3.0, "c_acdb_abcd_/d": 1.0},
        {"a": {"a", "a/relu"}, "c/relu": {"c/relu"}, "Backprop_7": {"Backprop_7"}},
        [layer("a"), layer("b"), layer("c")],
    )
    measured = script.measured_layers(found)
    assert [(row.name, taken) for row, taken in measured] == [("a", 5.0), ("b", 7.0), ("c", 3.0)]


def test_other_layers_than_predicted_are_an_error(script) -> None:
    found = profile(script, {"a": 5.0}, {"a": {"a"}}, [layer("a"), layer("b")])
    with pytest.raises(BenchmarkInvalid, match="other layers than predicted: b against none"):
        script.measured_layers(found)


def test_the_fit_finds_what_was_planted(script) -> None:
    planted = {"sustained": 0.8, "idle_products": 32.0, "overhead_us": 4.0}
    core = script.machine(*PEAKS, planted)
    rows = [
        (item, 1e6 * estimate_layer(item, core).seconds)
        for item in (layer(str(k), k, 10**6 * k) for k in (1, 9, 16, 72, 144, 576))
    ]
    assert script.fit(rows, PEAKS) == pytest.approx(planted)
    single, total = script.errors(rows, core)
    assert [*single, total] == pytest.approx([0.0] * 7, abs=1e-9)


def test_the_verdict_is_of_the_network_that_was_not_fitted(script) -> None:
    core = script.machine(*PEAKS, {"sustained": 0.8, "idle_products": 32.0, "overhead_us": 4.0})
    items = [layer(str(k), k) for k in (9, 72, 144)]
    true = [(item, 1e6 * estimate_layer(item, core).seconds) for item in items]
    slow = [(item, 2 * taken) for item, taken in true]
    first, second = script.judge({"acm": true, "alcnet": slow}, PEAKS)
    assert (first["fitted_on"], first["judged_on"]) == ("acm", "alcnet")
    assert first["median_error"] == pytest.approx(0.5, rel=0.05)
    assert not first["goal_met"]
    assert not second["goal_met"]
    assert all(row["goal_met"] for row in script.judge({"acm": true, "alcnet": true}, PEAKS))


def test_a_cpu_whose_peak_cannot_be_measured_is_told(script) -> None:
    with pytest.raises(DeviceError, match="none of the multiply-add instructions"):
        script.machine(Roofline(None, None, 20.0), 60.0, 8, {})
