"""A bundle whose engine is a formula, and a detector whose clock is a number: no waiting."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irstd.bundle import write_bundle
from irstd.manifest import EngineChoice, Manifest
from irstd.types import Detections, InputSpec, Precision

SIDE = 64


@pytest.fixture
def write_toy(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle that finds pixels above 150; its engine needs no library."""

    def write(name: str = "toy.irstd", *, level: float = 150.0, bit_depth: int = 8) -> Path:
        spec = InputSpec(SIDE, SIDE, (1.0,), (-level,), (0.0,), bit_depth=bit_depth)
        engine = EngineChoice("fake", "fake", "model.onnx", 1.0, 0.0, True, True, "the only one")
        manifest = Manifest(
            network="toy",
            input=spec,
            threshold=0.5,
            precision=Precision.FP32,
            target="cpu",
            model="model.onnx",
            reference="model.onnx",
            engines=(engine,),
            global_pooling=False,
            calibration=None,
            int8_form=None,
            licences={},
            resolved={},
            sdk_version="0",
        )
        graph = {"input_shape": [1, 1, SIDE, SIDE], "gain": 0.1}
        write_bundle(tmp_path / name, manifest, {"model.onnx": json.dumps(graph).encode()})
        return tmp_path / name

    return write


@dataclass
class FakeClock:
    """Seconds that pass only when somebody lets them."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Times:
    pre_ms: float
    infer_ms: float
    post_ms: float


class FakeDetector:
    """Takes `cost_ms(n)` on the fake clock for its n-th frame: 5 % pre, 90 % engine, 5 % post."""

    def __init__(self, clock: FakeClock, cost_ms: Callable[[int], float]) -> None:
        self.clock = clock
        self.cost_ms = cost_ms
        self.seen: list[int] = []
        self.last_timing = Times(0.0, 0.0, 0.0)

    def __call__(self, frame: np.ndarray) -> Detections:
        cost = self.cost_ms(len(self.seen))
        self.seen.append(int(frame[0, 0]))
        self.clock.now_s += cost / 1e3
        self.last_timing = Times(0.05 * cost, 0.9 * cost, 0.05 * cost)
        return Detections.empty()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_detector(clock: FakeClock) -> Callable[[Callable[[int], float]], FakeDetector]:
    return lambda cost_ms: FakeDetector(clock, cost_ms)


@pytest.fixture
def frames() -> list[np.ndarray]:
    return [np.full((4, 4), index, np.uint8) for index in range(5)]


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a labelled folder: one bright 3x3 target a frame, which the toy bundle finds."""
    import cv2

    def write(count: int = 4, name: str = "data", *, masks: bool = True, side: int = SIDE) -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        for index in range(count):
            frame, mask = np.full((side, side), 40, np.uint8), np.zeros((side, side), np.uint8)
            at = np.s_[5 + 2 * index : 8 + 2 * index, 10:13]
            frame[at], mask[at] = 200, 255
            cv2.imwrite(str(folder / "images" / f"{index}.png"), frame)
            if masks:
                cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
        return folder

    return write


@pytest.fixture(scope="session")
def example() -> Callable[..., dict[str, Any]]:
    """Return the reports of a pretended measurement, by kind."""

    def make(kind: str = "latency", **changes: Any) -> dict[str, Any]:
        spread = {"mean": 4.0, "std": 0.5, "min": 3.0, "p50": 4.0, "p90": 5.0, "p95": 5.5}
        report: dict[str, Any] = {
            "schema_version": 1,
            "kind": kind,
            "command": f"irstd-bench {kind} toy.irstd",
            "bundle_sha256": "ab" * 32,
            "network": "toy",
            "precision": "int8",
            "calibration": "minmax",
            "engine": "openvino 2026.4.1",
            "threads": 1,
            "numbers": "development",
            "environment": {"cpu_model": "A", "cpu_cores": 2, "device": None, "machine": "x86_64"},
            "validity": {"ok": True, "publishable": False, "reasons": [], "warnings": []},
            "footage": {"sha256": "cd" * 32},
            "latency_ms": {**spread, "p99": 8.0, "p99_9": 9.0, "max": 20.0},
            "stages_ms": {"pre": 0.25, "infer": 3.5, "post": 0.25},
            "throughput_fps": 250.0,
            "guaranteed_fps": 125.0,
            "jitter_ms": {"std": 0.1, "p99": 0.4},
            "data": "../somewhere/irstd_1k",
            "data_sha256": "ef" * 32,
        }
        counts = ("rate_hz", "delivered", "late", "dropped", "longest_miss_run")
        scores = ("iou", "niou", "pd", "fa", "hse_p", "hse_t", "hse", "targets", "threshold")
        report |= dict.fromkeys(counts, 0) | {"rate_hz": 30.0, "delivered": 900}
        report |= {name: 50.0 + index for index, name in enumerate(scores)}
        return report | changes

    return make
