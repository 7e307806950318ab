"""Weights files: our own are described by their metadata, public ones recognised by their keys."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from irstd.compile.checkpoint import NetworkOptions, load_checkpoint, save_checkpoint
from irstd.compile.distil.config import DataSource
from irstd.compile.distil.data import load_validation
from irstd.compile.distil.train import validate
from irstd.compile.networks import NETWORKS
from irstd.errors import CheckpointError, UsageError

# What ../shared/weights/README.md states: measured on sirst_v1/test.txt, FP32, threshold 0.5, each
# frame padded to a multiple of 32 after normalisation with 95.010, 41.511.
PUBLISHED = {
    ("alcnet", "alcnet_sirst3.pth.tar"): {
        "iou": 67.97, "niou": 68.64, "pd": 92.78, "fa": 36.98,
        "hse_p": 90.49, "hse_t": 90.25, "hse": 81.67,
    },
    ("acm", "acm_sirst3_point.pth.tar"): {
        "iou": 49.56, "niou": 52.03, "pd": 90.11, "fa": 39.65,
        "hse_p": 70.50, "hse_t": 90.20, "hse": 63.59,
    },
}  # fmt: skip


@pytest.fixture
def public(make_module):
    """Return a function (network, norm, channels, prefix) -> tensors in the public layout."""

    def tensors(network, norm="batch", channels=1, prefix="model."):
        state = dict(make_module(network, norm, channels).state_dict())
        for dead in NETWORKS[network].dead_keys:
            state[f"{dead}0.conv1.weight"] = torch.ones(16, 16, 3, 3)
            state[f"{dead}0.bn1.running_mean"] = torch.ones(16)
        return {prefix + name: tensor for name, tensor in state.items()}

    return tensors


def same_weights(module, other):
    mine, theirs = module.state_dict(), other.state_dict()
    assert set(mine) == set(theirs)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", NETWORKS)
def test_public_layout(network, norm, channels, public, make_module, tmp_path):
    path = tmp_path / "public.pth.tar"
    torch.save({"state_dict": public(network, norm, channels), "epoch": 400}, path)
    checkpoint = load_checkpoint(network, path)
    assert checkpoint.options == NetworkOptions(channels, norm, 1e-5)
    assert checkpoint.normalize is None
    assert not checkpoint.module.training
    assert same_weights(checkpoint.module, make_module(network, norm, channels))


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "model.module."])
def test_wrappers_prefixes_are_dropped(prefix, public, make_module, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(public("acm", prefix=prefix), path)
    assert same_weights(load_checkpoint("acm", path).module, make_module("acm", "batch", 1))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".tar", ".safetensors"])
def test_every_suffix(suffix, public, make_module, tmp_path):
    path = tmp_path / f"public{suffix}"
    if suffix == ".safetensors":
        save_file(public("acm"), path, metadata={"format": "pt"})
    else:
        torch.save(public("acm"), path)
    checkpoint = load_checkpoint("acm", path)
    assert checkpoint.normalize is None
    assert same_weights(checkpoint.module, make_module("acm", "batch", 1))


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_the_mapping_may_be_nested(key, public, tmp_path):
    path = tmp_path / "public.pth"
    torch.save({"epoch": 3, key: public("acm")}, path)
    load_checkpoint("acm", path)


def test_files_of_the_old_torch_format(public, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(public("acm"), path, _use_new_zipfile_serialization=False)
    load_checkpoint("acm", path)


def test_half_precision_weights_are_widened(public, tmp_path):
    path = tmp_path / "public.pth"
    halves = {k: v.half() if v.is_floating_point() else v for k, v in public("acm").items()}
    torch.save(halves, path)
    module = load_checkpoint("acm", path).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_counters_may_be_missing(public, tmp_path):
    path = tmp_path / "public.pth"
    torch.save({k: v for k, v in public("acm").items() if "num_batches" not in k}, path)
    load_checkpoint("acm", path)


def test_the_eps_trap(public, tmp_path):
    """A port that built the input norm with eps 0.9 needs that said: its keys are the same."""
    path = tmp_path / "public.pth"
    tensors = public("acm")
    torch.save(tensors, path)
    plain = load_checkpoint("acm", path).module.stem[0]
    trapped = load_checkpoint("acm", path, input_norm_eps=0.9).module.stem[0]
    assert plain.eps == 1e-5
    assert trapped.eps == 0.9
    image = torch.randn(1, 1, 8, 8)
    mean, variance = tensors["model.stem.0.running_mean"], tensors["model.stem.0.running_var"]
    wanted = (image - mean) / torch.sqrt(variance + 0.9)
    wanted = wanted * tensors["model.stem.0.weight"] + tensors["model.stem.0.bias"]
    torch.testing.assert_close(trapped(image), wanted)


@pytest.mark.parametrize(
    "options",
    [
        NetworkOptions(1, "batch", 1e-5),
        NetworkOptions(3, "group", 1e-5),
        NetworkOptions(1, "batch", 0.9),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_our_own_files_say_everything(network, options, make_module, tmp_path):
    path = tmp_path / "own.safetensors"
    module = make_module(network, options.norm, options.in_channels)
    save_checkpoint(path, network, options, module.state_dict(), (87.5, 39.25))
    # The argument is for public files and must not override what ours say.
    checkpoint = load_checkpoint(network, path, input_norm_eps=0.5)
    assert checkpoint.network == network
    assert checkpoint.options == options
    assert checkpoint.normalize == (87.5, 39.25)
    assert checkpoint.module.stem[0].eps == options.input_norm_eps
    assert same_weights(checkpoint.module, module)
    image = torch.randn(1, options.in_channels, 32, 32)
    with torch.no_grad():
        assert torch.isfinite(checkpoint.module(image)).all()


def test_channels_last_weights_are_saved_plainly(make_module, tmp_path):
    import copy

    module = copy.deepcopy(make_module("acm", "batch", 1)).to(memory_format=torch.channels_last)
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, "acm", NetworkOptions(1, "batch", 1e-5), module.state_dict(), (0, 1))
    assert same_weights(load_checkpoint("acm", path).module, module)


def test_an_unknown_network_lists_the_known(tmp_path):
    with pytest.raises(UsageError, match=r"'acn'.*acm"):
        load_checkpoint("acn", tmp_path / "x.pth")


def test_another_networks_weights(public, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(public("alcnet"), path)
    with pytest.raises(CheckpointError, match=r"does not fit acm.*missing.*alcnet"):
        load_checkpoint("acm", path)


def test_another_networks_name_in_our_file(make_module, tmp_path):
    path = tmp_path / "own.safetensors"
    state = make_module("acm", "batch", 1).state_dict()
    save_checkpoint(path, "acm", NetworkOptions(1, "batch", 1e-5), state, (0, 1))
    with pytest.raises(CheckpointError, match=r"weights of 'acm', wanted 'alcnet'"):
        load_checkpoint("alcnet", path)


def test_other_shapes(public, tmp_path):
    path = tmp_path / "public.pth"
    tensors = public("acm")
    tensors["model.layer1.0.conv1.weight"] = torch.zeros(24, 16, 3, 3)
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match=r"1 of another shape, first 'layer1.0.conv1.weight'"):
        load_checkpoint("acm", path)


def test_an_extra_tensor(public, tmp_path):
    path = tmp_path / "public.pth"
    torch.save(public("acm") | {"model.extra": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="1 unexpected, first 'extra'"):
        load_checkpoint("acm", path)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "file"), PUBLISHED)
def test_public_checkpoints_reproduce_their_scores(network, file, data_root, weights_root):
    """The acceptance test of the importer: every part of it wrong shows here."""
    folder = data_root / "sirst_v1"
    source = DataSource(folder, folder / "train.txt", folder / "test.txt")
    frames = load_validation(source)
    module = load_checkpoint(network, weights_root / file).module
    module.to(memory_format=torch.channels_last)
    scores = validate(module, frames, (95.010, 41.511))
    assert scores.frames == 214
    stated = PUBLISHED[network, file]
    got = {name: getattr(scores, name) for name in stated}
    assert got == pytest.approx(stated, abs=0.1)
    assert np.isfinite(list(got.values())).all()
