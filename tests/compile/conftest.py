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


def tiny_graph(
    size_hw: tuple[Any, Any] = (32, 32), *, channels: int = 1, ends_in: str = "logits"
) -> "ModelProto":
    """Return a network with every part that a build treats in its own way, which finds bright dots.

    BatchNorm on the image, strided convolution, max-pool, residual addition, a gate on a pooled
    vector, transposed convolution, a head of two and a bilinear resize; stride 4, 24 channels.
    Channel 0 carries the brightness and decides, the others are noise with seeded weights.

    Args:
        size_hw: Numbers, or names for symbolic sides.
        channels: Of the image.
        ends_in: "logits", "sigmoid", or "probabilities" made by something else than a Sigmoid.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(5)
    node = helper.make_node

    def noisy(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.025, shape).astype(np.float32)

    first, left, right, up = (
        noisy(24, channels, 3, 3),
        noisy(24, 24, 3, 3),
        noisy(24, 24, 3, 3),
        noisy(24, 24, 4, 4),
    )
    first[0] = 1 / (9 * channels)
    left[0, 0, 1, 1] += 1
    up[0, 0] += np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]).astype(np.float32)
    middle = noisy(24, 24, 3, 3)
    middle[0, 0, 1, 1] += 1
    head = noisy(1, 24, 1, 1) / 4
    head[0, 0] = 5.0
    constants = {
        "gamma": np.full(channels, 1.5, np.float32),
        "beta": np.full(channels, 0.25, np.float32),
        "mean": np.full(channels, -0.5, np.float32),
        "variance": np.full(channels, 2.0, np.float32),
        "first": first, "first_bias": noisy(24), "left": left, "right": right,
        "right_bias": noisy(24), "gate": noisy(24, 24, 1, 1), "up": up, "up_bias": noisy(24),
        "middle": middle, "head": head, "head_bias": np.float32([-3.5]),
        "scales": np.float32([1, 1, 2, 2]),
    }  # fmt: skip
    nodes = [
        node("BatchNormalization", ["image", "gamma", "beta", "mean", "variance"], ["x"], "norm"),
        node("Conv", ["x", "first", "first_bias"], ["a"], "first", strides=[2, 2],
             pads=[0, 0, 1, 1]),
        node("Relu", ["a"], ["b"], "relu1"),
        node("MaxPool", ["b"], ["c"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("Conv", ["c", "left"], ["d"], "left", pads=[1] * 4),
        node("Relu", ["d"], ["e"], "relu2"),
        node("Conv", ["e", "right", "right_bias"], ["f"], "right", pads=[1] * 4),
        node("Add", ["f", "c"], ["g"], "add"),
        node("Relu", ["g"], ["h"], "relu3"),
        node("GlobalAveragePool", ["h"], ["i"], "squeeze"),
        node("Conv", ["i", "gate"], ["j"], "gate"),
        node("Sigmoid", ["j"], ["k"], "sigmoid"),
        node("Mul", ["h", "k"], ["l"], "excite"),
        node("ConvTranspose", ["l", "up", "up_bias"], ["m"], "up", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["m"], ["n"], "relu4"),
        node("Conv", ["n", "middle"], ["n1"], "middle", pads=[1] * 4),
        node("Relu", ["n1"], ["n2"], "relu5"),
        node("Conv", ["n2", "head", "head_bias"], ["o"], "head"),
        node("Resize", ["o", "", "scales"], ["p"], "resize", mode="linear",
             coordinate_transformation_mode="half_pixel"),
    ]  # fmt: skip
    last = {"logits": "Identity", "sigmoid": "Sigmoid", "probabilities": "HardSigmoid"}[ends_in]
    nodes.append(node(last, ["p"], ["mask"], "last"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, channels, *size_hw))
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, (1, 1, *size_hw))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [mask], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., "ModelProto"]:
    """Return `tiny_graph`, for test files, which cannot import this one."""
    pytest.importorskip("onnx")
    return tiny_graph


NORMALIZE = "80,40"


@pytest.fixture
def tiny_onnx(tmp_path: Path, make_tiny: Callable[..., Any]) -> Callable[..., Path]:
    """Return a function that writes a tiny graph and returns its path; trained with "80,40"."""

    def write(name: str = "tiny.onnx", **options: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(make_tiny(**options).SerializeToString())
        return path

    return write


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a data folder of noisy frames with two bright dots each."""
    import cv2

    def make(
        name: str = "data",
        frames: int = 6,
        size_hw: tuple[int, int] = (32, 32),
        *,
        masks: bool = True,
        bit_depth: int = 8,
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        dtype, factor = (np.uint8, 1) if bit_depth == 8 else (np.uint16, 1 << (bit_depth - 8))
        for folder in ("images", "masks") if masks else ("images",):
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        for index in range(frames):
            image = rng.normal(60, 8, size_hw).clip(0, 255)
            mask = np.zeros(size_hw, np.uint8)
            for _ in range(2):
                y, x = (int(rng.integers(4, side - 4)) for side in size_hw)
                image[y - 1 : y + 2, x - 1 : x + 2] += 150
                mask[y - 1 : y + 2, x - 1 : x + 2] = 255
            stored = (image.clip(0, 255) * factor).astype(dtype)
            cv2.imwrite(str(tmp_path / name / "images" / f"{index:03d}.png"), stored)
            if masks:
                cv2.imwrite(str(tmp_path / name / "masks" / f"{index:03d}.png"), mask)
        return tmp_path / name

    return make


@pytest.fixture
def compile_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, Any, str]]:
    """Return a function that runs `irstd-compile ... --json` in this process.

    It returns the exit code, the one JSON object of standard output, and standard error. The cache
    is a folder of the test, and engines are timed as briefly as can be.
    """
    import json

    from irstd.compile import command
    from irstd.compile.builders import cpu

    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cpu, "ROUNDS", 2)
    monkeypatch.setattr(cpu, "WARM_UP_ROUNDS", 1)

    def run(*words: object) -> tuple[int, Any, str]:
        code = command.main([*map(str, words), "--json"])
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        assert len(lines) == 1, printed.out
        return code, json.loads(lines[0]), printed.err

    return run


