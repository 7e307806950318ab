"""`irstd-compile inspect` and `verify`: what is in a bundle, and whether it keeps its budget."""

import dataclasses
import json
import sys

import pytest

from irstd.bundle import read_bundle, write_bundle
from irstd.compile import command, measure, verify
from irstd.compile.summary import describe_bundle


def text_of(capsys, *words):
    code = command.main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_inspect(bundle, compile_command):
    code, report, _ = compile_command("inspect", bundle)
    assert code == 0
    assert report["bundle_sha256"] == read_bundle(bundle).sha256
    manifest = report["manifest"]
    assert (manifest["precision"], manifest["target"], manifest["network"]) == (
        "int8",
        "cpu",
        "tiny",
    )
    assert manifest["input"]["fit"] == "pad"
    layers = {layer["name"]: layer["precision"] for layer in report["layers"]}
    assert layers["first"] == layers["up"] == "int8"
    assert layers["gate"] == layers["head"] == "fp32"
    assert set(report["kept_in_float"]) == {"gate", "head"}
    assert sum(engine["chosen"] for engine in manifest["engines"]) == 1
    assert all(engine["reason"] for engine in manifest["engines"])
    assert set(report["members"]) == set(read_bundle(bundle).members)


def test_inspect_for_people(bundle, capsys):
    code, out, _ = text_of(capsys, "inspect", bundle)
    assert code == 0
    assert "tiny int8 for cpu" in out
    assert "Precision." not in out
    assert "Fit." not in out
    assert "layers asked for: " in out
    assert "5 int8" in out
    assert "gate stays in float: on a pooled vector" in out
    assert "calibrated by minmax on 3 frames, cpu form" in out
    assert "tiling and padding: changes the result a little" in out
    assert "change against fp32: hse" in out


