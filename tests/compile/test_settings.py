"""From flags, YAML and Python values to settings, and every value that is refused."""

import dataclasses
import re
from pathlib import Path

import pytest

from irstd.calibration.observers import METHODS
from irstd.compile.flags import FLAGS, parse_normalization, parse_size, read_yaml, resolve
from irstd.compile.settings import (
    BuildSettings,
    FrameSettings,
    LoweringSettings,
    Normalization,
    SourceSettings,
)
from irstd.errors import UsageError
from irstd.targets import TARGETS
from irstd.types import Fit, Precision

EVERY_FLAG = {
    "target": "jetson-orin-nano",
    "precision": "int8",
    "calibration": "mse",
    "int8-form": "nvidia",
    "weights": "w.pth",
    "input-norm-eps": "0.9",
    "imgsz": "128x256",
    "normalize": "95.0,41.5",
    "output": "logits",
    "bit-depth": "14",
    "fit": "resize",
    "data": "frames",
    "list": "train.txt",
    "verify-data": "others",
    "verify-list": "val.txt",
    "seed": "7",
    "budget": "hse=-0.3,fa=+2",
    "keep": True,
    "cache": "stages",
    "no-cache": True,
    "dry-run": True,
}
RESOLVED = BuildSettings(
    SourceSettings(
        name="acm",
        weights=Path("w.pth"),
        input_norm_eps=0.9,
        imgsz=(128, 256),
        normalize=Normalization((95.0,), (41.5,)),
        output="logits",
        bit_depth=14,
        fit=Fit.RESIZE,
    ),
    FrameSettings(Path("frames"), Path("train.txt"), Path("others"), Path("val.txt"), 7),
    LoweringSettings("jetson-orin-nano", Precision.INT8, "mse", "nvidia"),
    {"hse": -0.3, "fa": 2.0},
    keep=True,
)


def test_every_flag_is_resolved():
    assert set(EVERY_FLAG) == set(FLAGS)
    request = resolve("acm", EVERY_FLAG)
    assert request.settings == RESOLVED
    assert (request.cache, request.no_cache, request.dry_run) == (Path("stages"), True, True)


def test_every_field_of_the_settings_has_a_flag():
    parts = (SourceSettings, FrameSettings, LoweringSettings)
    fields = {(part, field.name) for part in parts for field in dataclasses.fields(part)}
    fields |= {(BuildSettings, "budget"), (BuildSettings, "keep")}
    flagged = {(flag.part, flag.field) for flag in FLAGS.values() if flag.part is not None}
    assert fields - flagged == {(SourceSettings, "name")}
    assert flagged <= fields


def test_defaults():
    settings = resolve("acm", dict.fromkeys(FLAGS)).settings
    assert settings == BuildSettings(SourceSettings("acm"))
    assert settings.lowering == LoweringSettings("cpu", Precision.FP32, "minmax", None)
    assert settings.source.bit_depth == 8
    assert settings.source.fit is Fit.PAD
    assert settings.frames.seed == 0


@pytest.mark.parametrize(
    ("flag", "value", "same_as"),
    [
        ("precision", Precision.FP16, "fp16"),
        ("imgsz", (128, 256), "128x256"),
        ("imgsz", [128, 256], "128X256"),
        ("normalize", Normalization((95.0,), (41.5,)), "95,41.5"),
        ("normalize", (95.0, 41.5), "95,41.5"),
        ("fit", Fit.RESIZE, "resize"),
        ("bit-depth", 14, "14"),
        ("seed", 3, "3"),
        ("data", Path("frames"), "frames"),
    ],
)
def test_python_values_stand_for_their_text(flag, value, same_as):
    assert resolve("acm", {flag: value}) == resolve("acm", {flag: same_as})


def test_budget_as_a_mapping():
    given = {"data": "d", "budget": {"hse": -0.3, "fa": 2}}
    assert resolve("acm", given) == resolve("acm", {"data": "d", "budget": "hse=-0.3,fa=+2"})