@pytest.fixture
def tiny(tiny_onnx: Callable[..., Path]) -> list[Any]:
    """Return SOURCE and the flag that a foreign one needs."""
    return [tiny_onnx(), "--normalize", NORMALIZE]


@pytest.fixture
def build(
    tiny_onnx: Callable[..., Path],
    make_data: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Return a function that builds the tiny network, by default to fp32 with labelled data."""
    from irstd.compile import build_bundle
    from irstd.compile.builders import cpu

    monkeypatch.setattr(cpu, "ROUNDS", 2)
    monkeypatch.setattr(cpu, "WARM_UP_ROUNDS", 1)
    data = make_data()

    def run(out: str = "tiny.irstd", source: Path | None = None, **flags: Any) -> Any:
        flags = {"normalize": NORMALIZE, "data": data, "cache": tmp_path / "cache", **flags}
        return build_bundle(source or tiny_onnx(), tmp_path / out, **flags)

    return run


_BUILT: dict[str, bytes] = {}


@pytest.fixture
def built(build: Callable[..., Any], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function (precision) -> a fresh copy of a bundle of the tiny network.

    Built once a process, on labelled frames.
    """

    def copy(precision: str) -> Path:
        path = tmp_path / "tiny.irstd"
        if precision not in _BUILT:
            _BUILT[precision] = build(precision=precision).path.read_bytes()
        path.write_bytes(_BUILT[precision])
        return path

    return copy


@pytest.fixture
def bundle(built: Callable[[str], Path]) -> Path:
    """Return an INT8 bundle of the tiny network, verified on labelled frames."""
    return built("int8")
