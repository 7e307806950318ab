"""The facts in NETWORKS are those of the modules; one row a network."""

import pytest

from irstd.compile.graph_facts import count_macs, pools_globally
from irstd.compile.networks import NETWORKS
from irstd.compile.rewrites import fix_shape
from irstd.errors import ExportError

# network: executed parameters with 3 channels, GMAC at the default size with 3 channels (published)
PUBLISHED = {
    "acm": (397_971, 0.346),
    "alcnet": (427_109, 0.297),
}


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_network_has_a_row():
    assert set(PUBLISHED) == set(NETWORKS)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("network", NETWORKS)
def test_parameters(network, norm, make_module):
    spec = NETWORKS[network]
    assert parameters(make_module(network, norm, spec.in_channels)) == spec.parameters
    assert parameters(make_module(network, norm, 3)) == PUBLISHED[network][0]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_is_executed(network, make_module):
    torch = pytest.importorskip("torch")
    spec = NETWORKS[network]
    module = make_module(network, "batch", spec.in_channels)
    side = 2 * spec.stride_px
    logits = module(torch.randn(2, spec.in_channels, side, side))
    gradients = torch.autograd.grad(logits.sum(), list(module.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("network", NETWORKS)
def test_untrained_networks_expect_background(network):
    torch = pytest.importorskip("torch")
    spec = NETWORKS[network]
    module = spec.build(in_channels=spec.in_channels, norm="batch", input_norm_eps=1e-5).eval()
    side = 4 * spec.stride_px
    dark = torch.zeros(1, spec.in_channels, side, side)
    with torch.inference_mode():
        assert torch.sigmoid(module(dark)).max() < 0.5


@pytest.mark.parametrize("network", NETWORKS)
def test_macs_at_the_default_size(network, make_graph):
    spec = NETWORKS[network]
    fixed = fix_shape(make_graph(network, "batch", spec.in_channels), *spec.default_size_hw)
    assert count_macs(fixed) == spec.macs
    coloured = fix_shape(make_graph(network, "batch", 3), *spec.default_size_hw)
    assert count_macs(coloured) / 1e9 == pytest.approx(PUBLISHED[network][1], abs=5e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_stride_and_pooling_are_those_of_the_graph(network, make_graph):
    spec = NETWORKS[network]
    graph = make_graph(network, "batch", spec.in_channels)
    stride = spec.stride_px
    fix_shape(graph, 3 * stride, 5 * stride)
    with pytest.raises(ExportError, match=f"multiples of {stride} px"):
        fix_shape(graph, 3 * stride + stride // 2, 5 * stride)
    assert pools_globally(graph) == spec.global_pooling
