"""The exported graph computes what the torch module computes, at any size."""

import sys

import numpy as np
import onnx
import pytest

from irstd.compile.export import export
from irstd.compile.graph_facts import run_graph
from irstd.compile.onnx_graph import STANDARD_DOMAINS, dimensions, opset_of
from irstd.compile.rewrites import fix_shape
from irstd.errors import ExportError, MissingDependency

pytest.importorskip("torch")
import torch

VARIANTS = [(n, m, c) for n in ("acm", "alcnet") for m in ("batch", "group") for c in (1, 3)]
RELATIVE = 2e-5  # of the largest logit: float32 sums of some thousand terms in another order


def module_output(module, image):
    with torch.no_grad():
        return module(torch.from_numpy(image)).numpy()


def assert_close(got, wanted):
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= RELATIVE * np.abs(wanted).max()


@pytest.mark.parametrize(("network", "norm", "channels"), VARIANTS)
def test_symbolic_graph_equals_the_module(
    network, norm, channels, make_module, make_graph, make_image
):
    module, graph = make_module(network, norm, channels), make_graph(network, norm, channels)
    for height, width in ((32, 48), (112, 64)):
        image = make_image(channels, height, width)
        assert_close(run_graph(graph, image), module_output(module, image))


def test_graph_is_plain(make_graph):
    graph = make_graph("acm", "group", 3)
    assert opset_of(graph) == 17
    assert {node.domain for node in graph.graph.node} <= set(STANDARD_DOMAINS)
    assert [value.name for value in graph.graph.input] == ["image"]
    assert [value.name for value in graph.graph.output] == ["logits"]
    assert dimensions(graph.graph.input[0]) == (1, 3, None, None)
    assert dimensions(graph.graph.output[0]) == (1, 1, None, None)
    onnx.checker.check_model(graph, full_check=True)


def test_fixed_shape_equals_an_export_at_that_size(make_module, make_graph, make_image):
    module = make_module("acm", "group", 1)
    at_size = export(module, 1, size_hw=(48, 80))
    fixed = fix_shape(make_graph("acm", "group", 1), 48, 80)
    assert dimensions(at_size.graph.input[0]) == dimensions(fixed.graph.input[0]) == (1, 1, 48, 80)
    image = make_image(1, 48, 80)
    np.testing.assert_array_equal(run_graph(fixed, image), run_graph(at_size, image))


def test_export_leaves_the_module_alone(make_module):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.BatchNorm2d(1))
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export(module, 1)
    assert module.training
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())


def test_training_behaviour_is_not_exported(make_image):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Dropout(0.5)).train()
    graph, image = export(module, 1), make_image(1, 16, 16)
    assert_close(run_graph(graph, image), module_output(module.eval(), image))


@pytest.mark.parametrize(
    ("file", "network"),
    [
        ("acm_sirst3_point.pth.tar", "acm"),
        ("alcnet_sirst3.pth.tar", "alcnet"),
    ],
)
def test_public_checkpoints_export(file, network, weights_root, make_image):
    from irstd.compile.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(network, weights_root / file)
    graph = export(checkpoint.module, checkpoint.options.in_channels)
    image = make_image(checkpoint.options.in_channels, 96, 64)
    assert_close(run_graph(graph, image), module_output(checkpoint.module, image))


class NoOnnxForm(torch.nn.Module):
    def forward(self, image):
        return torch.linalg.svdvals(image)


class TwoMaps(torch.nn.Module):
    def forward(self, image):
        return image, image + 1


def test_what_has_no_onnx_form_is_named():
    with pytest.raises(ExportError, match=r"^NoOnnxForm: torch cannot export it") as caught:
        export(NoOnnxForm(), 1)
    assert "\n" not in str(caught.value)


def test_several_outputs_are_refused():
    with pytest.raises(ExportError, match="returns 2 tensors; wanted one image"):
        export(TwoMaps(), 1)


def test_missing_torch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"irstd-sdk\[train\]"):
        export(TwoMaps(), 1)
