import csv
import json
import sys
import time

import cv2
import numpy as np
import pytest

from irstd.benchmarks.command import main
from irstd.benchmarks.progress import Progress
from irstd.runtime.frame_runner import FrameRunner

SPEED_FIELDS = {
    "latency_ms": {"mean", "std", "min", "p50", "p90", "p95", "p99", "p99_9", "max"},
    "stages_ms": {"pre", "infer", "post"},
    "validity": {"ok", "publishable", "reasons"},
}
SHORT = ("--seconds", "0.3")


@pytest.fixture
def lenient(monkeypatch):
    """Make the verdict depend on nothing that a busy machine does."""
    monkeypatch.setattr("irstd.benchmarks.validity.AGREEMENT", 1e9)
    monkeypatch.setattr("irstd.benchmarks.validity.FEWEST_FRAMES", 1)


@pytest.fixture
def bench(capsys):
    """Run the command, and return its exit code, its one JSON object and standard error."""

    def run(*arguments):
        code = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


@pytest.mark.usefixtures("lenient")
def test_latency_has_the_fields_of_the_contract(bench, write_toy, write_folder):
    code, report, _ = bench("latency", write_toy(), "--data", write_folder(), *SHORT)
    assert code == 0
    for name, fields in SPEED_FIELDS.items():
        assert fields <= set(report[name])
    assert report["throughput_fps"] > 0
    assert len(report["bundle_sha256"]) == 64
    assert isinstance(report["engine"], str)
    assert report["environment"]["cpu_cores"] >= 1
    assert (report["schema_version"], report["kind"], report["threads"]) == (1, "latency", 1)
    assert report["command"].startswith("irstd-bench latency ")
    assert report["validity"]["ok"] is True
    assert report["validity"]["publishable"] is False
    assert report["seconds"] == pytest.approx(0.3, rel=0.5)
    summary, stages = report["latency_ms"], report["stages_ms"]
    ranks = ("min", "p50", "p90", "p95", "p99", "p99_9", "max")
    assert sorted(summary[name] for name in ranks) == [summary[name] for name in ranks]
    assert sum(stages.values()) == pytest.approx(summary["p50"], rel=0.5)


@pytest.mark.usefixtures("lenient")
def test_without_data_there_are_200_simulated_frames(bench, write_toy):
    _, report, _ = bench("latency", write_toy(), *SHORT)
    assert report["footage"]["frames"] == 200
    assert "seed 0" in report["footage"]["description"]


@pytest.mark.usefixtures("lenient")
def test_paced_has_the_fields_of_the_contract_and_accounts_for_every_frame(
    bench, write_toy, write_folder
):
    code, report, _ = bench(
        "paced", write_toy(), "--fps", "50", "--data", write_folder(), "--seconds", "0.5"
    )
    assert code == 0
    for name, fields in (SPEED_FIELDS | {"jitter_ms": {"std", "p99"}}).items():
        assert fields <= set(report[name])
    assert (report["rate_hz"], report["frames"], report["policy"]) == (50, 25, "drop_oldest")
    assert report["frames"] == report["delivered"] + report["late"] + report["dropped"]
    assert 0 <= report["longest_miss_run"] <= report["late"] + report["dropped"]
    assert report["deadline_ms"] == 20
    assert report["throughput_fps"] <= 50


def test_accuracy_has_the_fields_of_the_contract(bench, write_toy, write_folder):
    folder = write_folder(4)
    code, report, _ = bench("accuracy", write_toy(), "--data", folder)
    assert code == 0
    for name in ("iou", "niou", "pd", "hse_p", "hse_t", "hse"):
        assert report[name] == pytest.approx(100), name
    assert report["fa"] == 0
    assert (report["frames"], report["targets"], report["threshold"]) == (4, 4, 0.5)
    assert len(report["bundle_sha256"]) == 64


def test_accuracy_of_a_list_at_another_threshold(bench, write_toy, write_folder, tmp_path):
    (tmp_path / "list.txt").write_text("0\n2\n")
    arguments = ("--data", write_folder(4), "--list", tmp_path / "list.txt")
    _, report, _ = bench("accuracy", write_toy(), *arguments, "--threshold", "0.999")
    assert (report["frames"], report["threshold"]) == (2, 0.999)
    assert report["iou"] == 0  # sigmoid(0.1 * (200 - 150)) is 0.9933
    assert report["hse_p"] == pytest.approx(100)


