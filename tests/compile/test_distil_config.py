"""A training configuration: what is read, and one clear line for everything that is wrong."""

import dataclasses

import pytest
import yaml

from irstd.compile.distil.config import CHOICES, RANGES, TrainConfig, load_config
from irstd.errors import UsageError

NUMBERS = [f.name for f in dataclasses.fields(TrainConfig) if f.type in (int, float)]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a sound configuration with changes; None removes a key."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("train.txt", "val.txt"):
        (folder / name).write_text("a\n")

    def write(**changes):
        values = {"network": "acm", "data": [{"path": "frames"}], "out": "run"} | changes
        path = tmp_path / "train.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v != "REMOVED"}))
        return path

    return write


def refused(path):
    with pytest.raises(UsageError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_defaults_and_relative_paths(write, tmp_path):
    config = load_config(write())
    assert config.out == tmp_path / "run"
    assert config.data[0].train_list == tmp_path / "frames" / "train.txt"
    assert config.data[0].val_list == tmp_path / "frames" / "val.txt"
    assert config == TrainConfig("acm", config.data, config.out)


def test_every_key_is_read(write, tmp_path):
    changes = {
        "norm": "group",
        "in_channels": 3,
        "normalize": [80, 20.5],
        "crop_px": 64,
        "paste_share": 0.25,
        "target_share": 0.25,
        "scale_range": [0.5, 2],
        "batch": 3,
        "epochs": 7,
        "learning_rate": 1.0e-4,
        "weight_decay": 0,
        "warmup_share": 0.5,
        "ema_decay": 0.9,
        "loss": {"bce": 2, "eedm": 0.5},
        "validate_every": 2,
        "seed": 9,
        "init": "start.safetensors",
        "accelerator": "cpu",
        "devices": 2,
        "precision": "bf16-mixed",
        "threads": 1,
    }
    (tmp_path / "start.safetensors").touch()
    config = load_config(write(**changes))
    for key, value in changes.items():
        if key == "init":
            value = tmp_path / value
        assert getattr(config, key) == (tuple(value) if isinstance(value, list) else value)
    untouched = {"network", "data", "out"}
    assert {f.name for f in dataclasses.fields(config)} - untouched == set(changes)


def test_what_would_fail_after_the_first_epoch_is_refused_at_once(write, tmp_path):
    assert "init" in refused(write(init="absent.safetensors"))
    assert "out must be text" in refused(write(out="a\0b"))
    assert "too large" in refused(write(normalize=[1, 10**400]))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        load_config(write(out="file"))


def test_every_number_has_a_range():
    assert set(NUMBERS) - {"in_channels"} == set(RANGES)
    assert "in_channels" in CHOICES


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", ["many", True, [1], {"a": 1}])
def test_a_number_is_a_number(key, value, write):
    assert key in refused(write(**{key: value}))


@pytest.mark.parametrize("key", RANGES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1, 10**30])
def test_a_number_is_in_range(key, value, write):
    assert key in refused(write(**{key: value}))


@pytest.mark.parametrize("key", ["batch", "epochs", "crop_px", "validate_every", "devices"])
def test_counts_are_whole_and_above_zero(key, write):
    assert key in refused(write(**{key: 0}))
    assert "whole number" in refused(write(**{key: 1.5}))


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_is_one_of_those(key, write):
    value = 2 if key == "in_channels" else "nonsense"
    message = refused(write(**{key: value}))
    assert repr(value) in message
    assert all(str(choice) in message for choice in CHOICES[key])


def test_exponents_without_a_dot_get_a_hint(write):
    path = write()
    path.write_text(path.read_text() + "learning_rate: 2e-3\n")
    assert "2.0e-3" in refused(path)


@pytest.mark.parametrize("key", ["network", "data", "out"])
def test_required_keys(key, write):
    assert f"missing key {key}" in refused(write(**{key: "REMOVED"}))
    assert key in refused(write(**{key: None}))


@pytest.mark.parametrize("key", ["normalize", "scale_range"])
@pytest.mark.parametrize(
    "value",
    [1, [1], [1, 2, 3], ["a", 2], [True, 2], [float("nan"), 1.0], [1.0, float("inf")], [2, -1]],
)
def test_pairs(key, value, write):
    assert key in refused(write(**{key: value}))


@pytest.mark.parametrize("value", [[2.0, 1.0], [0.0, 1.0]])
def test_scale_range_rises_from_above_zero(value, write):
    assert "scale_range" in refused(write(scale_range=value))


def test_a_standard_deviation_is_above_zero(write):
    assert "standard deviation" in refused(write(normalize=[95.0, 0.0]))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({}, "loss must map"),
        ("eedm", "loss must map"),
        ({"dice": 1.0}, "unknown loss 'dice'"),
        ({"eedm": "much"}, "weight of loss eedm"),
        ({"eedm": 0.0}, "weight of loss eedm"),
        ({"eedm": -1.0}, "weight of loss eedm"),
        ({"eedm": float("nan")}, "weight of loss eedm"),
        ({"eedm": True}, "weight of loss eedm"),
    ],
)
def test_losses(loss, said, write):
    assert said in refused(write(loss=loss))


def test_unknown_keys_are_named_with_the_known_ones(write):
    message = refused(write(learning_rte=1.0))
    assert "unknown key learning_rte" in message
    assert "learning_rate" in message
    assert "unknown key data.lists" in refused(write(data=[{"path": "frames", "lists": "x"}]))


@pytest.mark.parametrize("data", ["frames", [], {"path": "frames"}, ["frames"], [None]])
def test_data_is_a_list_of_mappings(data, write):
    assert "data" in refused(write(data=data))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "missing key data.path"),
        ({"path": 3}, "data.path must be text"),
        ({"path": "elsewhere"}, "no such folder"),
        ({"path": "frames", "train_list": "none.txt"}, "none.txt: no such list"),
        ({"path": "frames", "val_list": "none.txt"}, "none.txt: no such list"),
    ],
)
def test_data_must_be_there(entry, said, write):
    assert said in refused(write(data=[entry]))


def test_crops_fit_the_network(write):
    assert "multiple of 16" in refused(write(crop_px=100))


@pytest.mark.parametrize("content", ["", "- a\n", "just text", "{", "a: !!python/object:os.x {}"])
def test_not_a_configuration(content, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    refused(path)


def test_files_that_are_no_text(tmp_path):
    refused(tmp_path / "absent.yaml")
    refused(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(path)
    path.write_text("[" * 5000)
    refused(path)


@pytest.mark.parametrize("name", ["train-acm.yaml", "train-acm-256.yaml"])
def test_the_shipped_examples_are_sound(root, data_root, name):
    text = (root / "examples" / name).read_text("utf-8")
    assert {entry["path"].rpartition("/")[2] for entry in yaml.safe_load(text)["data"]} == {
        "irstd_1k",
        "nudt_sirst",
    }
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(yaml.safe_load(text)) <= fields
