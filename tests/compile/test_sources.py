"""What SOURCE may be, and what each says of its input."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from irstd.compile import shipped, sources
from irstd.compile.networks import NETWORKS
from irstd.compile.settings import Normalization, SourceSettings
from irstd.compile.sources import describe_model, open_source
from irstd.errors import CheckpointError, ExportError, UsageError

GREY = Normalization((80.0,), (40.0,))


def test_onnx_file(tiny_onnx):
    source = open_source(SourceSettings(str(tiny_onnx("dots.onnx")), normalize=GREY))
    assert source.network == "dots"
    assert source.normalization == GREY
    assert source.default_size_hw == (32, 32)
    assert source.global_pooling is True  # the gate
    assert source.licences == {}


def test_onnx_file_of_symbolic_size_takes_imgsz(tiny_onnx):
    path = tiny_onnx(size_hw=("H", "W"))
    source = open_source(SourceSettings(str(path), normalize=GREY, imgsz=(48, 64)))
    assert source.default_size_hw == (48, 64)
    with pytest.raises(ExportError, match=r"symbolic shape .*--imgsz HxW"):
        open_source(SourceSettings(str(path), normalize=GREY))


def test_onnx_needs_normalize(tiny_onnx):
    with pytest.raises(UsageError, match="--normalize MEAN,STD"):
        open_source(SourceSettings(str(tiny_onnx())))


def test_missing_onnx_is_missing_before_its_normalisation_is(tmp_path):
    with pytest.raises(ExportError, match="no such file"):
        open_source(SourceSettings(str(tmp_path / "none.onnx")))


def test_onnx_takes_no_weights(tiny_onnx):
    settings = SourceSettings(str(tiny_onnx()), normalize=GREY, weights=Path("w.pth"))
    with pytest.raises(UsageError, match="--weights goes with a network name"):
        open_source(settings)


@pytest.mark.parametrize("name", ["amc", "model.pth", "", "ACM"])
def test_neither_network_nor_file(name):
    with pytest.raises(UsageError) as caught:
        open_source(SourceSettings(name))
    for network in NETWORKS:
        assert network in str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_checkpoint(name, tmp_path):
    settings = SourceSettings(name, weights=tmp_path / "none.safetensors", normalize=GREY)
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file.*" + name):
        open_source(settings)


def test_network_without_shipped_weights(monkeypatch):
    monkeypatch.setattr(sources, "read_shipped", lambda name: None)
    with pytest.raises(UsageError, match=r"no weights of alcnet are shipped.*--weights FILE"):
        open_source(SourceSettings("alcnet"))


@pytest.fixture
def shipped_tiny(make_tiny, monkeypatch):
    model = describe_model(make_tiny(size_hw=("H", "W")), "acm", (80.0, 40.0), "Apache-2.0")
    content = model.SerializeToString()
    monkeypatch.setattr(sources, "read_shipped", lambda name: content if name == "acm" else None)


def test_shipped_network_says_its_own_normalisation(shipped_tiny):
    source = open_source(SourceSettings("acm"))
    assert source.normalization == GREY
    assert source.default_size_hw == NETWORKS["acm"].default_size_hw
    assert source.global_pooling is NETWORKS["acm"].global_pooling
    assert source.licences == {"weights": "Apache-2.0"}


@pytest.mark.parametrize(("depth", "top"), [(8, 255), (14, 16383), (16, 65535)])
def test_what_was_learnt_on_8_bit_is_stretched_over_deeper_frames(depth, top, shipped_tiny):
    found = open_source(SourceSettings("acm", bit_depth=depth)).normalization
    assert found.mean[0] / top == pytest.approx(80 / 255)
    assert found.std[0] / top == pytest.approx(40 / 255)


def test_given_normalisation_is_in_grey_levels_of_the_depth_and_wins(shipped_tiny):
    given = Normalization((5000.0,), (900.0,))
    settings = SourceSettings("acm", bit_depth=14, normalize=given)
    assert open_source(settings).normalization == given


def test_describing_a_model_leaves_it_alone(make_tiny):
    model = make_tiny()
    before = model.SerializeToString()
    facts = {p.key: p.value for p in describe_model(model, "acm", (1, 2), "MIT").metadata_props}
    assert model.SerializeToString() == before
    assert facts[sources.NETWORK_KEY] == "acm"
    assert json.loads(facts[sources.NORMALIZE_KEY]) == [1, 2]


def test_checkpoint_is_exported_once(tmp_path, monkeypatch, make_tiny):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    exports = []

    def export(spec, path, eps):
        exports.append((spec.name, path, eps))
        return make_tiny(size_hw=("H", "W")).SerializeToString()

    monkeypatch.setattr(sources, "_export", export)
    settings = SourceSettings("acm", weights=weights, normalize=GREY)
    for _ in range(2):
        assert open_source(settings, tmp_path / "cache").network == "acm"
    assert exports == [("acm", weights, 1e-5)]
    open_source(SourceSettings("acm", weights=weights, normalize=GREY, input_norm_eps=0.9),
                tmp_path / "cache")  # fmt: skip
    weights.write_bytes(b"other weights")
    open_source(settings, tmp_path / "cache")
    assert len(exports) == 3


def test_checkpoint_that_does_not_say_its_normalisation(tmp_path, monkeypatch, make_tiny):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    content = make_tiny().SerializeToString()
    monkeypatch.setattr(sources, "_export", lambda spec, path, eps: content)
    with pytest.raises(UsageError, match=r"w\.pth: the file does not say.*--normalize MEAN,STD"):
        open_source(SourceSettings("acm", weights=weights))


def test_own_checkpoint_says_its_normalisation(tmp_path, make_module):
    """Through the real export, once: torch, safetensors and the metadata on the way."""
    from irstd.compile.checkpoint import NetworkOptions, save_checkpoint

    weights = tmp_path / "own.safetensors"
    options = NetworkOptions(in_channels=1, norm="batch", input_norm_eps=0.9)
    module = make_module("acm", "batch", 1)
    save_checkpoint(weights, "acm", options, module.state_dict(), (95.0, 41.5))
    source = open_source(SourceSettings("acm", weights=weights))
    assert source.normalization == Normalization((95.0,), (41.5,))
    assert [d.dim_param for d in source.model.graph.input[0].type.tensor_type.shape.dim][2:] == [
        "H",
        "W",
    ]
    override = open_source(SourceSettings("acm", weights=weights, normalize=GREY))
    assert override.normalization == GREY


def test_shipped_files_are_listed_and_read():
    names = shipped.shipped_names()
    assert set(names) <= set(NETWORKS)
    for name in NETWORKS:
        content = shipped.read_shipped(name)
        assert (content is not None) == (name in names)


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_graph_says_what_it_is(name):
    content = shipped.read_shipped(name)
    if content is None:
        pytest.skip(f"compile/weights/{name}.onnx does not exist")
    source = open_source(SourceSettings(name))
    assert source.licences["weights"]
    assert np.isfinite(source.normalization.mean + source.normalization.std).all()
    onnx.checker.check_model(source.model, full_check=True)
