"""What every test may ask for: real data and weights where they are, a GPU where there is one.

Environment variables (none is needed):

    IRSTD_DATA      folder with irstd_1k/, nudt_sirst/, sirst_v1/; else ../shared/data
    IRSTD_WEIGHTS   folder with public checkpoints; else ../shared/weights
    IRSTD_REQUIRE   comma-separated from gpu, data, weights, nvcc, nvrtc, sass (the disassembler of
                    make kernel-tools), bindings (make contract-wheels), rtx (TensorRT for RTX):
                    what may not be skipped as absent
"""

import ctypes
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Threads that wait for each other under pytest-xdist cost a factor of ten; set before any import
# of a library that reads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

# Tests started in the background of a shell ignore Ctrl-C, and so would the processes they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = ("gpu", "data", "weights", "nvcc", "nvrtc", "sass", "bindings", "rtx")

hypothesis.settings.register_profile("irstd", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("irstd")


def pytest_configure(config: pytest.Config) -> None:
    if unknown := required() - set(OPTIONAL):
        raise pytest.UsageError(f"IRSTD_REQUIRE: unknown {sorted(unknown)}; of {list(OPTIONAL)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_gpu():
        absent("gpu", "no NVIDIA GPU is usable here")


def required() -> set[str]:
    """What IRSTD_REQUIRE names."""
    return {name.strip() for name in os.environ.get("IRSTD_REQUIRE", "").split(",") if name.strip()}


def absent(what: str, reason: str) -> None:
    """Skip the test, or fail it if the environment says that `what` must be there."""
    if what in required():
        pytest.fail(f"IRSTD_REQUIRE={what}, but {reason}", pytrace=False)
    pytest.skip(reason)


def has_gpu() -> bool:
    """Whether an NVIDIA driver with at least one device answers."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return found and count.value > 0


def find_folder(what: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / what)
    if not folder.is_dir():
        absent(what, f"{folder} is not there; set {variable}")
    return folder


@pytest.fixture(scope="session")
def require() -> Callable[[str, str], None]:
    """Return `absent`: a function (what, reason) for tests that find something missing."""
    return absent


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; skips where there is none."""
    return find_folder("data", "IRSTD_DATA")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder of public checkpoints; skips where there is none."""
    return find_folder("weights", "IRSTD_WEIGHTS")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_every_run() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  for libraries that use the global generator
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function (code, *arguments) -> standard output of a fresh interpreter.

    It runs in an empty folder, so that nothing is found by accident beside the working directory.
    """
    empty = tmp_path_factory.mktemp("empty")
    search = [
        str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def fused_graph(size_hw: tuple[int, int] = (32, 32), heads: int = 2, channels: int = 16) -> Any:
    """Return a network with each fused operator once; stride 2."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(11)
    node, domain, points, c = helper.make_node, "irstd", 4, channels
    height, width = size_hw[0] // 2, size_hw[1] // 2
    shapes = {
        "first": (c, 1, 3, 3), "first_bias": (c,), "gate": (4, 2, 7, 7), "gate_bias": (4,),
        "down": (c, c, 3, 3), "split_gate": (2, 2, 7, 7), "split_bias": (2,), "gamma": (2, c),
        "value": (c, c, 1, 1), "offsets": (heads * points * 2, c, 1, 1),
        "logits": (heads * points, c, 1, 1), "middle": (c, c, 3, 3), "head": (1, c, 1, 1),
    }  # fmt: skip
    constants: dict[str, Any] = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()
    }
    constants |= {
        "cutoff": rng.uniform(0.05, 0.5, c).astype(np.float32),
        "tokens": np.int64([1, heads, c // heads, height * width]),
        "places": np.int64([1, heads, 1, points, 2, height * width]),
        "scores": np.int64([1, heads, 1, points, height * width]),
        "map": np.int64([1, height, width, c]),
        "scales": np.float32([1, 1, 2, 2]),
    }

    def tokens(name: str, shape: str, order: list[int]) -> list[Any]:
        return [
            node("Conv", ["f", name], [f"{name}_m"], name),
            node("Reshape", [f"{name}_m", shape], [f"{name}_r"]),
            node("Transpose", [f"{name}_r"], [f"{name}_t"], perm=order),
        ]

    attention = {"level_hw": [height, width], "query_hw": [height, width], "domain": domain}
    nodes = [
        node("Conv", ["image", "first", "first_bias"], ["a"], "first", pads=[1] * 4),
        node("Relu", ["a"], ["b"], "relu1"),
        node("HaarGate", ["b", "gate", "gate_bias"], ["c"], "haar", domain=domain),
        node("Conv", ["c", "down"], ["d"], "down", strides=[2, 2], pads=[1] * 4),
        node("Relu", ["d"], ["e"], "relu2"),
        node("SpectralSplit", ["e", "cutoff", "split_gate", "split_bias", "gamma"], ["f"], "split",
             domain=domain),
        *tokens("value", "tokens", [0, 3, 1, 2]),
        *tokens("offsets", "places", [0, 5, 1, 2, 3, 4]),
        *tokens("logits", "scores", [0, 4, 1, 2, 3]),
        node("MSDeformAttn", ["value_t", "offsets_t", "logits_t"], ["g"], "attention", **attention),
        node("Reshape", ["g", "map"], ["g1"]),
        node("Transpose", ["g1"], ["g2"], perm=[0, 3, 1, 2]),
        node("Add", ["f", "g2"], ["h"], "add"),
        node("Conv", ["h", "middle"], ["i"], "middle", pads=[1] * 4),
        node("Relu", ["i"], ["j"], "relu3"),
        node("Conv", ["j", "head"], ["k"], "head"),
        node("Resize", ["k", "", "scales"], ["mask"], "resize", mode="linear"),
    ]  # fmt: skip
    image, mask = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, *size_hw))
        for name in ("image", "mask")
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "fused", [image], [mask], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture(scope="session")
def make_fused() -> Callable[..., Any]:
    """Return `fused_graph`, for test files, which cannot import this one."""
    return fused_graph