def message_of(flags, source="acm"):
    with pytest.raises(UsageError) as caught:
        resolve(source, flags)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("flag", "value", "choices"),
    [
        ("target", "tpu", TARGETS),
        ("precision", "int4", ("fp32", "fp16", "int8")),
        ("precision", "mixed", ("fp32", "fp16", "int8")),
        ("calibration", "target-aware", METHODS),
        ("int8-form", "arm", ("cpu", "nvidia")),
        ("output", "mask", ("auto", "logits", "probabilities")),
        ("bit-depth", "12", ("8", "14", "16")),
        ("fit", "crop", ("pad", "resize")),
    ],
)
def test_unknown_choice_lists_the_valid_ones(flag, value, choices):
    text = message_of({flag: value})
    assert value in text
    for choice in choices:
        assert choice in text


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("imgsz", "256"),
        ("imgsz", "0x256"),
        ("imgsz", "256x-1"),
        ("imgsz", "256x256x3"),
        ("imgsz", "99999x99999"),
        ("imgsz", (256,)),
        ("normalize", "95"),
        ("normalize", "95,0"),
        ("normalize", "95,-1"),
        ("normalize", "nan,1"),
        ("normalize", "1,inf"),
        ("normalize", "1,2,3,4"),
        ("normalize", "mean,std"),
        ("normalize", 5),
        ("bit-depth", "eight"),
        ("seed", "-1"),
        ("seed", "1.5"),
        ("seed", True),
        ("input-norm-eps", "0"),
        ("input-norm-eps", "nan"),
        ("keep", "yes"),
        ("data", 5),
    ],
)
def test_value_that_is_none_names_its_flag(flag, value):
    assert message_of({flag: value}).startswith(f"--{flag}")


@pytest.mark.parametrize(
    ("flags", "needs"),
    [
        ({"precision": "int8"}, "--data DIR"),
        ({"list": "l.txt"}, "--data DIR"),
        ({"verify-list": "l.txt"}, "--verify-data DIR"),
        ({"verify-list": "l.txt", "data": "d"}, "--verify-data DIR"),
        ({"budget": "hse=-1"}, "--data DIR"),
    ],
)
def test_flag_that_needs_another(flags, needs):
    assert f"needs {needs}" in message_of(flags) or needs in message_of(flags)


def test_unsigned_activations_do_not_run_on_nvidia_targets():
    text = message_of({"target": "rtx-40", "int8-form": "cpu"})
    assert "--int8-form cpu cannot run on rtx-40" in text


@pytest.mark.parametrize("target", TARGETS)
def test_form_follows_the_target_unless_given(target):
    assert LoweringSettings(target).form == TARGETS[target].int8_form
    assert LoweringSettings(target, int8_form="nvidia").form == "nvidia"


def test_unknown_python_flag_lists_the_known():
    text = message_of({"precission": "int8"})
    assert "'precission'" in text
    assert "precision" in text


def test_size():
    assert parse_size("512x640") == (512, 640)
    assert parse_size("16384x1") == (16384, 1)


def test_normalization():
    assert parse_normalization("95.010,41.511") == Normalization((95.01,), (41.511,))
    three = parse_normalization("1,2,3,4,5,6")
    assert three == Normalization((1, 2, 3), (4, 5, 6))
    assert parse_normalization("max") == Normalization((0,), (1,), per_frame_max=True)


def test_one_normalization_serves_all_channels_and_three_do_not_serve_one():
    assert Normalization((1,), (2,)).for_channels(3) == Normalization((1, 1, 1), (2, 2, 2))
    with pytest.raises(UsageError, match="has 3 channels, the network takes 1"):
        Normalization((1, 2, 3), (4, 5, 6)).for_channels(1)


def test_normalization_scales_with_the_bit_depth_but_not_relative_to_a_maximum():
    assert Normalization((10,), (4,)).scaled(2) == Normalization((20,), (8,))
    relative = parse_normalization("max")
    assert relative.scaled(64) == relative


def test_resolved_settings_hold_no_folders():
    found = dataclasses.replace(
        RESOLVED,
        source=dataclasses.replace(RESOLVED.source, name="/data/someone/net.onnx"),
        frames=dataclasses.replace(RESOLVED.frames, data=Path("/data/secret/frames")),
    ).resolved()
    assert found["source"] == "net.onnx"
    assert found["data"] == "frames"
    assert found["precision"] == "int8"
    assert found["fit"] == "resize"
    assert found["budget"] == {"hse": -0.3, "fa": 2.0}
    assert found["normalize"]["mean"] == [95.0]
    assert "/" not in str(found)