def test_an_invalid_measurement_exits_7_and_still_prints_and_writes_everything(
    bench, write_toy, write_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("irstd.benchmarks.validity.AGREEMENT", -1)
    out = tmp_path / "report.json"
    code, report, err = bench(
        "latency", write_toy(), "--data", write_folder(), *SHORT, "--out", out
    )
    assert code == 7
    assert report["validity"]["ok"] is False
    assert report["validity"]["publishable"] is False
    assert any("not stable" in reason for reason in report["validity"]["reasons"])
    assert any("warm-up did not settle" in reason for reason in report["validity"]["reasons"])
    assert "not a valid measurement" in err
    assert json.loads(out.read_text()) == report


@pytest.mark.usefixtures("lenient")
def test_files_of_a_run(bench, write_toy, write_folder, tmp_path):
    pytest.importorskip("matplotlib")
    page, raw, out = (tmp_path / name for name in ("a.html", "a.csv", "a.json"))
    files = ("--html", page, "--raw", raw, "--out", out)
    _, report, _ = bench("latency", write_toy(), "--data", write_folder(), *SHORT, *files)
    assert json.loads(out.read_text()) == report
    assert report["raw_file"] == "a.csv"
    rows = list(csv.DictReader(raw.read_text().splitlines()))
    assert len(rows) == report["frames"]
    times = np.array([float(row["total_ms"]) for row in rows])
    assert times.max() == pytest.approx(report["latency_ms"]["max"], abs=1e-5)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert report["bundle_sha256"] in page.read_text()


@pytest.mark.usefixtures("lenient")
def test_files_of_a_paced_run(bench, write_toy, write_folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    infer = FrameRunner._infer

    def infer_slowly(runner, tensor):
        time.sleep(1e-3)
        return infer(runner, tensor)

    monkeypatch.setattr(FrameRunner, "_infer", infer_slowly)
    page, raw = tmp_path / "a.html", tmp_path / "a.csv"
    arguments = ("--fps", "5000", "--seconds", "0.1", "--html", page, "--raw", raw)
    _, report, _ = bench("paced", write_toy(), "--data", write_folder(), *arguments)
    rows = list(csv.DictReader(raw.read_text().splitlines()))
    statuses = [row["status"] for row in rows]
    for status in ("delivered", "late", "dropped"):
        assert statuses.count(status) == report[status]
    dropped = [row for row in rows if row["status"] == "dropped"]
    assert dropped  # a frame every 0.2 ms, one ms for each
    assert {(row["ready_at_s"], row["latency_ms"], row["infer_ms"]) for row in dropped} == {
        ("", "", "")
    }
    assert "paced at 5000 frames/s" in page.read_text()


@pytest.mark.usefixtures("lenient")
def test_another_bundle_is_measured_in_turns(bench, write_toy, write_folder, tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    ours, theirs = write_toy(), write_toy("other.irstd", level=90)
    _, report, _ = bench(
        "latency", ours, "--against", theirs, "--data", write_folder(), *SHORT, "--html", page
    )
    other = report["against"]
    assert other["bundle"] == "other.irstd"
    assert other["bundle_sha256"] != report["bundle_sha256"]
    assert other["ratio"]["low"] <= other["ratio"]["p50"] <= other["ratio"]["high"]
    assert SPEED_FIELDS["latency_ms"] <= set(other["latency_ms"])
    assert "measured in turns" in page.read_text()


@pytest.mark.usefixtures("lenient")
def test_reports_can_be_compared(bench, capsys, write_toy, write_folder, tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        bench("latency", write_toy(), "--data", write_folder(name=path.stem), *SHORT, "--out", path)
    code, comparison, _ = bench("compare", *paths)
    assert code == 0
    assert comparison["of"] == "latency"
    assert comparison["names"] == ["a", "b"]
    assert comparison["changes"]["p50 ms"][0] == 1
    assert [report["kind"] for report in comparison["reports"]] == ["latency", "latency"]
    assert main(["compare", *map(str, paths)]) == 0
    assert "p99.9 ms" in capsys.readouterr().out


def test_text_for_people(capsys, write_toy, write_folder, lenient):
    arguments = [str(write_toy()), "--data", str(write_folder())]
    assert main(["latency", *arguments, *SHORT]) == 0
    text = capsys.readouterr().out
    assert "toy fp32 1x64x64 on fake, 1 thread" in text
    assert "p99.9" in text
    assert "stable, not publishable" in text
    assert main(["paced", *arguments, "--fps", "50", *SHORT]) == 0
    assert "delivered" in capsys.readouterr().out
    assert main(["accuracy", *arguments]) == 0
    assert "HSE-T %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ("latency", "--seconds", "0"),
        ("latency", "--seconds", "-1"),
        ("latency", "--seconds", "nan"),
        ("latency", "--seconds", "1e9"),
        ("latency", "--threads", "0"),
        ("latency", "--threads", "two"),
        ("latency", "--engine", "warp"),
        ("latency", "--fps", "30"),
        ("paced",),
        ("paced", "--fps", "0"),
        ("paced", "--fps", "inf"),
        ("paced", "--fps", "30", "--policy", "sometimes"),
        ("paced", "--fps", "30", "--deadline-ms", "-3"),
        ("paced", "--fps", "10000", "--seconds", "80000"),
        ("accuracy", "--threshold", "0.5"),
        ("accuracy", "--data", "x", "--threshold", "1"),
        ("compare", "--fps", "3"),
        ("kernels",),
    ],
)
def test_wrong_flags_exit_2_in_one_line(bench, write_toy, flags):
    verb, *rest = flags
    code, answer, err = bench(verb, write_toy(), *rest)
    assert code == 2
    assert answer["error"]["exit_code"] == 2
    assert err.startswith("irstd-bench: ")
    assert err.count("\n") == 1


def test_a_measurement_that_could_not_be_written_is_refused_first(
    bench, write_toy, write_folder, tmp_path
):
    toy, same = write_toy(), tmp_path / "x"
    assert bench("latency", toy, "--out", tmp_path)[0] == 2
    assert bench("latency", toy, "--out", toy / "below" / "a" / "file")[0] == 1
    assert bench("latency", toy, "--out", same, "--raw", same)[0] == 2


def test_html_without_matplotlib_exits_3_before_measuring(bench, write_toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = tmp_path / "page.html"
    code, answer, _ = bench("latency", write_toy(), "--seconds", "3600", "--html", page)
    assert code == 3
    assert "irstd-sdk[viz]" in answer["error"]["message"]
    assert not page.exists()


def test_bad_bundles_and_data(bench, write_toy, write_folder, tmp_path):
    toy = write_toy()
    assert bench("latency", tmp_path / "absent.irstd")[0] == 1
    truncated = tmp_path / "short.irstd"
    truncated.write_bytes(toy.read_bytes()[:-9])
    code, answer, _ = bench("accuracy", truncated, "--data", write_folder(2))
    assert (code, answer["error"]["type"]) == (1, "BundleCorrupt")
    assert bench("latency", toy, "--data", tmp_path / "absent")[0] == 1
    unlabelled = write_folder(2, "unlabelled") / "images"
    code, answer, _ = bench("accuracy", toy, "--data", unlabelled)
    assert code == 1
    assert "labelled" in answer["error"]["message"]
    cv2.imwrite(str(unlabelled / "odd.png"), np.zeros((9, 9), np.uint16))
    code, answer, _ = bench("paced", toy, "--fps", "9", "--data", unlabelled)
    assert code == 1
    assert "odd.png" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("latency", "(default: 30.0)"),
        ("paced", "drop_oldest"),
        ("accuracy", "threshold"),
        ("compare", "REPORT.json"),
    ],
)
def test_help_of_every_verb_states_its_defaults(capsys, verb, expected):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert expected in capsys.readouterr().out


class Terminal:
    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize(("tty", "enabled"), [(False, True), (True, False)])
def test_progress_is_silent_where_nobody_watches(tty, enabled):
    terminal = Terminal(tty)
    with Progress("measuring", 30, "s", enabled=enabled, stream=terminal) as progress:
        progress.show(3)
    assert terminal.text == ""


def test_progress_on_a_terminal_cleans_up_behind_itself():
    terminal = Terminal(tty=True)
    with Progress("measuring", 30, "s", stream=terminal) as progress:
        for _ in range(100):
            progress.show(3)
    assert terminal.text.startswith("\rmeasuring: 3 of 30 s")
    assert terminal.text.count("measuring") == 1  # not once a frame
    assert terminal.text.endswith("\r" + " " * len("measuring: 3 of 30 s") + "\r")