def test_inspect_without_onnx_as_on_a_board(bundle, compile_command, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, report, _ = compile_command("inspect", bundle)
    assert (code, report["layers"]) == (0, None)
    code, out, _ = text_of(capsys, "inspect", bundle)
    assert code == 0
    assert "layers asked for: not known here, where onnx is not installed" in out


@pytest.mark.parametrize(("precision", "wanted"), [("fp32", "fp32"), ("fp16", "fp16")])
def test_inspect_tells_the_precision_of_layers(precision, wanted, tiny, tmp_path, compile_command):
    words = ["build", *tiny, "--precision", precision, "-o", tmp_path / "a.irstd"]
    assert compile_command(*words)[0] == 0
    layers = compile_command("inspect", tmp_path / "a.irstd")[1]["layers"]
    assert {layer["precision"] for layer in layers} == {wanted}


def test_verify(bundle, make_data, compile_command):
    code, report, _ = compile_command("verify", bundle)
    assert code == 0
    assert report["passed"] is True
    assert report["reference"]["passed"] is True
    assert report["deployed"]["passed"] is True
    assert report["verdict"] is None
    more = make_data("more", frames=4, seed=8)
    code, report, _ = compile_command("verify", bundle, "--data", more, "--budget", "hse=-90")
    assert code == 0
    assert report["verdict"]["frames"] == 4
    assert report["verdict"]["budget"] == {"hse": -90.0}


def test_verify_list_and_text(bundle, make_data, tmp_path, capsys):
    (tmp_path / "two.txt").write_text("000\n001\n")
    words = ["verify", bundle, "--data", make_data("more", seed=8), "--list", tmp_path / "two.txt"]
    code, out, _ = text_of(capsys, *words)
    assert code == 0
    assert "sound, sha256 " in out
    assert "accuracy on 2 frames" in out


def test_verify_of_a_violated_budget_exits_4_with_its_report(
    bundle, make_data, compile_command, monkeypatch
):
    lower_scores(monkeypatch, verify)
    more = make_data("more", frames=4, seed=8)
    code, report, _ = compile_command("verify", bundle, "--data", more, "--budget", "hse=-1")
    assert code == 4
    assert report["passed"] is False
    assert report["verdict"]["violations"] == ["hse changed by -5.000, allowed -1.000"]


@pytest.mark.parametrize("flags", [["--budget", "hse=-1"], ["--list", "l.txt"]])
def test_verify_flags_that_need_data(flags, bundle, compile_command):
    code, report, _ = compile_command("verify", bundle, *flags)
    assert code == 2
    assert "needs --data DIR" in report["error"]["message"]


def lower_scores(monkeypatch, module):
    """Let the deployed graph score five points of HSE less than the source."""
    real = module.judge

    def judge(before, after, budget):
        return real(before, dataclasses.replace(after, hse=before.hse - 5), budget)

    monkeypatch.setattr(module, "judge", judge)


def test_violated_budget_exits_4_and_writes_nothing(
    tiny, make_data, tmp_path, compile_command, monkeypatch
):
    lower_scores(monkeypatch, measure)
    out = tmp_path / "a.irstd"
    words = ["build", *tiny, "--data", make_data(), "--budget", "hse=-1", "-o", out]
    code, report, err = compile_command(*words)
    assert code == 4
    assert report["error"]["type"] == "BudgetExceeded"
    assert report["error"]["exit_code"] == 4
    assert "hse changed by -5.000" in err
    assert not out.exists()
    code, report, _ = compile_command(*words, "--keep")
    assert code == 4
    assert report["verdict"]["passed"] is False
    assert out.exists()
    code, report, _ = compile_command("verify", out)
    assert code == 4
    assert report["built_within_budget"] is False
    assert "budget VIOLATED" in describe_bundle(compile_command("inspect", out)[1])


def test_missing_bundle(compile_command, tmp_path):
    for verb in ("inspect", "verify"):
        code, report, _ = compile_command(verb, tmp_path / "none.irstd")
        assert code == 1
        assert "no such file" in report["error"]["message"]


def test_foreign_names_do_not_act_on_the_terminal(bundle, capsys):
    """Layer names come out of the graph: escape codes in them are not printed."""
    sound = read_bundle(bundle)
    members = {name: sound.read(name) for name in sound.members}
    report = json.loads(members["report.json"])
    report["float_nodes"] = {"\x1b[2Jgone\n": "\x07because"}
    members["report.json"] = json.dumps(report).encode()
    write_bundle(bundle, sound.manifest, members)
    code, out, _ = text_of(capsys, "inspect", bundle)
    assert code == 0
    assert "\x1b" not in out
    assert r"\x1b[2Jgone\n stays in float: \x07because" in out
    code, _, err = text_of(capsys, "inspect", "\x1b[2Jgone.irstd")
    assert code == 1
    assert r"\x1b[2Jgone.irstd: no such file" in err


@pytest.mark.parametrize(
    "change",
    [{"float_nodes": []}, {"verdict": "fine"}, {"engines_refused": 3}, {"calibrated_on": {}}],
)
def test_report_of_another_shape_is_corrupt(change, bundle, compile_command):
    sound = read_bundle(bundle)
    members = {name: sound.read(name) for name in sound.members}
    report = json.loads(members["report.json"]) | change
    members["report.json"] = json.dumps(report).encode()
    write_bundle(bundle, sound.manifest, members)
    code, found, _ = compile_command("inspect", bundle)
    assert code == 1
    assert found["error"]["type"] == "BundleCorrupt"
    assert next(iter(change)) in found["error"]["message"]


def test_graph_that_is_no_onnx_is_corrupt(bundle, compile_command):
    sound = read_bundle(bundle)
    members = {name: sound.read(name) for name in sound.members}
    write_bundle(bundle, sound.manifest, {**members, "model.int8.onnx": b"\xff\xff"})
    code, found, _ = compile_command("inspect", bundle)
    assert (code, found["error"]["type"]) == (1, "BundleCorrupt")
