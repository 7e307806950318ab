"""Plans without weights, on the genuine classes of one version: loaded, refitted, run, refused."""

import numpy as np
import pytest

from irstd.compile.builders.tensorrt import PlanSettings, build_plan
from irstd.errors import BundleMismatch, DeviceError
from irstd.runtime.kernels.cuda.driver import Device
from irstd.runtime.sessions.tensorrt_session import open_plan
from irstd.runtime.tensorrt import engine as engines
from tests.contract.double import Plan, Script, tensorrt_double
from tests.contract.double_runtime import Run, runnable
from tests.contract.host_driver import HostDriver, no_images


@pytest.fixture
def stripped(trt, model):
    return build_plan(model, PlanSettings(strip_weights=True), trt=tensorrt_double(trt)).plan


@pytest.fixture
def opened(trt):
    """A function (plan, weights, script) -> a session; it ends with the test."""
    driver, sessions = HostDriver(), []

    def run(plan, weights=None, script=None):
        double = tensorrt_double(trt, script, runnable(driver, Run()))
        engines._loaded.clear()  # every double is another library, and all are called tensorrt
        made = open_plan(double, plan, Device(driver, 0, no_images), weights=weights)
        sessions.append(made)
        return made

    yield run
    for session in sessions:
        session.close()
    assert not driver.held, "not given back"


def test_refitted_it_computes_what_the_whole_one_does(trt, model, stripped, opened):
    assert Plan.from_bytes(stripped).model == b""
    whole = build_plan(model, PlanSettings(), trt=tensorrt_double(trt)).plan
    first, second = opened(stripped, weights=model), opened(whole)
    x = np.random.default_rng(0).normal(0, 1, first.input_shape).astype(np.float32)
    assert np.array_equal(first.run(x)[0], second.run(x)[0])


def test_without_its_graph_it_is_refused(stripped, opened):
    with pytest.raises(BundleMismatch, match="may hold no weights: open its bundle"):
        opened(stripped)


def test_another_graph_is_refused(model, stripped, opened):
    with pytest.raises(BundleMismatch, match="the graph does not give them"):
        opened(stripped, weights=model + b"\0")


def test_weights_that_the_graph_lacks_are_named(model, stripped, opened):
    lacking = Script(lacking_weights=("a", "b", "c", "d"))
    with pytest.raises(
        BundleMismatch, match=r"the graph lacks 4 of them \(a, b, c\): it was built"
    ):
        opened(stripped, model, lacking)


def test_weights_that_do_not_fit_into_memory_are_told(model, stripped, opened):
    with pytest.raises(DeviceError, match="cannot put the weights into the engine"):
        opened(stripped, model, Script(refits=False))
