"""The default scenes are hard enough to tell a good network from a bad one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from irstd.metrics import evaluate
from irstd.simulate import default_scenes

Network = Callable[[NDArray[Any]], NDArray[np.float32]]


def check_difficulty(network: Network, count: int) -> None:
    scenes = default_scenes(count)
    logits = [network(scene.frame) for scene in scenes]
    maps = [(1 / (1 + np.exp(-np.clip(z, -80, 80)))).astype(np.float32) for z in logits]
    masks = [scene.mask for scene in scenes]

    usual, low = (evaluate(maps, masks, threshold) for threshold in (0.5, 0.1))
    assert 60 <= usual.pd <= 95
    assert low.fa >= 10 * usual.fa
    assert low.fa > 10


def test_shipped_acm_finds_most_targets_and_a_low_threshold_costs_false_alarms(root: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = root / "compile" / "weights" / "acm.onnx"
    if not path.is_file():
        pytest.skip("no weights are shipped yet")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    mean, std = json.loads(session.get_modelmeta().custom_metadata_map["irstd.normalize"])

    def network(frame: NDArray[Any]) -> NDArray[np.float32]:
        image = ((frame.astype(np.float32) - mean) / std)[None, None].astype(np.float32)
        logits: NDArray[np.float32] = session.run(None, {"image": image})[0][0, 0]
        return logits

    check_difficulty(network, count=200)


@pytest.mark.parametrize(
    ("network", "file"), [("acm", "acm_sirst3_point.pth.tar"), ("alcnet", "alcnet_sirst3.pth.tar")]
)
def test_public_networks_find_it_as_hard(weights_root: Path, network: str, file: str) -> None:
    torch = pytest.importorskip("torch")
    from irstd.compile.checkpoint import load_checkpoint

    loaded = load_checkpoint(network, weights_root / file).module

    def run(frame: NDArray[Any]) -> NDArray[np.float32]:
        image = torch.from_numpy((frame.astype(np.float32) - 95.010) / 41.511)[None, None]
        with torch.inference_mode():
            logits: NDArray[np.float32] = loaded(image)[0, 0].numpy()
        return logits

    check_difficulty(run, count=60)
