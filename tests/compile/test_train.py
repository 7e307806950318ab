"""Training: it learns, it survives a kill, it keeps the best, and it says what is wrong."""

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
import torch

from irstd.compile.checkpoint import NetworkOptions, load_checkpoint, save_checkpoint
from irstd.compile.distil import train
from irstd.compile.distil.config import DataSource, TrainConfig
from irstd.compile.distil.data import load_training, load_validation
from irstd.compile.distil.train import BEST, LAST, LOG, STATE, distil, validate
from irstd.compile.networks import NETWORKS
from irstd.errors import CheckpointError, DeviceError, InputError, UsageError

SIDE = 64


@pytest.fixture(autouse=True)
def _one_thread():
    """The sum of a convolution depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve frames of noise with one bright blob each; four are for validation."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(12):
        y, x = rng.integers(2, SIDE - 11, 2)
        image = rng.normal(90, 8, (SIDE, SIDE))
        image[y : y + 9, x : x + 9] += 90
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[y : y + 9, x : x + 9] = 255
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
    (folder / "train.txt").write_text("\n".join(map(str, range(12))))
    (folder / "val.txt").write_text("\n".join(map(str, range(8, 12))))
    return DataSource(folder, folder / "train.txt", folder / "val.txt")


@pytest.fixture
def make_config(data, tmp_path):
    def make(**changes):
        defaults = {
            "network": "acm",
            "data": (data,),
            "out": tmp_path / "run",
            "crop_px": 32,
            "batch": 4,
            "epochs": 4,
            "validate_every": 1,
            "ema_decay": 0.5,
            "accelerator": "cpu",
        }
        return TrainConfig(**{**defaults, **changes})

    return make


def records(config):
    return [json.loads(line) for line in (config.out / LOG).read_text().splitlines()]


def same_weights(path, other):
    mine, theirs = (load_checkpoint("acm", file).module.state_dict() for file in (path, other))
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


class Killed(BaseException):
    """Stands for a signal: nothing may catch it and go on."""


def test_training_reduces_the_loss_and_finds_the_blobs(make_config, data):
    loss = {"bce": 10.0, "soft_iou": 1.0}
    config = make_config(epochs=25, learning_rate=1e-2, validate_every=25, loss=loss)
    best = distil(config)
    losses = [record["loss"] for record in records(config)]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    module = load_checkpoint("acm", best).module
    untrained = NETWORKS["acm"].build()
    frames = load_validation(data)
    assert validate(module, frames, config.normalize).iou > 40
    assert validate(untrained, frames, config.normalize).iou < 15


@pytest.mark.parametrize("killed_in", ["epoch", "validation", "state"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    killed_in, make_config, monkeypatch, tmp_path
):
    whole = make_config(out=tmp_path / "whole")
    distil(whole)

    calls = 0
    victim = {"epoch": "_train_epoch", "validation": "validate", "state": "_save_state"}[killed_in]
    original = getattr(train, victim)

    def dies_at_the_third_call(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        return original(*arguments)

    part = make_config(out=tmp_path / "part")
    monkeypatch.setattr(train, victim, dies_at_the_third_call)
    with pytest.raises(Killed):
        distil(part)
    monkeypatch.setattr(train, victim, original)
    torch.manual_seed(12345)  # a new process has other random numbers
    distil(part, resume=True)

    assert [p.name for p in part.out.iterdir()] != []
    assert not list(part.out.glob("*.part")), "a temporary file was left behind"
    assert same_weights(part.out / BEST, whole.out / BEST)
    assert same_weights(part.out / LAST, whole.out / LAST)
    without_time = [{k: v for k, v in r.items() if k != "seconds"} for r in records(part)]
    assert without_time == [{k: v for k, v in r.items() if k != "seconds"} for r in records(whole)]
    mine, theirs = (torch.load(c.out / STATE, weights_only=True) for c in (part, whole))
    assert mine["epoch"] == theirs["epoch"] == 4
    for name in ("model", "average"):
        for key, tensor in mine[name].items():
            assert torch.equal(tensor, theirs[name][key]), (name, key)


def test_a_finished_run_resumes_to_nothing(make_config):
    config = make_config(epochs=1)
    distil(config)
    before = (config.out / BEST).read_bytes()
    assert distil(config, resume=True).read_bytes() == before
    assert len(records(config)) == 1


def test_resuming_what_never_started_starts_it(make_config):
    config = make_config(epochs=1)
    assert distil(config, resume=True).is_file()


def test_the_best_epoch_is_kept(make_config, monkeypatch):
    """Validation scores 10, 30, 20 by decree: epoch 2 stays, whatever its loss."""
    merits = iter([10.0, 30.0, 20.0])
    snapshots = []

    def decreed(module, frames, normalize):
        snapshots.append({k: v.clone() for k, v in module.state_dict().items()})
        merit = next(merits)
        real = validate(module, frames, normalize)
        return dataclasses.replace(real, iou=merit, hse=merit)

    monkeypatch.setattr(train, "validate", decreed)
    config = make_config(epochs=3)
    best = load_checkpoint("acm", distil(config)).module.state_dict()
    assert all(torch.equal(best[name], tensor) for name, tensor in snapshots[1].items())
    assert not all(torch.equal(best[name], tensor) for name, tensor in snapshots[2].items())
    assert [record["merit"] for record in records(config)] == [10.0, 30.0, 20.0]


def test_the_first_validation_is_kept_even_if_it_finds_nothing(make_config, monkeypatch):
    def nothing(module, frames, normalize):
        return dataclasses.replace(validate(module, frames, normalize), iou=0.0, hse=0.0)

    monkeypatch.setattr(train, "validate", nothing)
    assert distil(make_config(epochs=1)).is_file()


@pytest.mark.parametrize(("every", "epochs", "validated"), [(2, 5, [2, 4, 5]), (9, 2, [2])])
def test_validation_comes_as_often_as_asked_and_at_the_end(every, epochs, validated, make_config):
    config = make_config(validate_every=every, epochs=epochs, batch=8)
    distil(config)
    assert [r["epoch"] for r in records(config) if "merit" in r] == validated


def test_the_same_seed_gives_the_same_weights_and_another_does_not(make_config, tmp_path):
    first, again, other = (
        distil(make_config(epochs=1, seed=seed, out=tmp_path / name))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "changes",
    [{"norm": "group"}, {"in_channels": 3}, {"loss": {"eedm": 1.0, "bce": 1.0}}],
    ids=str,
)
def test_variants_train_and_load_again(network, changes, make_config):
    config = make_config(network=network, epochs=1, **changes)
    checkpoint = load_checkpoint(network, distil(config))
    assert checkpoint.options == NetworkOptions(config.in_channels, config.norm, 1e-5)
    assert checkpoint.normalize == config.normalize


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("epochs", "batch"), [(1, 8), (2, 4), (5, 4), (10, 8)])
def test_every_warm_up_share_of_every_length(share, epochs, batch, make_config, monkeypatch):
    """OneCycleLR divides by zero where the rise ends at its first step."""
    rates = []
    monkeypatch.setattr(train, "validate", lambda *_: (_ for _ in ()).throw(Killed))

    def epoch_without_training(run, epoch):
        for _ in range(len(run.loader)):
            rates.append(run.optimizer.param_groups[0]["lr"])
            run.optimizer.step()
            run.schedule.step()
        return 0.0

    monkeypatch.setattr(train, "_train_epoch", epoch_without_training)
    config = make_config(epochs=epochs, batch=batch, warmup_share=share, validate_every=epochs)
    with pytest.raises(Killed):
        distil(config)
    assert len(rates) == epochs * (8 // batch)
    assert all(0 <= rate <= config.learning_rate for rate in rates)


def test_starting_from_weights(make_config, tmp_path):
    torch.manual_seed(3)
    options = NetworkOptions(1, "batch", 0.9)
    start = NETWORKS["acm"].build(**vars(options)).state_dict()
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, "acm", options, start, (0, 1))
    config = make_config(epochs=1, init=path, learning_rate=1e-9, ema_decay=0.0, weight_decay=0.0)
    trained = load_checkpoint("acm", distil(config))
    assert trained.options == options
    weight = trained.module.state_dict()["head.block.4.weight"]
    torch.testing.assert_close(weight, start["head.block.4.weight"], atol=1e-6, rtol=0)


def test_starting_from_weights_of_another_variant(make_config, tmp_path):
    options = NetworkOptions(3, "batch", 1e-5)
    path = tmp_path / "start.safetensors"
    state = NETWORKS["acm"].build(**vars(options)).state_dict()
    save_checkpoint(path, "acm", options, state, (0, 1))
    with pytest.raises(UsageError, match=r"\(3, 'batch'\).*\(1, 'batch'\)"):
        distil(make_config(init=path))


# What goes wrong, each with one line and nothing half-written.


def test_a_started_run_is_not_overwritten(make_config):
    config = make_config(epochs=1)
    distil(config)
    with pytest.raises(UsageError, match="--resume"):
        distil(config)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-4}, "learning_rate"),
        ({"loss": {"bce": 1.0}}, "loss"),
        ({"epochs": 9}, "epochs"),
        ({"seed": 5}, "seed"),
        ({"norm": "group"}, "norm"),
        ({"normalize": (1.0, 2.0)}, "normalize"),
    ],
    ids=str,
)
def test_a_run_is_not_resumed_with_other_settings(change, named, make_config):
    config = make_config(epochs=1)
    distil(config)
    with pytest.raises(UsageError, match=f"started with {named} "):
        distil(dataclasses.replace(config, **change), resume=True)


def test_where_it_runs_may_change(make_config, data):
    config = make_config(epochs=1)
    distil(config)
    moved = dataclasses.replace(config, accelerator="auto", threads=1, validate_every=7)
    distil(moved, resume=True)


def test_states_without_settings_are_resumed_if_their_length_fits(make_config):
    config = make_config(epochs=1)
    distil(config)
    state = torch.load(config.out / STATE, weights_only=True)
    del state["settings"]
    torch.save(state, config.out / STATE)
    distil(config, resume=True)
    with pytest.raises(UsageError, match="was started for 2 steps"):
        distil(dataclasses.replace(config, epochs=2), resume=True)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "text"])
def test_a_damaged_state(damage, make_config):
    config = make_config(epochs=1)
    distil(config)
    state = config.out / STATE
    whole = state.read_bytes()
    if damage == "other":
        torch.save({"epoch": 1, "best": 0.0}, state)
    else:
        cut = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}
        state.write_bytes(cut[damage])
    best = (config.out / BEST).read_bytes()
    with pytest.raises(CheckpointError) as caught:
        distil(config, resume=True)
    assert str(caught.value).startswith(str(state))
    assert "\n" not in str(caught.value)
    assert (config.out / BEST).read_bytes() == best


def test_a_loss_that_diverges(make_config, monkeypatch):
    def diverging(weights):
        return lambda logits, target: logits.sum() * math.nan

    monkeypatch.setattr(train, "weighted_loss", diverging)
    config = make_config()
    with pytest.raises(UsageError, match=r"loss became nan in epoch 1.*learning_rate"):
        distil(config)
    assert not (config.out / BEST).exists()


def test_a_batch_larger_than_the_data(make_config):
    with pytest.raises(UsageError, match="batch 9 is larger than the 8 training frames"):
        distil(make_config(batch=9))


def test_an_accelerator_that_is_not_there(make_config):
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(DeviceError, match="1 x cuda"):
        distil(make_config(accelerator="cuda"))


def test_global_settings_are_put_back(make_config):
    distil(make_config(epochs=1, threads=2))
    assert torch.get_num_threads() == 1
    assert float(torch.tensor(1e-40) * 1) != 0, "denormal numbers are still flushed"


def test_missing_masks(make_config, data, tmp_path):
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    (folder / "images").symlink_to(data.path / "images")
    with pytest.raises(InputError, match="masks"):
        distil(make_config(data=(dataclasses.replace(data, path=folder),)))


def test_no_frame_left_to_train_on(make_config, data):
    everything = dataclasses.replace(data, val_list=data.train_list)
    with pytest.raises(InputError, match="nothing is left"):
        distil(make_config(data=(everything,)))


def test_validation_frames_are_never_trained_on(data):
    trained, held_out = load_training((data,)), load_validation(data)
    assert (len(trained), len(held_out)) == (8, 4)
    assert not any(np.array_equal(a.image, b.image) for a in trained for b in held_out)
