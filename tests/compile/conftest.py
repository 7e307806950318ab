"""Graphs that several tests of this folder rewrite: the real networks, exported once each."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

VARIANTS = [
    (network, norm, channels)
    for network in ("acm", "alcnet")
    for norm in ("batch", "group")
    for channels in (1, 3)
]


def _randomise(module: "nn.Module", seed: int) -> None:
    """Give norms statistics as training does, so that folding them has something to get wrong."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for child in module.modules():
        if isinstance(child, torch.nn.BatchNorm2d | torch.nn.GroupNorm):
            child.weight.data.uniform_(0.5, 1.5, generator=generator)
            child.bias.data.normal_(0, 0.2, generator=generator)
        if isinstance(child, torch.nn.BatchNorm2d):
            child.running_mean.normal_(0, 0.3, generator=generator)
            child.running_var.uniform_(2, 6, generator=generator)
        if isinstance(child, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and child.bias is not None:
            child.bias.data.normal_(0, 0.2, generator=generator)


@pytest.fixture(scope="session")
def make_module() -> Callable[..., "nn.Module"]:
    """Return a function (network, norm, channels) -> torch module in eval mode."""
    torch = pytest.importorskip("torch")
    from irstd.compile.networks import NETWORKS

    torch.set_num_threads(1)

    @functools.cache
    def make(network: str, norm: str, channels: int) -> Any:
        torch.manual_seed(0)
        module = NETWORKS[network].build(in_channels=channels, norm=norm, input_norm_eps=0.9)
        _randomise(module, seed=1)
        return module.eval()

    return make


@pytest.fixture(scope="session")
def make_graph(make_module: Callable[..., Any]) -> Callable[..., "ModelProto"]:
    """Return a function (network, norm, channels) -> its export of symbolic size."""
    from irstd.compile.export import export

    @functools.cache
    def make(network: str, norm: str, channels: int) -> Any:
        return export(make_module(network, norm, channels), channels)

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[..., NDArray[np.float32]]:
    """Return a function (channels, height, width) -> a noisy image with a bright corner."""

    def make(channels: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        image = rng.normal(0, 1, (1, channels, height, width)).astype(np.float32)
        image[..., 0, 0] = 8.0
        image[..., -1, -1] = -8.0
        return image

    return make


@pytest.fixture
def public_weights() -> Callable[[str], Path]:
    """Return a function that finds a public checkpoint beside the repository, or skips."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "weights"

    def find(name: str) -> Path:
        if not (folder / name).is_file():
            pytest.skip(f"public checkpoint {name} is not here")
        return folder / name

    return find


@pytest.fixture(scope="session")
def make_small() -> Callable[..., "ModelProto"]:
    """Return a function that builds a checked graph from nodes and constants.

    The input is "image" (1, channels, height, width), the output "logits" of the same size.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def make(
        nodes: list[Any],
        constants: dict[str, Any] | None = None,
        *,
        channels: int = 1,
        size_hw: tuple[Any, Any] = (9, 12),
        out_channels: int = 1,
        opset: int = 17,
        check: bool = True,
    ) -> Any:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, channels, *size_hw))
        logits = helper.make_tensor_value_info(
            "logits", TensorProto.FLOAT, (1, out_channels, None, None)
        )
        tensors = [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in (constants or {}).items()
        ]
        graph = helper.make_graph(nodes, "small", [image], [logits], tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        if check:
            onnx.checker.check_model(model, full_check=True)
        return model

    return make
