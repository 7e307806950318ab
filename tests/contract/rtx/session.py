"""The session on the genuine classes of TensorRT for RTX, and its genuine library without a GPU.

test_session_rtx.py runs this: two TensorRTs in one process are unsafe.
"""

import contextlib
import ctypes
import logging

import numpy as np
import pytest

from irstd.errors import BundleMismatch, DeviceError, UsageError
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.sessions import library_version, open_session
from irstd.runtime.sessions.tensorrt_session import open_plan
from irstd.runtime.tensorrt import engine as engines
from irstd.runtime.tensorrt.api import tensorrt_logger
from irstd.runtime.tensorrt.rtx import load_tensorrt_rtx
from tests.contract.checks.session import SHAPE, graph
from tests.contract.double import Script, tensorrt_double
from tests.contract.double_runtime import Run, make_plan, runnable_rtx
from tests.contract.host_driver import HostDriver, no_images


@pytest.fixture(scope="module")
def rtx():
    return load_tensorrt_rtx()


@pytest.fixture(scope="module")
def plan(rtx):
    return make_plan(rtx, graph())


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRSTD_CACHE", str(tmp_path))
    return tmp_path / "tensorrt_rtx"


def opened(rtx, plan, run=None, script=None):
    driver = HostDriver(shares_memory=False)
    double = tensorrt_double(rtx, script or Script(), runnable_rtx(driver, run))
    engines._loaded.clear()
    return open_plan(double, plan, Device(driver, 0, no_images))


def double_of(session):
    return session._execution._engine.trt.double


@pytest.mark.parametrize("capturable", [True, False])
def test_frames_are_what_the_graph_computes(rtx, plan, image, capturable):
    session = opened(rtx, plan, Run(capturable=capturable))
    for scale in (1, -2):
        (mask,) = session.run(image * np.float32(scale))
        np.testing.assert_allclose(mask, scale * image.sum(1, keepdims=True), rtol=1e-5)
    launch = "CUDA graph" if capturable else "no CUDA graph: TensorRT for RTX says that its work"
    start = f"tensorrt_rtx {rtx.__version__}, Orin (sm_87), pinned memory, {launch}"
    assert session.description.startswith(start)
    session.close()


def test_what_the_first_run_compiles_is_kept_for_the_next(rtx, plan, image, cache):
    opened(rtx, plan).close()
    (file,) = cache.iterdir()
    assert file.read_bytes() == b"compiled"
    written = file.stat().st_mtime_ns
    session = opened(rtx, plan)
    assert double_of(session).record["IRuntimeCache"][0]._data == b"compiled"
    session.close()
    assert file.stat().st_mtime_ns == written
    opened(rtx, make_plan(rtx, graph(outputs=2))).close()
    assert len(list(cache.iterdir())) == 2


def test_a_cache_of_another_driver_is_compiled_again(rtx, plan, image, cache, caplog):
    opened(rtx, plan).close()
    (file,) = cache.iterdir()
    file.write_bytes(b"of another driver")
    with caplog.at_level(logging.INFO):
        session = opened(rtx, plan, Run(takes_cache=False))
    assert "compiled again" in caplog.text
    assert file.read_bytes() == b"compiled"
    session.close()


def test_a_cache_that_cannot_be_written_is_told_and_does_without(rtx, plan, image, cache, caplog):
    cache.write_text("a file where a folder should be")
    session = opened(rtx, plan)
    assert "the runtime cache cannot be written" in caplog.text
    session.run(image)
    session.close()


def test_no_runtime_configuration_is_a_device_error(rtx, plan):
    with pytest.raises(DeviceError, match="makes no runtime cache"):
        opened(rtx, plan, Run(makes_config=False))


def test_no_memory_is_a_device_error(rtx, plan):
    with pytest.raises(DeviceError, match=r"no memory for the engine's activations \(1 MiB wanted"):
        opened(rtx, plan, Run(makes_context=False))


def test_tensorrt_beside_it_is_refused(rtx):
    with pytest.raises(
        UsageError, match="tensorrt_rtx is loaded, and TensorRT in the same process"
    ):
        open_session("tensorrt", b"")


def test_the_version_is_the_librarys(rtx):
    assert library_version("tensorrt_rtx") == f"tensorrt_rtx {rtx.__version__}"


@pytest.fixture(scope="module")
def genuine_plan(rtx):
    """An engine that the genuine library has built, which needs no GPU."""
    logger = tensorrt_logger(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(network, logger).parse(graph())
    return bytes(builder.build_serialized_network(network, builder.create_builder_config()))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda plan: plan, DeviceError, "finds no GPU, or a driver older than its CUDA"),
        (lambda plan: plan[: len(plan) // 2], BundleMismatch, "or a damaged one"),
        (lambda plan: plan[:5], BundleMismatch, "or a damaged one"),
        (lambda plan: b"garbage" * 100, BundleMismatch, "or a damaged one"),
        (lambda plan: b"ftrt" + plan[4:], BundleMismatch, "or a damaged one"),
        (lambda plan: graph(), BundleMismatch, "got an ONNX graph; wanted an engine"),
    ],
    ids=["whole", "half", "short", "garbage", "of TensorRT", "graph"],
)
def test_what_the_genuine_library_says_without_a_gpu(rtx, genuine_plan, damage, error, words):
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a driver")
    driver = HostDriver()
    with pytest.raises(error, match=words) as caught:
        open_plan(rtx, damage(genuine_plan), Device(driver, 0, no_images))
    assert "TensorRT for RTX" in str(caught.value) or "ONNX" in str(caught.value)
    assert not driver.held
