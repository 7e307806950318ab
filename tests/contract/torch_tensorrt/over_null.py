"""Fused operators as plugins: Torch-TensorRT and TensorRT 11.0's bindings as they are, no engine.

The registry of converters, the plugins' Python and every class are genuine. The network that layers
are added to is a strict double: it knows the methods of `INetworkDefinition`, their names and no
more. What TensorRT makes of a plugin afterwards, tests/kernels/test_tensorrt_quick.py asks it.
"""

import inspect
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from irstd.compile.builders import torch_tensorrt as builder
from irstd.compile.builders.torch_tensorrt_operators import (
    EXPANSIONS,
    register_converters,
    register_plugins,
)
from irstd.compile.operators.haar_gate import HaarGate
from irstd.compile.operators.ms_deform_attn import MSDeformAttn
from irstd.compile.operators.spectral_split import SpectralSplit
from irstd.compile.operators.torch_ops import FIRST_FLOAT32, SCHEMAS
from irstd.errors import BuildError
from tests.contract.torch_tensorrt.pretend import MULTIPROCESSORS, import_torch_tensorrt


class Registry:
    """TensorRT's registry of plugins, empty at first."""

    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, namespace):
        self.creators[creator.name, namespace] = creator
        return True

    def get_creator(self, name, version, namespace):
        assert version == "1"
        return self.creators[name, namespace]


@pytest.fixture(scope="session")
def torch_tensorrt():
    import tensorrt_bindings as trt

    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    module = import_torch_tensorrt(trt, rtx=False)
    import tensorrt
    import tensorrt.plugin

    tensorrt.get_plugin_registry = lambda: registry
    register_plugins(tensorrt.plugin, MULTIPROCESSORS)
    register_converters(module, torch, tensorrt.plugin)
    return module


def test_the_wheel_has_what_is_asked_for(torch_tensorrt):
    assert torch_tensorrt.__version__ == "2.13.0"
    assert builder._knows_plugins(torch_tensorrt)
    builder.check_versions(torch.__version__, torch_tensorrt.__version__)
    assert "tensorrt<11.1.0,>=11.0.0" in builder._requirements()


def test_the_call_that_builds_fits_its_signature(torch_tensorrt, monkeypatch):
    """Bound to the real signature: its **kwargs would swallow a wrong name."""
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    signature = inspect.signature(convert)
    calls = []

    def noted(*arguments, **named):
        unknown = named.keys() - signature.parameters.keys()
        assert not unknown, unknown
        calls.append(signature.bind(*arguments, **named).arguments)
        return b"plan"

    name = "convert_exported_program_to_serialized_trt_engine"
    monkeypatch.setattr(torch_tensorrt.dynamo, name, noted)
    monkeypatch.setattr(builder, "load_torch_tensorrt", lambda: (torch, torch_tensorrt))
    from irstd.compile.settings import Normalization
    from irstd.types import InputSpec

    spec = InputSpec(32, 32, (1.0,), (0.0,), (0.0,))
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), HaarGate(), torch.nn.Conv2d(4, 1, 1))
    plan = builder.build_torch_plan(
        network, spec, Normalization((0.0,), (1.0,)), builder.TorchPlanSettings(workspace_mib=256)
    )
    assert (plan.plan, plan.kernels) == (b"plan", ("HaarGate",))
    assert plan.library == "torch-tensorrt 2.13.0, TensorRT 11.0.0.114"
    (call,) = calls
    assert call["workspace_size"] == 256 << 20
    (given,) = call["arg_inputs"]
    assert (given.shape, given.dtype.to(torch.dtype)) == ((1, 1, 32, 32), torch.float32)


@pytest.fixture
def network(torch_tensorrt):
    """A strict double of a network: every layer's output has the shape that the test asks for."""
    import tensorrt as trt

    network = create_autospec(trt.INetworkDefinition, spec_set=True, instance=True)
    network.add_constant.side_effect = lambda shape, weights: layer(tuple(shape), weights.dtype)
    network.add_plugin.side_effect = lambda plugin, aot: layer((9,), trt.float32)
    return network


def layer(shape, dtype):
    import tensorrt as trt

    made = create_autospec(trt.ILayer, spec_set=True, instance=True)
    made.get_output.return_value = tensor(shape, dtype)
    return made


def tensor(shape, dtype):
    import tensorrt as trt

    made = create_autospec(trt.ITensor, spec_set=True, instance=True)
    made.shape, made.dtype = shape, dtype
    return made


