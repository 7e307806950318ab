"""The session on the genuine classes of one version, over an engine that computes."""

import gc
import logging
import threading
import weakref

import numpy as np
import pytest

from irstd.errors import BuildError, BundleMismatch, DeviceError, UsageError
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.sessions.tensorrt_session import open_plan
from irstd.runtime.tensorrt import engine as engines
from irstd.runtime.tensorrt.api import LOG
from tests.contract import recorded_runtime as said
from tests.contract.double import Script, tensorrt_double
from tests.contract.double_runtime import WORKSPACE_BYTES, Run, make_plan, runnable
from tests.contract.host_driver import HostDriver, no_images
from tests.contract.recorded import NO_CUDA

SHAPE = (1, 2, 6, 5)
REBUILD = "irstd-compile finish BUNDLE --rebuild"
PER_FRAME = ["launch_graph", "synchronize"]


def graph(shape=SHAPE, outputs=1):
    """A graph whose outputs are the input times 1, 2, ... plus the sum over the channels."""
    from onnx import TensorProto, helper

    kind, names = TensorProto.FLOAT, [f"mask{index}" for index in range(outputs)]
    out_shape = [shape[0], 1, *shape[2:]]
    nodes = [helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=1)]
    nodes += [
        helper.make_node("Mul", ["sum", f"gain{index}"], [name]) for index, name in enumerate(names)
    ]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [1], [1])]
    constants += [helper.make_tensor(f"gain{i}", kind, [], [i + 1.0]) for i in range(outputs)]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "sums",
        [value("image", kind, shape)],
        [value(name, kind, out_shape) for name in names],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def plan(trt):
    return make_plan(trt, graph())


@pytest.fixture
def driver():
    made = HostDriver()
    yield made
    gc.collect()
    assert not made.held, "not given back"


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)


def opened(trt, plan, driver, run=None, script=None):
    double = tensorrt_double(trt, script or Script(), runnable(driver, run))
    engines._loaded.clear()  # every double is another library, and all are called tensorrt
    return open_plan(double, plan, Device(driver, 0, no_images))


@pytest.mark.parametrize("shares_memory", [True, False])
@pytest.mark.parametrize("records", [True, False])
def test_frames_are_what_the_graph_computes(trt, plan, driver, image, shares_memory, records):
    driver.shares_memory = shares_memory
    session = opened(trt, plan, driver, Run(records=records))
    assert session.input_shape == SHAPE
    for scale in (1, 2, -3):
        (mask,) = session.run(image * np.float32(scale))
        np.testing.assert_allclose(mask, scale * image.sum(1, keepdims=True), rtol=1e-5)
    assert mask.dtype == np.float32
    session.close()
    session.close()
    with pytest.raises(BuildError, match="closed"):
        session.run(image)


def test_description_names_library_device_memory_and_launch(trt, plan, driver):
    session = opened(trt, plan, driver)
    facts = "Orin (sm_87), mapped memory, CUDA graph"
    assert session.description == f"tensorrt {trt.__version__}, {facts}"
    session.close()
    driver.shares_memory = False
    session = opened(trt, plan, driver)
    assert session.description.endswith("pinned memory, CUDA graph")
    session.close()


def test_plans_for_later_versions_may_load_their_runtime(trt, plan, driver):
    session = opened(trt, plan, driver)
    (runtime,) = session._execution._engine.trt.double.record["Runtime"]
    assert runtime.engine_host_code_allowed is True
    session.close()


def test_several_outputs_come_in_the_engines_order(trt, driver, image):
    session = opened(trt, make_plan(trt, graph(outputs=3)), driver)
    masks = session.run(image)
    for index, mask in enumerate(masks):
        np.testing.assert_allclose(mask, (index + 1) * image.sum(1, keepdims=True), rtol=1e-5)
    session.close()


@pytest.mark.parametrize(
    ("shares_memory", "records", "calls"),
    [
        (True, True, PER_FRAME),
        (False, True, PER_FRAME),
        (True, False, ["synchronize"]),
        (False, False, ["copy_in_async", "copy_out_async", "synchronize"]),
    ],
)
def test_a_frame_allocates_nothing(trt, plan, driver, image, shares_memory, records, calls):
    driver.shares_memory = shares_memory
    session = opened(trt, plan, driver, Run(records=records))
    first = session.run(image)
    del driver.calls[:]
    for _ in range(5):
        again = session.run(image)
    assert driver.calls == calls * 5
    assert again is first
    session.close()


