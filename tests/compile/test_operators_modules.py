"""The torch modules: against the definitions, differentiable, exported as one node each."""

import math

import numpy as np
import pytest
import torch

from irstd.compile.export import export
from irstd.compile.graph_facts import run_graph
from irstd.compile.operators.haar_gate import HaarGate, haar_gate
from irstd.compile.operators.ms_deform_attn import MSDeformAttn, ms_deform_attn
from irstd.compile.operators.nodes import fused_nodes
from irstd.compile.operators.spectral_split import SpectralSplit, spectral_split
from irstd.compile.rewrites import rewrite
from irstd.errors import ExportError
from irstd.runtime.kernels.haar_gate import reference as haar_reference
from irstd.runtime.kernels.ms_deform_attn import reference as attention_reference
from irstd.runtime.kernels.spectral_split import reference as split_reference

MAPS = [(1, 4, 12, 10), (2, 3, 7, 5), (1, 4, 1, 1), (1, 1, 1, 6)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def doubles(*shape, scale=1.0):
    return scale * torch.randn(shape, dtype=torch.float64)


def positive(*shape):
    return 0.05 + 0.6 * torch.rand(shape, dtype=torch.float64)


def arrays(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def assert_equal(result, wanted):
    np.testing.assert_allclose(result.detach().numpy(), wanted, rtol=0, atol=1e-12)


def haar_inputs(shape):
    return doubles(*shape), doubles(4, 2, 7, 7, scale=0.2), doubles(4)


def split_inputs(shape):
    channels = shape[1]
    return (
        doubles(*shape), positive(channels), doubles(2, 2, 7, 7, scale=0.2), doubles(2),
        doubles(2, channels),
    )  # fmt: skip


def attention_inputs(level_hw, queries, heads=2, d_head=3, points=2, images=2):
    positions = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    shape = (images, queries, heads, len(level_hw) // 2, points)
    return (
        doubles(images, positions, heads, d_head), doubles(*shape, 2, scale=2), doubles(*shape),
    )  # fmt: skip


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_haar_gate(shape):
    inputs = haar_inputs(shape)
    assert_equal(haar_gate(*inputs), haar_reference.haar_gate(*arrays(*inputs)))


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_spectral_split(shape):
    inputs = split_inputs(shape)
    assert_equal(spectral_split(*inputs), split_reference.spectral_split(*arrays(*inputs)))


@pytest.mark.parametrize("level_hw", [(5, 4), (5, 4, 3, 2), (4, 4, 2, 2, 1, 1, 3, 1)], ids=str)
@pytest.mark.parametrize("has_points", [False, True])
def test_attention(level_hw, has_points):
    inputs = attention_inputs(level_hw, 12)
    points = torch.rand(2, 12, 2, dtype=torch.float64) if has_points else None
    sides = {"level_hw": level_hw, "query_hw": () if has_points else (4, 3)}
    given = None if points is None else points.numpy()
    wanted = attention_reference.ms_deform_attn(*arrays(*inputs), given, **sides)
    assert_equal(ms_deform_attn(*inputs, points, **sides), wanted)


def test_gradients_are_those_of_the_function():
    """Away from the borders of bilinear cells and from ties of the maximum, by differences."""
    for function, inputs in (
        (haar_gate, haar_inputs((1, 2, 3, 4))),
        (spectral_split, split_inputs((1, 2, 4, 3))),
        (
            lambda *given: ms_deform_attn(*given, level_hw=(3, 4, 2, 2), query_hw=(2, 2)),
            attention_inputs((3, 4, 2, 2), 4, images=1),
        ),
    ):
        watched = tuple(tensor.requires_grad_() for tensor in inputs)
        assert torch.autograd.gradcheck(function, watched)


def test_attention_starts_as_published():
    """Heads look in directions of their own, points are a pixel apart, weights are even."""
    module = MSDeformAttn(channels=16, levels=3, heads=4, points=2)
    offsets = module.sampling_offsets.bias.detach().reshape(4, 3, 2, 2)
    wanted = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float32)
    for level in range(3):
        torch.testing.assert_close(offsets[:, level, 0], wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(offsets[:, level, 1], 2 * wanted, atol=1e-6, rtol=0)
    for layer in (module.sampling_offsets, module.attention_weights):
        assert not layer.weight.any()
    for layer in (module.attention_weights, module.value_proj, module.output_proj):
        assert not layer.bias.any()
    assert module.value_proj.weight.abs().max() <= math.sqrt(6 / 32)  # Xavier's bound
    diagonal = MSDeformAttn(channels=16, levels=1, heads=8, points=1).sampling_offsets.bias
    torch.testing.assert_close(diagonal[2:4].detach(), torch.ones(2))  # 45 degrees, largest is 1


def test_attention_needs_whole_heads():
    with pytest.raises(ValueError, match="10 channels; wanted a multiple of 4 heads"):
        MSDeformAttn(channels=10, heads=4)


def test_attention_module_is_the_four_projections():
    module = MSDeformAttn(channels=8, levels=2, heads=2, points=3).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    query, source = doubles(2, 6, 8), doubles(2, 23, 8)
    layers = (module.value_proj, module.sampling_offsets, module.attention_weights,
              module.output_proj)  # fmt: skip
    weights = [array for layer in layers for array in arrays(layer.weight, layer.bias)]
    wanted = attention_reference.ms_deform_attn_module(
        query.numpy(), source.numpy(), attention_reference.Projections(*weights),
        heads=2, level_hw=(4, 5, 1, 3), query_hw=(2, 3),
    )  # fmt: skip
    assert_equal(module(query, source, (4, 5, 1, 3), (2, 3)), wanted)


def test_split_starts_at_a_tenth_of_the_highest_frequency():
    module = SpectralSplit(5)
    np.testing.assert_allclose(module.cutoff.detach(), np.full(5, 0.0707107), rtol=1e-5)
    assert sum(parameter.numel() for parameter in module.parameters()) == 3 * 5 + 198
    x = torch.randn(1, 5, 6, 7)
    inputs = (module.cutoff, module.gate_weight, module.gate_bias, module.gamma)
    wanted = split_reference.spectral_split(x.numpy(), *arrays(*inputs))
    np.testing.assert_allclose(module(x).detach(), wanted, atol=1e-5)


class Network(torch.nn.Module):
    """A convolution, the operators, a head; half the size inside."""

    def __init__(self, *, attends=False):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.gate, self.split = HaarGate(), SpectralSplit(8)
        self.attention = MSDeformAttn(8, levels=1, heads=1, points=2) if attends else None
        self.head = torch.nn.Conv2d(8, 1, 1)

    def forward(self, image):
        x = self.split(self.gate(torch.relu(self.first(image))))
        if self.attention is not None:
            size_hw = x.shape[2:]
            tokens = x.flatten(2).transpose(1, 2)
            attended = self.attention(tokens, tokens, size_hw, size_hw)
            x = x + attended.transpose(1, 2).reshape(x.shape)
        return torch.nn.functional.interpolate(self.head(x), scale_factor=2)


@pytest.mark.parametrize("size_hw", [(96, 160), (32, 20), (2, 2)])
def test_export_is_symbolic_with_one_node_an_operator(size_hw):
    module = Network().eval()
    model = export(module, 1)
    assert [node.op_type for node in fused_nodes(model)] == ["HaarGate", "SpectralSplit"]
    assert [body.name for body in model.functions] == ["HaarGate", "SpectralSplit"]
    image = torch.randn(1, 1, *size_hw)
    wanted = module(image).detach().numpy()
    np.testing.assert_allclose(run_graph(model, image.numpy()), wanted, atol=1e-5)
    fixed, _ = rewrite(model, *size_hw)
    assert len(fused_nodes(fixed)) == 2
    np.testing.assert_allclose(run_graph(fixed, image.numpy()), wanted, atol=1e-5)


def test_export_of_attention_has_a_fixed_size():
    module = Network(attends=True).eval()
    model = export(module, 1, size_hw=(32, 20))
    node = fused_nodes(model)[-1]
    assert (node.op_type, node.overload) == ("MSDeformAttn", "16x10_at_16x10")
    image = torch.randn(1, 1, 32, 20)
    result = run_graph(model, image.numpy())
    np.testing.assert_allclose(result, module(image).detach(), atol=1e-5)
    with pytest.raises(ExportError, match="Network: MSDeformAttn holds the sizes of its maps"):
        export(module, 1)


def test_modules_train_after_an_export():
    """Recording one node is the export's business alone."""
    module = Network()
    export(module, 1)
    module(torch.randn(1, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