CASES = {
    "HaarGate": (HaarGate, [(1, 16, 24, 32)], ["HaarGate"]),
    "SpectralSplit": (
        lambda: SpectralSplit(16), [(1, 16, 32, 32)], ["SpectralSplitLow", "SpectralSplitGate"]
    ),
    "SpectralSplit, large": (
        lambda: SpectralSplit(16), [(1, 16, 128, 128)],
        ["SpectralSplitRows", "SpectralSplitColumns", "SpectralSplitRowsBack", "SpectralSplitGate"],
    ),
}  # fmt: skip


def converted(torch_tensorrt, network, module, arguments):
    """Export a module with one fused operator, and convert that node as the interpreter does."""
    import tensorrt as trt
    from torch_tensorrt.dynamo._settings import CompilationSettings
    from torch_tensorrt.dynamo.conversion._ConversionContext import ConversionContext
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    from irstd.compile.operators.torch_node import replaced
    from irstd.compile.operators.torch_ops import as_custom_operator

    with replaced(as_custom_operator), torch.no_grad():
        program = torch.export.export(module.eval(), arguments, strict=False)
    program = program.run_decompositions()
    (node,) = [n for n in program.graph.nodes if str(n.target).startswith("irstd.")]
    found = DYNAMO_CONVERTERS.get(node)
    assert found is not None, "Torch-TensorRT finds no converter for the node"

    def value(item):
        if not isinstance(item, torch.fx.Node):
            return item
        return tensor(tuple(item.meta["val"].shape), trt.float32)

    context = ConversionContext(network, CompilationSettings())
    arguments = tuple(map(value, node.args))
    result = found[0](context, node.target, arguments, dict(node.kwargs), node.name)
    assert isinstance(result, trt.ITensor)
    added = [(call.args, call.kwargs) for call in network.add_plugin.call_args_list]
    assert all(kwargs == {"aot": True} for _, kwargs in added)
    # What INetworkDefinition.add_plugin calls with its request.
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    plugins = [make(request)[-1] for (make,), _ in added]
    return node, [plugin.plugin_name for plugin in plugins], plugins


@pytest.mark.parametrize("case", CASES)
def test_maps_become_plugins(torch_tensorrt, network, case):
    make, shapes, wanted = CASES[case]
    _, names, _ = converted(
        torch_tensorrt, network, make(), tuple(torch.zeros(shape) for shape in shapes)
    )
    assert names == wanted


class Attend(torch.nn.Module):
    def __init__(self, with_points):
        super().__init__()
        self.attention = MSDeformAttn(16, levels=2, heads=2)
        self.with_points = with_points

    def forward(self, query, source, points):
        grid = () if self.with_points else (4, 5)
        points = points if self.with_points else None
        return self.attention(query, source, (8, 10, 4, 5), grid, points)


@pytest.mark.parametrize("with_points", [False, True])
def test_attention_becomes_records_and_a_gather(torch_tensorrt, network, with_points):
    arguments = (torch.zeros(1, 20, 16), torch.zeros(1, 100, 16), torch.zeros(1, 20, 2))
    node, names, plugins = converted(torch_tensorrt, network, Attend(with_points), arguments)
    gather = "MSDeformAttnGatherAt" if with_points else "MSDeformAttnGather"
    assert names == ["MSDeformAttnRecords", gather]
    assert list(node.args[4]) == [8, 10, 4, 5]
    attributes = plugins[1].attrs
    assert list(attributes) == ["level_hw", *([] if with_points else ["query_hw"]), "d_head"]
    np.testing.assert_array_equal(attributes["level_hw"], np.array([8, 10, 4, 5], np.int32))


def test_a_layer_that_tensorrt_does_not_add_is_an_error(torch_tensorrt, network):
    network.add_plugin.side_effect = lambda plugin, aot: None
    with pytest.raises(BuildError, match=r"HaarGate haar_gate: TensorRT does not take the plugin"):
        converted(torch_tensorrt, network, HaarGate(), (torch.zeros(1, 4, 8, 8),))


def test_generated_converters_refuse_lists(torch_tensorrt):
    """Why ours are written by hand; when this fails, they need not be (docs/adr/0010)."""
    from torch_tensorrt.dynamo.conversion.plugins import _generate_plugin_converter as theirs

    with pytest.raises(ValueError, match="Expected scalar plugin attribute"):
        theirs._coerce_plugin_attr_for_qdp(
            np.array([8, 10, 4, 5]), np.ndarray[tuple[int], np.dtype[np.int32]]
        )


def test_every_operator_has_a_converter():
    assert EXPANSIONS.keys() == SCHEMAS.keys() == FIRST_FLOAT32.keys()