@pytest.mark.parametrize("cause", ["engine", "driver"])
def test_a_fallback_from_graphs_is_reported_once(trt, plan, driver, image, caplog, cause):
    driver.records = cause != "driver"
    with caplog.at_level(logging.WARNING):
        session = opened(trt, plan, driver, Run(records=cause != "engine"))
    reason = "cannot run the engine" if cause == "engine" else "the NVIDIA driver has no CUDA"
    assert f"no CUDA graph: {'Tensor' if cause == 'engine' else ''}" in session.description
    assert reason in session.description
    assert "\n" not in session.description
    told = [r for r in caplog.records if "piece by piece" in r.message]
    assert len(told) == 1
    assert reason in told[0].message
    (mask,) = session.run(image)
    np.testing.assert_allclose(mask, image.sum(1, keepdims=True), rtol=1e-5)
    session.close()


def test_images_of_another_shape_dtype_or_thread_are_refused(trt, plan, driver, image):
    session = opened(trt, plan, driver)
    for wrong in (image[:, :1], image.astype(np.float64), image[0]):
        with pytest.raises(BuildError, match=r"got .*; wanted \(1, 2, 6, 5\) float32"):
            session.run(wrong)
    np.testing.assert_allclose(
        session.run(image[:, :, ::-1])[0], image.sum(1, keepdims=True)[:, :, ::-1], rtol=1e-5
    )
    errors = []

    def elsewhere():
        try:
            session.run(image)
        except UsageError as error:
            errors.append(str(error))

    in_thread(elsewhere)
    assert errors == ["the session belongs to the thread that opened it; open one in this thread"]
    session.close()


def execution_count(session):
    """How often the double behind a session has executed."""
    context = session._execution._context
    return session._execution._engine.trt.double.behind(context)._executions


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_another_thread_may_close_a_session(trt, plan, driver):
    session = opened(trt, plan, driver)
    in_thread(session.close)
    assert not driver.held


def test_sessions_of_several_threads_share_the_engine_and_nothing_else(trt, plan, driver):
    double = tensorrt_double(trt, Script(), runnable(driver))
    engines._loaded.clear()
    results, ready = {}, threading.Barrier(3, timeout=60)

    def work(scale):
        session = open_plan(double, plan, Device(driver, 0, no_images))
        ready.wait()
        image = np.full(SHAPE, scale, np.float32)
        results[scale] = [session.run(image)[0].copy() for _ in range(20)]
        ready.wait()
        session.close()

    threads = [threading.Thread(target=work, args=(scale,)) for scale in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for scale, masks in results.items():
        for mask in masks:
            np.testing.assert_array_equal(mask, np.float32(2 * scale))
    assert len(double.double.record["ICudaEngine"]) == 1
    assert len(double.double.record["IExecutionContext"]) == 3


def test_a_session_that_is_forgotten_is_freed(trt, plan, driver):
    session = opened(trt, plan, driver)
    gone = weakref.ref(session)
    assert driver.held
    del session
    gc.collect()
    assert gone() is None
    assert not driver.held


def test_each_goes_before_what_its_destructor_uses(trt, plan, driver):
    class Tracked:
        def __init__(self, name, genuine):
            self._name, self._genuine = name, genuine

        def __getattr__(self, name):
            return getattr(self._genuine, name)

        def __del__(self):
            driver.calls.append(self._name)

    session = opened(trt, plan, driver)
    execution = session._execution
    engine = execution._engine
    execution._context = Tracked("context", execution._context)
    engine.cuda_engine = Tracked("engine", engine.cuda_engine)
    engine._runtime = Tracked("runtime", engine._runtime)
    del execution, engine
    del driver.calls[:]
    session.close()
    memory = ["free_host", "free_host", "free_stream"]
    assert driver.calls == ["free_graph", "context", "engine", "runtime", *memory]


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (said.OTHER_VERSION_8, "another TensorRT built it"),
        (said.OTHER_VERSION_10, "another TensorRT built it"),
        (said.OTHER_GPU, "it was built on another GPU"),
        (said.NO_PLUGIN, "it needs a plugin library that is not loaded"),
    ],
)
def test_an_engine_that_does_not_load_says_why_and_what_to_do(trt, plan, driver, log, cause):
    with pytest.raises(BundleMismatch) as caught:
        opened(trt, plan, driver, script=Script(deserializes=False, deserialize_log=log))
    told = str(caught.value)
    assert told.startswith(f"TensorRT {trt.__version__} cannot load the engine ({cause}); ")
    assert REBUILD in told.splitlines()[0]
    for _, text in log:
        assert text in told


def test_an_engine_of_an_unknown_failure_shows_the_log(trt, plan, driver):
    with pytest.raises(BundleMismatch, match=r"cannot load the engine; .*log says nothing"):
        opened(trt, plan, driver, script=Script(deserializes=False, deserialize_log=()))


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x00" * 100, b"ftrt" + b"\xff" * 60])
def test_bytes_that_are_no_engine_are_refused(trt, driver, data):
    with pytest.raises(BundleMismatch, match="these bytes are no engine, or a damaged one"):
        opened(trt, data, driver)


