"""`irstd-compile`: every verb, every flag, one JSON object, the documented exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from irstd.bundle import read_bundle
from irstd.calibration.scales import ScaleTable
from irstd.compile import command
from irstd.compile.networks import NETWORKS
from irstd.targets import TARGETS

VERBS = (
    "build",
    "inspect",
    "verify",
    "distil",
    "export",
    "calibrate",
    "targets",
    "networks",
    "doctor",
)


def text_of(capsys, *words):
    code = command.main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_common_flag(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main([verb, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--json", "-v", "--verbose", "-q", "--quiet"):
        assert flag in text


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        ("--target", "cpu"),
        ("--precision", "fp32"),
        ("--weights", "the shipped one"),
        ("--input-norm-eps", "1e-05"),
        ("--imgsz", "the network's"),
        ("--normalize", "what the weights say"),
        ("--output", "auto"),
        ("--bit-depth", "8"),
        ("--fit", "pad"),
        ("--data", "none"),
        ("--list", "all"),
        ("--verify-data", "half of --data"),
        ("--verify-list", "all"),
        ("--calibration", "minmax"),
        ("--int8-form", "by target"),
        ("--budget", "measured, never fails"),
        ("--keep", "no"),
        ("--cache", "$IRSTD_CACHE, else the user's"),
        ("--no-cache", "no"),
        ("--seed", "0"),
        ("--dry-run", "no"),
    ],
)
def test_help_of_build_says_each_flag_with_its_default(flag, default, capsys):
    with pytest.raises(SystemExit):
        command.main(["build", "--help"])
    text = " ".join(capsys.readouterr().out.split("options:")[1].split())
    assert text.split(f" {flag} ", 1)[1].split("(default: ")[1].startswith(f"{default})")
    assert "None" not in text


def test_build_says_what_it_built(bundle, tiny, make_data, compile_command):
    code, report, _ = compile_command(
        "build", *tiny, "--precision", "int8", "--data", make_data(), "-o", bundle
    )
    assert code == 0
    assert report["bundle"] == str(bundle)
    assert report["bundle_sha256"] == read_bundle(bundle).sha256
    assert {"settings", "calibrated_on", "verified_on", "engines", "verdict"} <= set(report)


def test_build_for_people(tiny, make_data, tmp_path, capsys):
    words = ["build", *tiny, "--data", make_data(), "--no-cache", "-o", tmp_path / "a.irstd"]
    code, out, err = text_of(capsys, *words)
    assert code == 0
    assert "tiny fp32 32x32 for cpu" in out
    assert "engine *" in out
    assert "hse" in out
    assert json.loads(err.splitlines()[0]) == {"progress": "loading the source"}


def test_quiet_build_says_nothing(tiny, tmp_path, capsys):
    words = ["build", *tiny, "-q", "--no-cache", "-o", tmp_path / "a.irstd"]
    assert text_of(capsys, *words) == (0, "", "")


def test_progress_goes_to_standard_error_as_json_lines(tiny, make_data, tmp_path, compile_command):
    _, _, err = compile_command("build", *tiny, "--data", make_data(), "-o", tmp_path / "a.irstd")
    told = [json.loads(line)["progress"] for line in err.splitlines()]
    assert told[0] == "loading the source"
    assert told[-1].startswith("writing ")


EVERY_FLAG = (
    "--target cpu --precision int8 --imgsz 32x32 --output logits --bit-depth 8 --fit resize "
    "--calibration mse --int8-form nvidia --budget hse=-99 --keep --seed 3"
)


def test_every_flag_at_once(tiny_onnx, make_data, tmp_path, compile_command):
    listed, others = tmp_path / "list.txt", tmp_path / "others.txt"
    listed.write_text("000\n001\n002\n003\n")
    others.write_text("000\n001\n")
    code, report, _ = compile_command(
        "build", tiny_onnx(size_hw=("H", "W")), "--normalize", "80,40", *EVERY_FLAG.split(),
        "--data", make_data(), "--list", listed,
        "--verify-data", make_data("other", seed=1), "--verify-list", others,
        "--cache", tmp_path / "own", "-o", tmp_path / "a.irstd", "-v",
    )  # fmt: skip
    assert code == 0
    assert sorted(report["calibrated_on"]) == ["000", "001", "002", "003"]
    assert report["verified_on"] == ["000", "001"]
    settings = report["settings"]
    assert settings["calibration"] == "mse"
    assert settings["int8_form"] == "nvidia"
    assert settings["fit"] == "resize"
    assert settings["seed"] == 3
    assert settings["budget"] == {"hse": -99.0}
    assert (tmp_path / "own" / "stages").is_dir()
    assert not (tmp_path / "cache").exists()


def test_names_that_are_no_text(tiny_onnx, make_data, tmp_path, compile_command):
    folder = tmp_path / os.fsdecode(b"\xff\n")
    folder.mkdir()
    source = tiny_onnx().rename(folder / os.fsdecode(b"net\xfe.onnx"))
    data, out = make_data().rename(folder / os.fsdecode(b"data\x01\xfd")), folder / "out.irstd"
    words = [source, "--normalize", "80,40", "--precision", "int8", "--data", data, "-o", out]
    assert compile_command("build", *words)[0] == 0
    manifest = read_bundle(out).manifest
    assert manifest.network == r"net\udcfe"
    assert (manifest.resolved["source"], manifest.resolved["data"]) == (
        r"net\udcfe.onnx",
        r"data\x01\udcfd",
    )


def test_yaml_source_with_a_flag_that_overrides_it(tiny, tmp_path, make_data, compile_command):
    make_data()
    (tmp_path / "b.yaml").write_text(
        "source: tiny.onnx\nnormalize: 80,40\nprecision: int8\ndata: data\ncache: own\nseed: 2\n"
    )
    words = ["build", tmp_path / "b.yaml", "--precision", "fp32", "-o", tmp_path / "a.irstd"]
    code, report, _ = compile_command(*words)
    assert code == 0
    assert (report["settings"]["precision"], report["settings"]["seed"]) == ("fp32", 2)
    assert (tmp_path / "own" / "stages").is_dir()


def test_dry_run_writes_nothing(tiny, make_data, tmp_path, compile_command):
    data = make_data()
    before = sorted(tmp_path.rglob("*"))
    code, report, _ = compile_command(
        "build", *tiny, "--precision", "int8", "--data", data, "--dry-run",
        "-o", tmp_path / "deep" / "a.irstd",
    )  # fmt: skip
    assert code == 0
    assert report["written"] is False
    assert report["input"]["height"] == 32
    assert (report["calibrate_frames"], report["verify_frames"]) == (3, 3)
    assert report["settings"]["precision"] == "int8"
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_still_finds_what_is_wrong(tiny, tmp_path, compile_command):
    words = ["build", *tiny, "--imgsz", "33x32", "--dry-run", "-o", tmp_path / "a.irstd"]
    assert compile_command(*words)[0] == 1
    words = ["build", *tiny, "--data", tmp_path / "none", "--dry-run", "-o", tmp_path / "a.irstd"]
    assert compile_command(*words)[0] == 1


def test_export(tiny_onnx, tmp_path, compile_command, capsys):
    source, out = tiny_onnx(size_hw=("H", "W")), tmp_path / "plain.onnx"
    words = ["export", source, "--normalize", "80,40", "--imgsz", "48x64", "-o", out]
    code, report, _ = compile_command(*words)
    assert code == 0
    assert report["onnx"] == str(out)
    assert (report["input"]["height"], report["input"]["width"]) == (48, 64)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 48, 64]
    _, text, _ = text_of(capsys, *words)
    assert text.splitlines()[0].startswith(f"{out}: plain FP32 graph")
    assert "input: 1 x 48 x 64, 8 bit, pad; channel = grey level * scale + offset: " in text
    assert "{" not in text


def test_no_output_replaces_its_source(tiny_onnx, tmp_path, compile_command):
    source = tiny_onnx()
    before = source.read_bytes()
    code, _, errors = compile_command("export", source, "--normalize", "80,40", "-o", source)
    assert (code, "is an input" in errors) == (2, True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("form", ["cpu", "nvidia"])
def test_calibrate(form, tiny, make_data, tmp_path, compile_command):
    out = tmp_path / "scales.json"
    code, report, _ = compile_command(
        "calibrate", *tiny, "--data", make_data(), "--calibration", "percentile",
        "--int8-form", form, "-o", out,
    )  # fmt: skip
    assert code == 0
    table = ScaleTable.from_json(out.read_text())
    assert table.method == report["method"] == "percentile"
    assert len(table.ranges) == report["tensors"]
    assert len(report["frames"]) == table.frames == 3


def test_calibrate_needs_data(tiny, tmp_path, compile_command):
    code, report, _ = compile_command("calibrate", *tiny, "-o", tmp_path / "s.json")
    assert code == 2
    assert "--data DIR" in report["error"]["message"]


def test_scales_alone_are_those_of_the_build(tiny, make_data, tmp_path, compile_command, bundle):
    out = tmp_path / "scales.json"
    assert compile_command("calibrate", *tiny, "--data", make_data(), "-o", out)[0] == 0
    stored = ScaleTable.from_json(read_bundle(bundle).read("scales.json"))
    assert ScaleTable.from_json(out.read_text()) == stored


def test_targets(compile_command):
    code, report, _ = compile_command("targets")
    assert code == 0
    assert [row["name"] for row in report["targets"]] == list(TARGETS)
    cpu = report["targets"][0]
    assert "onnxruntime" in cpu["engines_installed"]


def test_networks(compile_command):
    code, report, _ = compile_command("networks")
    assert code == 0
    assert [row["name"] for row in report["networks"]] == list(NETWORKS)
    for row in report["networks"]:
        assert set(row) == {"name", "parameters", "macs", "input", "weights"}
        spec = NETWORKS[row["name"]]
        assert row["parameters"] == spec.parameters
        assert row["input"] == [1, spec.in_channels, *spec.default_size_hw]


def test_doctor(compile_command, capsys):
    code, report, _ = compile_command("doctor")
    assert code == 0
    assert {"name", "ok", "found", "fix"} == set(report["findings"][0])
    assert "processor" in text_of(capsys, "doctor")[1]


@pytest.mark.parametrize("verb", ["targets", "networks"])
def test_lists_for_people(verb, capsys):
    code, out, err = text_of(capsys, verb)
    assert (code, err) == (0, "")
    names = TARGETS if verb == "targets" else NETWORKS
    assert [line.split()[0] for line in out.splitlines()] == list(names)


def test_distil_trains_as_the_file_says(tmp_path, monkeypatch, compile_command):
    pytest.importorskip("lightning_fabric")
    from irstd.compile.distil import config, train

    seen = []
    monkeypatch.setattr(config, "load_config", lambda path: ("config of", path))
    monkeypatch.setattr(train, "distil", lambda c, **flags: seen.append((c, flags)) or "best.x")
    code, report, _ = compile_command("distil", tmp_path / "c.yaml", "--resume", "-q")
    assert (code, report) == (0, {"weights": "best.x"})
    assert seen == [(("config of", tmp_path / "c.yaml"), {"resume": True, "quiet": True})]


USAGE = [
    [],
    ["biuld"],
    ["build"],
    ["build", "acm"],
    ["build", "acm", "-o", "a.irstd", "--precission", "int8"],
    ["build", "acm", "-o", "a.bin"],
    ["build", "acm", "-o", "a.irstd", "--target", "tpu"],
    ["build", "acm", "-o", "a.irstd", "--precision", "int4"],
    ["build", "acm", "-o", "a.irstd", "--precision", "int8"],
    ["build", "acm", "-o", "a.irstd", "--calibration", "kl"],
    ["build", "acm", "-o", "a.irstd", "--int8-form", "arm"],
    ["build", "acm", "-o", "a.irstd", "--budget", "map=-1"],
    ["build", "unet", "-o", "a.irstd"],
    ["inspect"],
    ["verify"],
    ["targets", "extra"],
    ["distil", "none.yaml"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage_errors_exit_2_in_one_line(words, compile_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, report, err = compile_command(*words)
    assert code == 2
    assert report["error"]["type"] == "UsageError"
    assert report["error"]["exit_code"] == 2
    assert err.splitlines()[-1].startswith("irstd-compile")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "value", "listed"),
    [
        ("--target", "tpu", "jetson-orin-nano"),
        ("--precision", "mixed", "fp32, fp16, int8"),
        ("--calibration", "target-aware", "minmax, entropy, percentile, mse"),
        ("--int8-form", "arm", "cpu, nvidia"),
        ("--output", "mask", "auto, logits, probabilities"),
        ("--fit", "crop", "pad, resize"),
        ("--bit-depth", "10", "8, 14, 16"),
    ],
)
def test_unknown_choice_lists_the_valid_ones(flag, value, listed, compile_command):
    _, report, _ = compile_command("build", "acm", "-o", "a.irstd", flag, value)
    assert listed in report["error"]["message"]


BLOCKED = (
    "import sys\n"
    "for name in ('onnx', 'onnxsim', 'torch', 'lightning_fabric', 'tqdm'):\n"
    "    sys.modules[name] = None\n"
    "from irstd.compile.command import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


@pytest.mark.parametrize("words", [["targets"], ["networks"], ["doctor"], ["build", "--help"]])
def test_without_onnx_or_torch_the_lists_work(words, run_python):
    assert run_python(BLOCKED, *words)


def test_without_onnx_a_device_verifies_its_bundle(bundle, run_python):
    report = json.loads(run_python(BLOCKED, "verify", str(bundle), "--json"))
    assert report["passed"] is True


@pytest.mark.parametrize(
    ("words", "package"),
    [(["build", "acm", "-o", "a.irstd"], "onnx"), (["export", "acm", "-o", "a.onnx"], "onnx")],
)
def test_without_onnx_a_build_exits_3_and_says_what_to_install(words, package, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *words, "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "MissingDependency"
    assert package in error["message"]
    assert "pip install 'irstd-sdk[compile]'" in error["message"]
    assert "Traceback" not in done.stderr


def test_as_a_process_standard_output_is_one_json_object(tiny_onnx, make_data, tmp_path):
    """Libraries print, too; none of that may reach standard output."""
    done = subprocess.run(
        [
            sys.executable, "-m", "irstd.compile.command", "build", str(tiny_onnx()),
            "--normalize", "80,40", "--precision", "int8", "--data", str(make_data()),
            "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "a.irstd"), "--json", "-v",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bundle"] == str(tmp_path / "a.irstd")
    assert len(done.stdout.splitlines()) == 1
    assert np.isfinite(json.loads(done.stdout)["verdict"]["accuracy"]["change"]["hse"])
