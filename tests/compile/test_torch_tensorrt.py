"""What Torch-TensorRT's builder refuses before anything of it is imported; the operators' exports.

The genuine wheel is at work in tests/contract/torch_tensorrt.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from irstd.compile.builders import torch_tensorrt as builder
from irstd.compile.builders.torch_tensorrt import (
    TorchPlanSettings,
    check_versions,
    load_torch_tensorrt,
)
from irstd.errors import BuildError, DeviceError, MissingDependency, UsageError
from irstd.types import Precision

torch = pytest.importorskip("torch")


@pytest.fixture
def installed(monkeypatch):
    """A function that says which versions are installed."""
    load_torch_tensorrt.cache_clear()

    def say(**versions):
        known = {name.replace("_", "-"): version for name, version in versions.items()}
        monkeypatch.setattr(builder, "_installed", known.get)

    yield say
    load_torch_tensorrt.cache_clear()


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("2.13.0", None, r"^torch_tensorrt is not installed: pip install 'irstd-sdk\[torch-ten"),
        (None, "2.13.0", r"^torch is not installed: "),
        (
            "2.12.1+cu130",
            "2.13.0",
            r"goes with torch 2\.13, installed is 2\.12\.1\+cu130: pip inst",
        ),
        ("2.14.0", "2.13.0", r"'torch==2\.13\.\*', or 'torch-tensorrt==2\.14\.\*'$"),
        ("2.8.0", "2.8.0", r"^torch-tensorrt 2\.8\.0; wanted 2\.13 or later"),
        ("nonsense", "2.13.0", r"installed is nonsense"),
    ],
)
def test_versions_that_do_not_go_together(ours, theirs, said):
    with pytest.raises(MissingDependency, match=said):
        check_versions(ours, theirs)


@pytest.mark.parametrize("version", ["2.13.0", "2.13.0+cpu", "2.13.1.dev20260901", "3.0.0"])
def test_versions_that_go_together(version):
    check_versions(version, version.partition("+")[0])


def test_without_a_device_nothing_is_imported(installed, monkeypatch):
    installed(torch=torch.__version__, torch_tensorrt=torch.__version__.partition("+")[0])
    monkeypatch.setattr(builder, "OLDEST", (2, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)  # an import would fail otherwise
    with pytest.raises(DeviceError, match=r"finds no CUDA device.*or build through ONNX"):
        load_torch_tensorrt()


def test_an_import_that_fails_says_what_the_release_wants(installed, monkeypatch):
    installed(torch=torch.__version__, torch_tensorrt=torch.__version__.partition("+")[0])
    monkeypatch.setattr(builder, "OLDEST", (2, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(builder, "_requirements", lambda: ["tensorrt<11.1.0,>=11.0.0"])
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingDependency, match=r"does not load \(.*wants tensorrt<11\.1\.0"):
        load_torch_tensorrt()


def test_requirements_are_those_of_torch_and_tensorrt(monkeypatch):
    listed = ["numpy", "torch<2.14,>=2.13", "tensorrt<11.1", "tensorrt-cu13-libs<11.1", "torchao"]
    monkeypatch.setattr(builder.importlib.metadata, "requires", lambda name: listed)
    assert builder._requirements() == ["torch<2.14,>=2.13", "tensorrt<11.1"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision": Precision.INT8}, "builds fp32 and fp16, not int8: build INT8 through ONNX"),
        ({"optimization_level": 6}, "wanted 0 to 5"),
        ({"workspace_mib": 0}, "wanted 1 or more"),
    ],
)
def test_settings_that_it_has_not(values, said):
    with pytest.raises(UsageError, match=said):
        TorchPlanSettings(**values)


def test_the_first_cause_is_told():
    class UnsupportedOperatorException(RuntimeError):
        pass

    error = RuntimeError("While interpreting the module got an error: a graph of 90 lines")
    error.__cause__ = UnsupportedOperatorException("Conversion of aten.x not currently supported!")
    assert builder._why(error).startswith("Torch-TensorRT has no converter: Conversion of aten.x")
    assert builder._why(ValueError("bad\nshape")) == "Torch-TensorRT does not build it: bad shape"


def test_what_the_library_prints_goes_to_standard_error(capfd):
    with builder._standard_output_kept():
        print("You are using TensorRT")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "You are using TensorRT\n")


def test_plugins_need_a_tensorrt_that_has_them():
    module = SimpleNamespace(ENABLED_FEATURES=SimpleNamespace(qdp_plugin=False))
    trt = SimpleNamespace(__version__="10.14.1.48", Runtime=None)
    with pytest.raises(MissingDependency, match=r"10\.14\.1\.48 .*or build with plugins=False"):
        builder._prepare_plugins(torch, module, trt)


@pytest.fixture
def fused():
    """A module with every fused operator, and an image for it."""
    from torch import nn

    from irstd.compile.operators.haar_gate import HaarGate
    from irstd.compile.operators.ms_deform_attn import MSDeformAttn
    from irstd.compile.operators.spectral_split import SpectralSplit

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.split = HaarGate(), SpectralSplit(4)
            self.attention = MSDeformAttn(4, levels=1, heads=2)

        def forward(self, x):
            x = self.split(self.gate(x))
            tokens = x.flatten(2).transpose(1, 2)
            sides = tuple(x.shape[2:])
            return self.attention(tokens, tokens, sides, sides)

    torch.manual_seed(0)
    return Fused().eval(), torch.randn(1, 4, 12, 10)


@pytest.mark.parametrize("plugins", [True, False])
def test_exports_compute_what_the_module_does(fused, plugins):
    module, x = fused
    program, calls = builder.export_program(module, tuple(x.shape), plugins=plugins)
    assert calls == (("HaarGate", "MSDeformAttn", "SpectralSplit") if plugins else ())
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    if not plugins:
        assert not [name for name in targets if "irstd" in name or "fft" in name]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), module(x), rtol=1e-5, atol=1e-5)


def test_half_maps_keep_their_type_and_float32_inside(fused):
    from irstd.compile.operators.torch_node import replaced
    from irstd.compile.operators.torch_ops import as_custom_operator, as_standard_operators

    module, x = fused
    with torch.no_grad():
        wanted = module.gate(x.half().float())
        for replacement in (as_custom_operator, as_standard_operators):
            with replaced(replacement):
                got = module.gate(x.half())
            assert got.dtype == torch.float16
            torch.testing.assert_close(got.float(), wanted, rtol=2**-10, atol=1e-3)


def test_other_replacements_end_with_the_block(fused):
    from irstd.compile.operators.torch_node import replaced

    module, x = fused
    seen = []

    def note(operator, plain, tensors, attributes):
        seen.append(operator)
        return plain(*tensors, **attributes)

    with replaced(note), torch.no_grad():
        first = module(x)
    with torch.no_grad():
        np.testing.assert_array_equal(first, module(x))
    assert seen == ["HaarGate", "SpectralSplit", "MSDeformAttn"]


def test_a_module_that_torch_cannot_export_is_named():
    from torch import nn

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(BuildError, match=r"^Branching: torch\.export refuses it \("):
        builder.export_program(Branching(), (1, 1, 4, 4), plugins=True)