def test_a_graph_in_place_of_an_engine_is_told(trt, driver):
    with pytest.raises(BundleMismatch, match=r"got an ONNX graph; wanted an engine.*finish"):
        opened(trt, graph(), driver)


def test_no_runtime_is_a_device_error(trt, plan, driver):
    script = Script(makes_runtime=False, start_log=NO_CUDA)
    with pytest.raises(DeviceError, match=r"(?s)does not start .*CUDA initialization failure"):
        opened(trt, plan, driver, script=script)


def test_no_memory_to_load_is_a_device_error(trt, plan, driver):
    with pytest.raises(DeviceError, match=r"(?s)no memory to load the engine: .*OutOfMemory"):
        opened(trt, plan, driver, script=Script(deserializes=False, deserialize_log=said.NO_MEMORY))


def test_no_memory_for_a_context_names_what_is_wanted_and_free(trt, plan, driver):
    driver.total_bytes = 3 << 20
    wanted = rf"activations \({WORKSPACE_BYTES >> 20} MiB wanted, 3 MiB free\): free some"
    with pytest.raises(DeviceError, match=rf"(?s){wanted}.*17920000000 bytes"):
        opened(trt, plan, driver, Run(makes_context=False))


@pytest.mark.parametrize("total_bytes", [0, 300])
def test_no_memory_for_a_buffer_names_the_tensor(trt, plan, driver, total_bytes):
    driver.shares_memory, driver.total_bytes = False, total_bytes
    with pytest.raises(DeviceError, match="no memory for the tensor image"):
        opened(trt, plan, driver)


@pytest.mark.parametrize("log", [said.NO_MEMORY, ()])
def test_an_execution_that_fails_is_a_device_error_with_the_log(trt, plan, driver, log):
    run = Run(executes=lambda count: False, execute_log=log)
    with pytest.raises(DeviceError, match="TensorRT cannot run the engine") as caught:
        opened(trt, plan, driver, run)
    assert ("out of memory; free some" in str(caught.value)) == bool(log)
    assert all(text in str(caught.value) for _, text in log)


def test_an_execution_that_fails_later_leaves_a_session_that_still_works(trt, plan, driver, image):
    failing = set()
    run = Run(records=False, executes=lambda count: count not in failing)
    session = opened(trt, plan, driver, run)
    before = session.run(image)[0].copy()
    failing.add(execution_count(session))
    with pytest.raises(DeviceError, match="cannot run the engine"):
        session.run(image)
    failing.clear()
    np.testing.assert_array_equal(session.run(image)[0], before)
    session.close()


def test_a_fault_on_the_device_is_a_device_error(trt, plan, driver, image):
    session = opened(trt, plan, driver)
    driver.fault = "an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="illegal memory access"):
        session.run(image)
    session.close()


def test_a_fault_of_the_first_run_frees_everything(trt, plan, driver):
    driver.fault = "an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="illegal memory access"):
        opened(trt, plan, driver)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (Run(takes_addresses=False), "TensorRT refuses the address of image"),
        (Run(loses_addresses=True), "no address for image, mask0"),
        (Run(kinds={"image": "HALF"}), "tensor image is HALF, LINEAR, on the DEVICE; wanted FLOAT"),
        (Run(kinds={"mask0": "INT8"}), "tensor mask0 is INT8"),
        (Run(layouts={"mask0": "CHW32"}), "tensor mask0 is FLOAT, CHW32"),
        (Run(places={"mask0": "HOST"}), "on the HOST; wanted FLOAT, LINEAR, on the DEVICE"),
        (Run(extra_tensors=["scale"]), "2 inputs; wanted one image"),
    ],
)
def test_engines_that_are_no_plain_float32_network_are_refused(trt, plan, driver, run, words):
    with pytest.raises(BuildError, match=words):
        opened(trt, plan, driver, run)


@pytest.mark.parametrize(
    "shape", [(1, 2, "height", 5), ("batch", 2, 6, 5), (2, 2, 6, 5), (1, 2, 6)]
)
def test_engines_of_another_input_are_refused(trt, driver, shape):
    with pytest.raises(BuildError, match=r"wanted a static \(1, C, H, W\)"):
        opened(trt, make_plan(trt, graph(shape)), driver)


def test_the_log_of_an_earlier_failure_is_not_told_again(trt, plan, driver):
    LOG.add("error", "of long ago")
    with pytest.raises(BundleMismatch) as caught:
        opened(trt, plan, driver, script=Script(deserializes=False))
    assert "of long ago" not in str(caught.value)
