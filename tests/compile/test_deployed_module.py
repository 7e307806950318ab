"""The module that Torch-TensorRT gets computes what the graph of the bundle computes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from irstd.compile.builders.deployed_module import (  # noqa: E402
    Deployed,
    refuse_large_activations,
    settle_norms,
)
from irstd.compile.export import export  # noqa: E402
from irstd.compile.prepare import prepare  # noqa: E402
from irstd.compile.settings import Normalization, SourceSettings  # noqa: E402
from irstd.compile.sources import Source  # noqa: E402
from irstd.errors import BuildError, ExportError  # noqa: E402
from irstd.runtime.sessions import open_session  # noqa: E402
from irstd.types import InputSpec, Precision  # noqa: E402

SIZE = (64, 96)
GREY = Normalization((95.0,), (41.5,))
COLOUR = Normalization((90.0, 95.0, 100.0), (40.0, 41.5, 43.0))


@pytest.fixture(params=[("acm", 1), ("alcnet", 1), ("acm", 3)], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request, make_module):
    """A module, its bundle's graph, spec and normalisation."""
    network, channels = request.param
    module = make_module(network, "batch", channels)
    normalization = GREY if channels == 1 else COLOUR
    model = export(module, channels)
    source = Source(network, model, normalization, SIZE, None, {})
    prepared = prepare(source, SourceSettings(network, imgsz=SIZE))
    return module, prepared, normalization


def difference(case, precision, rng):
    """Largest difference of logits from the graph's, as a share of their range."""
    module, prepared, normalization = case
    frame = rng.uniform(0, 255, (1, len(normalization.mean), *SIZE))
    spec = prepared.spec
    scale, offset = (np.array(v)[:, None, None] for v in (spec.scale, spec.offset))
    tensor = (frame * scale + offset).astype(np.float32)
    session = open_session("onnxruntime", prepared.model.SerializeToString())
    try:
        wanted = session.run(tensor)[0].copy()
    finally:
        session.close()
    with torch.no_grad():
        got = Deployed(module, spec, normalization, precision)(torch.from_numpy(tensor)).numpy()
    assert (got.shape, got.dtype) == (wanted.shape, np.float32)
    return np.abs(got - wanted).max() / np.ptp(wanted)


def test_fp32_is_the_graph_to_rounding(case, rng):
    assert difference(case, Precision.FP32, rng) < 2e-5


def test_fp16_is_near_the_graph_and_really_half(case, rng):
    # 2^-11 a rounding, some dozens of them one after the other.
    assert 1e-5 < difference(case, Precision.FP16, rng) < 2e-2


def test_the_module_that_was_given_is_left_alone(case):
    module, prepared, normalization = case
    before = {name: value.clone() for name, value in module.state_dict().items()}
    Deployed(module, prepared.spec, normalization, Precision.FP16)
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_norms_hold_what_half_cannot():
    norm = torch.nn.BatchNorm2d(2).eval()
    norm.running_var[:] = torch.tensor([1e6, 1e-9])  # beyond half, and below
    x = torch.tensor([[[[1e3]], [[1e-4]]]])
    wanted = norm(x)
    settle_norms(norm)
    torch.testing.assert_close(norm(x), wanted, rtol=1e-5, atol=1e-6)
    assert (norm.running_var == 1).all()
    assert torch.isfinite(norm.half().weight).all()


def test_a_norm_without_statistics_is_refused():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ExportError, match=r"^0: a BatchNorm without running statistics"):
        settle_norms(network)


def spec(scale=1.0):
    return InputSpec(8, 8, (scale,), (0.0,), (0.0,))


def test_int8_is_refused():
    with pytest.raises(ExportError, match="fp32 or fp16, not int8"):
        Deployed(torch.nn.Identity(), spec(), Normalization((0.0,), (1.0,)), Precision.INT8)


def test_a_preprocessing_that_loses_the_image_is_refused():
    with pytest.raises(ExportError, match="a scale is 0"):
        Deployed(torch.nn.Identity(), spec(0.0), Normalization((0.0,), (1.0,)), Precision.FP32)


@pytest.mark.parametrize("value", [4e4, float("nan"), float("inf")])
def test_activations_beyond_half_are_named(value):
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    deployed = Deployed(network, spec(), Normalization((0.0,), (1.0,)), Precision.FP32)
    with pytest.raises(BuildError, match=r"^0 reaches .*, half ends at 65504: build"):
        refuse_large_activations(deployed, [torch.full((1, 1, 8, 8), value)])
    refuse_large_activations(deployed, [torch.full((1, 1, 8, 8), 3e4)])
