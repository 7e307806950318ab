"""Bundles and graphs that the runtime's tests share; none of them needs weights or data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd.bundle import write_bundle
from irstd.manifest import EngineChoice, Manifest
from irstd.types import InputSpec, Precision

SIZE = 32


def make_spec(**changes: Any) -> InputSpec:
    """A one-channel 32x32 input with mean 100 and standard deviation 50."""
    values: dict[str, Any] = {
        "height": SIZE,
        "width": SIZE,
        "scale": (1 / 50,),
        "offset": (-2.0,),
        "pad_level": (100.0,),
    }
    return InputSpec(**{**values, **changes})


def tried(session: str, **changes: Any) -> EngineChoice:
    values: dict[str, Any] = {
        "session": session,
        "library": f"{session} 1.0",
        "member": "model.onnx",
        "median_ms": 1.0,
        "max_abs_error": 0.0,
        "passed": True,
        "chosen": True,
        "reason": "fastest that passed",
    }
    return EngineChoice(**{**values, **changes})


@pytest.fixture
def spec() -> Callable[..., InputSpec]:
    return make_spec


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle whose "graph" the fake engine runs: bright pixels (level above 150) score."""

    def make(
        engines: tuple[EngineChoice, ...] | None = None,
        *,
        input_spec: InputSpec | None = None,
        model: bytes | None = None,
        target: str = "cpu",
        name: str = "fake.irstd",
    ) -> Path:
        taken = input_spec or make_spec()
        graph = {"input_shape": taken.shape, "gain": 4.0, "bias": -4.0}
        manifest = Manifest(
            network="fake",
            input=taken,
            threshold=0.5,
            precision=Precision.FP32,
            target=target,
            model="model.onnx",
            reference="model.onnx",
            engines=(tried("fake"),) if engines is None else engines,
            global_pooling=False,
            calibration=None,
            int8_form=None,
            licences={},
            resolved={},
            sdk_version="0.1.0",
        )
        path = tmp_path / name
        write_bundle(path, manifest, {"model.onnx": model or json.dumps(graph).encode()})
        return path

    return make


@pytest.fixture
def make_choice() -> Callable[..., EngineChoice]:
    return tried


@pytest.fixture(scope="session")
def onnx_affine() -> bytes:
    """A graph for the real engines: logits = 4 image - 4, 32x32, one channel."""
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 1, SIZE, SIZE]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "gain"], ["scaled"]),
            helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        ],
        "affine",
        [helper.make_tensor_value_info("image", tensor, shape)],
        [helper.make_tensor_value_info("logits", tensor, shape)],
        [
            onnx.numpy_helper.from_array(np.array(4, np.float32), "gain"),
            onnx.numpy_helper.from_array(np.array(-4, np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    serialized: bytes = helper.make_model(
        graph, opset_imports=opset, ir_version=8
    ).SerializeToString()
    return serialized


@pytest.fixture
def frame() -> np.ndarray:
    """A dark 32x32 frame with one target of 2x2 px whose centre is at y 10.5, x 20.5."""
    image = np.full((SIZE, SIZE), 80, np.uint8)
    image[10:12, 20:22] = 220
    return image