@pytest.fixture
def write_yaml(tmp_path):
    def write(text, name="build.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_yaml_keys_are_the_long_flags(write_yaml):
    text = "\n".join(f"{k}: {str(v).lower() if v is True else v}" for k, v in EVERY_FLAG.items())
    path = write_yaml(f"source: acm\n{text}\n")
    request = resolve(str(path), {})
    folder = path.parent
    frames = RESOLVED.frames
    assert request.settings == dataclasses.replace(
        RESOLVED,
        source=dataclasses.replace(RESOLVED.source, weights=folder / "w.pth"),
        frames=FrameSettings(
            folder / "frames", folder / "train.txt", folder / "others", folder / "val.txt",
            frames.seed,
        ),
    )  # fmt: skip
    assert (request.cache, request.no_cache, request.dry_run) == (folder / "stages", True, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: acm\nseed: 2020-13-45\n", "cannot be read as YAML"),
        ('source: acm\ndata: "a\\0b"\n', "names no file"),
        ("source: acm\nseed: 99999999999999999999\n", "--seed"),
    ],
)
def test_yaml_values_that_no_flag_takes(text, words, write_yaml):
    with pytest.raises(UsageError, match=words):
        resolve(str(write_yaml(text)), {})


def test_flags_override_yaml(write_yaml):
    path = write_yaml("source: acm\ntarget: rtx-40\nseed: 3\n")
    settings = resolve(str(path), {"target": "cpu", "seed": None}).settings
    assert settings.lowering.target == "cpu"
    assert settings.frames.seed == 3


def test_onnx_source_in_yaml_is_relative_to_the_file(write_yaml):
    path = write_yaml("source: net.onnx\n", name="build.yml")
    assert resolve(str(path), {}).settings.source.name == str(path.parent / "net.onnx")


def test_empty_yaml_value_means_not_given(write_yaml):
    assert read_yaml(write_yaml("source: acm\nimgsz:\n")) == ("acm", {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "source: acm\nprecison: int8\n",
            "unknown key 'precison'; known: source, target, precision",
        ),
        ("source: acm\nout: a.irstd\n", "unknown key 'out'"),
        ("source: acm\n3: 4\n", "unknown key '3'"),
        ("precision: int8\n", "wanted a mapping with the key source"),
        ("source: [acm]\n", "wanted a mapping with the key source"),
        ("- acm\n", "wanted a mapping"),
        ("", "wanted a mapping"),
        ("source: acm\nbudget: {hse: -1}\n", "budget takes one value as its flag does"),
        ("source: acm\nimgsz: [256, 256]\n", "imgsz takes one value as its flag does"),
        ("source: {acm\n", "cannot be read as YAML"),
        ("source: !!python/object/apply:os.system [id]\n", "cannot be read as YAML"),
        ("[" * 3000, "cannot be read as YAML"),
    ],
)
def test_yaml_that_is_refused(text, reason, write_yaml):
    path = write_yaml(text)
    found = message_of({}, str(path))
    assert found.startswith(f"{path}: ")
    assert reason in found


@pytest.mark.parametrize(
    ("line", "flag"),
    [("keep: please", "keep"), ("seed: 1.5", "seed"), ("seed: true", "seed"), ("fit: 3", "fit")],
)
def test_yaml_value_of_a_wrong_kind_names_its_flag(line, flag, write_yaml):
    assert f"--{flag}" in message_of({}, str(write_yaml(f"source: acm\n{line}\n")))


def test_missing_yaml_and_yaml_that_is_no_text(tmp_path):
    assert "No such file" in message_of({}, str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as YAML" in message_of({}, str(tmp_path / "binary.yaml"))


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    assert resolve("acm", {}).cache_folder == tmp_path
    assert resolve("acm", {"cache": "here"}).cache_folder == Path("here")
    assert resolve("acm", {"cache": "here", "no-cache": True}).cache_folder is None


def test_interface_page_names_these_flags():
    """Contract of the command; see the flag list in the module that parses it."""
    wanted = (
        "weights imgsz normalize output bit-depth fit data list verify-data verify-list "
        "calibration int8-form budget keep cache no-cache seed dry-run target precision"
    )
    assert set(re.split(r"\s+", wanted)) <= set(FLAGS)
