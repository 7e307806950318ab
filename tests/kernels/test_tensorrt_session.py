"""The session over the genuine cuda-python and pycuda: memory, stream, graph, end of the process.

Under them is the driver of tests/cuda_host; in the place of TensorRT a network that copies its
input in one kernel, put into the stream as TensorRT puts its own. What TensorRT's classes are is
held in tests/contract.
"""

import os
import subprocess
import sys

import pytest

from tests.kernels.driver_library import INSTALLED, build_fake_driver

RUN = """
import enum, sys, threading, types
import numpy as np
from irstd.runtime.kernels.cuda.driver import open_device
from irstd.runtime.kernels.cuda.images import Image
from irstd.runtime.kernels.cuda.launch import Launch
from irstd.runtime.sessions.tensorrt_session import open_plan
if sys.argv[1] == "pycuda":
    from irstd.runtime.kernels.cuda.pycuda_binding import Pycuda as make
else:
    from irstd.runtime.kernels.cuda.cuda_python import CudaPython as make

SHAPE = (1, 1, 2, 3)
devices = {}

class Foreign:
    def __init__(self, address):
        self.__cuda_array_interface__ = {
            "shape": SHAPE, "typestr": "<f4", "version": 3, "data": (address, False)}

class Context:
    def __init__(self):
        self.addresses = {}
    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True
    def get_tensor_address(self, name):
        return self.addresses.get(name, 0)
    def execute_async_v3(self, stream_handle):
        device = devices[threading.get_ident()]
        assert stream_handle == device.stream != 0
        source, target = (Foreign(self.addresses[name]) for name in ("image", "mask"))
        one = Launch((1, 1, 1), (1, 1, 1), 0)
        device.kernel("op", "copy_bytes")(one, source, target, np.int32(24))
        return True

class Engine:
    num_io_tensors, refittable = 2, False
    def get_tensor_name(self, index):
        return ("image", "mask")[index]
    def get_tensor_mode(self, name):
        return trt.TensorIOMode.INPUT if name == "image" else trt.TensorIOMode.OUTPUT
    def get_tensor_shape(self, name):
        return SHAPE
    def get_tensor_dtype(self, name):
        return trt.DataType.FLOAT
    def get_tensor_format(self, name):
        return trt.TensorFormat.LINEAR
    def get_tensor_location(self, name):
        return trt.TensorLocation.DEVICE
    def create_execution_context(self):
        return Context()

class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

trt = types.ModuleType("tensorrt")
trt.__version__ = "10.3.0"
trt.ILogger = Logger
trt.Runtime = lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: Engine())
trt.TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
trt.DataType = enum.Enum("DataType", "FLOAT")
trt.TensorFormat = enum.Enum("TensorFormat", "LINEAR")
trt.TensorLocation = enum.Enum("TensorLocation", "DEVICE")

binding = make()

def opened():
    device = open_device(0, binding, lambda op, *facts: Image(b"image", "form"))
    devices[threading.get_ident()] = device
    return open_plan(trt, b"plan", device)

def frames(session, start):
    for value in range(start, start + 3):
        image = np.arange(6, dtype=np.float32).reshape(SHAPE) + value
        (mask,) = session.run(image)
        assert np.array_equal(mask, image), (mask, image)

session = opened()
print("says", session.description, flush=True)
frames(session, 0)
second = opened()
frames(second, 10)
session.close()
frames(second, 20)

def work():
    third = opened()
    frames(third, 30)
    third.close()

thread = threading.Thread(target=work)
thread.start()
thread.join()
how = sys.argv[2]
if how == "close":
    second.close()
    second.close()
elif how == "elsewhere":
    thread = threading.Thread(target=second.close)
    thread.start()
    thread.join()
print("end", flush=True)
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory):
    return build_fake_driver(tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize(
    ("memory", "end"),
    [("mapped", "close"), ("pinned", "close"), ("pinned", "elsewhere"), ("mapped", "forgotten")],
)
def test_frames_go_through_the_genuine_package(fake_driver, name, memory, end):
    discrete = {"FAKE_DISCRETE": "1"} if memory == "pinned" else {}
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, end],
        env={**os.environ, "LD_LIBRARY_PATH": str(fake_driver), **discrete},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = [line for line in done.stdout.splitlines() if not line.startswith("launch")]
    (says,) = (line for line in said if line.startswith("says"))
    assert says == (f"says tensorrt 10.3.0, Fake Orin (sm_87), {memory} memory, CUDA graph")
    assert "end" in said
    assert {line for line in said if line.startswith("stream")} == {"stream 1"}
    # pycuda keeps the primary context where another thread has closed: its thread may release it.
    if end != "elsewhere" or name != "pycuda":
        assert "released with 0 page-locked, 0 graphs, 0 streams" in said
