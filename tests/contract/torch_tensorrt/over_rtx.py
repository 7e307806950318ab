"""Torch-TensorRT's own converters and TensorRT for RTX's own builder: real plans, built here.

TensorRT for RTX is the other library that Torch-TensorRT builds with. It makes plans without a GPU;
only what Torch-TensorRT does with a plan afterwards, loading it, needs one and is left out.
"""

import numpy as np
import pytest
import torch
from torch import nn

from irstd.compile.builders import torch_tensorrt as builder
from irstd.compile.builders.torch_tensorrt import TorchPlanSettings, build_torch_plan
from irstd.compile.networks import NETWORKS
from irstd.compile.operators.haar_gate import HaarGate
from irstd.compile.operators.ms_deform_attn import MSDeformAttn
from irstd.compile.operators.spectral_split import SpectralSplit
from irstd.compile.settings import Normalization
from irstd.errors import BuildError
from irstd.types import InputSpec, Precision
from tests.contract.torch_tensorrt.pretend import import_torch_tensorrt

MAGIC = b"vtrt"  # how TensorRT for RTX begins a plan: no header of somebody else's is in front
NORMALIZATION = Normalization((95.0,), (41.5,))
SPEC = InputSpec(64, 96, (1 / 41.5,), (-95.0 / 41.5,), (95.0,))


class Loaded:
    """A plan that Torch-TensorRT has TensorRT load, only to serialize it again."""

    def __init__(self, plan):
        self.plan = plan

    def serialize(self):
        return self.plan


class Loader:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        return Loaded(plan)


@pytest.fixture(scope="session", autouse=True)
def rtx():
    bindings = pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch = pytest.MonkeyPatch()
    torch_tensorrt = import_torch_tensorrt(bindings, rtx=True)
    assert torch_tensorrt._features.ENABLED_FEATURES.tensorrt_rtx
    import tensorrt

    tensorrt.Runtime = Loader
    monkeypatch.setattr(builder, "load_torch_tensorrt", lambda: (torch, torch_tensorrt))
    yield bindings
    monkeypatch.undo()


class Fused(nn.Module):
    """Every fused operator, on maps of a quarter of the image."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=4, padding=1)
        self.gate, self.split = HaarGate(), SpectralSplit(16)
        self.attention = MSDeformAttn(16, levels=1, heads=2)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, image):
        x = self.split(self.gate(self.stem(image)))
        sides = tuple(x.shape[2:])
        tokens = x.flatten(2).transpose(1, 2)
        attended = self.attention(tokens, tokens, sides, sides).transpose(1, 2)
        mask = self.head(x + attended.reshape(x.shape))
        return nn.functional.interpolate(mask, scale_factor=4, mode="bilinear")


def built(network, precision, **options):
    settings = TorchPlanSettings(precision=precision, **options)
    return build_torch_plan(network, SPEC, NORMALIZATION, settings)


def smaller_weights(half, full):
    return len(half.plan) < 0.8 * len(full.plan)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_converted_and_built(name):
    network = NETWORKS[name].build(in_channels=1).eval()
    full, half = (built(network, precision) for precision in (Precision.FP32, Precision.FP16))
    assert full.library.startswith("torch-tensorrt 2.13.0, TensorRT 1.")
    assert full.plan[:4] == half.plan[:4] == MAGIC
    assert smaller_weights(half, full)
    assert full.kernels == half.kernels == ()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_fused_operators_are_converted_written_out(precision):
    plan = built(Fused().eval(), precision, plugins=False)
    assert len(plan.plan) > 1000
    assert plan.kernels == ()


class Bessel(nn.Module):
    def forward(self, image):
        return torch.special.bessel_j0(image)


def test_an_operator_without_converter_is_named():
    with pytest.raises(BuildError, match=r"no converter: .*bessel_j0"):
        built(Bessel(), Precision.FP32)


class Branching(nn.Module):
    def forward(self, image):
        return image if image.sum() > 0 else -image


def test_a_module_that_torch_cannot_export_is_refused():
    with pytest.raises(BuildError, match=r"Deployed: torch\.export refuses it"):
        built(Branching(), Precision.FP32)


def test_activations_beyond_half_are_refused():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    nn.init.constant_(network[0].weight, 1e5)
    x = np.ones((1, 1, 64, 96), np.float32)
    with pytest.raises(BuildError, match=r"^0 reaches 1e\+05, half ends at 65504"):
        build_torch_plan(network, SPEC, NORMALIZATION, TorchPlanSettings(), [x])
