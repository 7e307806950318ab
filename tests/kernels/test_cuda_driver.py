"""The launch layer: arguments, compiled forms, and both bindings of the driver, with no GPU.

cuda-python and pycuda are the real packages where they are installed; under them is a
libcuda.so.1 whose device memory is the host's (tests/cuda_host/fake_driver.cpp). Kernels run in the
host harness.
"""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from irstd.errors import DeviceError, InputError, MissingDependency, UsageError
from irstd.runtime.kernels.cuda import driver_graphs, images
from irstd.runtime.kernels.cuda.bindings import find_binding
from irstd.runtime.kernels.cuda.launch import Launch, Pointer, pack_arguments
from tests.kernels.driver_library import CUDA_HOST, INSTALLED, build_fake_driver

PLANTED = str(CUDA_HOST / "planted" / "planted.cu")


class Pair(ctypes.Structure):
    _fields_ = (("flag", ctypes.c_uint8), ("size", ctypes.c_int32))


@pytest.mark.parametrize(
    ("arguments", "packed"),
    [
        ([], ""),
        ([np.int32(-2)], "feffffff"),
        ([None], "00" * 8),
        ([Pointer(0x1234)], "3412000000000000"),
        ([np.int8(1), np.int32(2)], "01000000 02000000"),
        ([np.int32(2), Pointer(3)], "02000000 00000000 0300000000000000"),
        ([Pointer(3), np.int8(1), np.float16(1)], "0300000000000000 0100 003c"),
        ([np.int8(1), Pair(2, 3), np.int8(4)], "01000000 0200000003000000 04"),
        ([np.float32(1), np.float64(1), np.uint16(5)], "0000803f00000000 000000000000f03f 0500"),
    ],
)
def test_arguments_lie_where_their_alignment_puts_them(arguments, packed):
    assert pack_arguments(arguments) == bytes.fromhex(packed)


@pytest.mark.parametrize("argument", [1, 1.5, True, "x", np.zeros(3), np.complex64(1), b"12"])
def test_arguments_without_a_width_are_refused(argument):
    with pytest.raises(UsageError, match="kernel argument 1: got "):
        pack_arguments([None, argument])


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Compiled forms as files that say what they are, with no compiler."""

    def write(name):
        (tmp_path / name).write_text(name)
        return tmp_path / name

    monkeypatch.setattr(images, "build_fatbin", lambda op: write("fatbin"))
    monkeypatch.setattr(
        images, "build_cubins", lambda op, which: {a: write(f"sm_{a}") for a in which}
    )


@pytest.mark.parametrize(
    ("architecture", "driver", "data", "form"),
    [
        (87, 13000, b"fatbin", "sm_87 by CUDA 13"),
        (120, 13020, b"fatbin", "sm_120 by CUDA 13"),
        (100, 13000, b"fatbin", "PTX for compute_86 by CUDA 13"),
        (121, 13000, b"fatbin", "PTX for compute_86 by CUDA 13"),
        (87, 12060, b"sm_87", "sm_87 by CUDA 12"),
        (90, 12080, b"sm_90", "sm_90 by CUDA 12"),
    ],
)
def test_form_by_device_and_driver(compiled, architecture, driver, data, form):
    assert images.image_for("op", architecture, driver) == images.Image(data, form)


@pytest.mark.parametrize(
    ("architecture", "driver", "message"),
    [
        (75, 13000, "sm_75; compiled are sm_86, 87, 89, 90, 110, 120 and PTX for compute_86"),
        (120, 12080, r"driver of CUDA 12\.8; compiled for CUDA 12 are sm_86, 87, 89, 90; update"),
        (87, 11040, r"driver is of CUDA 11\.4; wanted 12\.6 or later"),
    ],
)
def test_what_there_is_is_told_where_nothing_fits(compiled, architecture, driver, message):
    with pytest.raises(DeviceError, match=message):
        images.image_for("op", architecture, driver)


def test_launch_on_the_host_through_the_whole_layer(host_device):
    device = host_device()
    x = device.array(np.arange(128, dtype=np.float32))
    out = device.empty((2, 64), np.float32)
    assert np.isnan(out.numpy()).all()
    device.kernel(PLANTED, "reverse_block")(Launch((2, 1, 1), (64, 1, 1), 0), x, out)
    np.testing.assert_array_equal(out.numpy(), x.numpy().reshape(2, 64)[:, ::-1])
    out.fill_bytes(0)
    assert not out.numpy().any()
    assert device.form_of(PLANTED) == "host"


def test_arrays_of_other_libraries_are_arguments(host_device):
    device = host_device()
    x = device.array(np.arange(64, dtype=np.float32))
    out = device.empty((64,), np.float32)

    class Foreign:
        __cuda_array_interface__ = out.__cuda_array_interface__

    class Strided:
        __cuda_array_interface__ = {**out.__cuda_array_interface__, "strides": (8,)}  # noqa: RUF012

    kernel, launch = device.kernel(PLANTED, "reverse_block"), Launch((1, 1, 1), (64, 1, 1), 0)
    kernel(launch, x, Foreign())
    np.testing.assert_array_equal(out.numpy(), x.numpy()[::-1])
    with pytest.raises(InputError, match="not contiguous"):
        kernel(launch, x, Strided())


def test_shared_memory_beyond_48_kib_is_asked_for(host_device):
    device = host_device()
    kernel, out = device.kernel(PLANTED, "race_between_blocks"), device.empty((1,), np.float32)
    kernel(Launch((1, 1, 1), (1, 1, 1), 99 << 10), out)
    with pytest.raises(DeviceError, match="sm_86 has 99 KiB"):
        kernel(Launch((1, 1, 1), (1, 1, 1), 100 << 10), out)


def test_closed_device_frees_its_arrays_and_says_so(host_device):
    device = host_device()
    x = device.array(np.zeros(3, np.float32))
    kernel = device.kernel(PLANTED, "count_up")
    device.close()
    device.close()
    x.free()
    for call in (x.numpy, lambda: device.array(np.zeros(3)), lambda: kernel(Launch(), x)):
        with pytest.raises(UsageError, match="the device is closed"):
            call()


def test_empty_arrays_are_refused(host_device):
    with pytest.raises(InputError, match="at least one element"):
        host_device().empty((3, 0), np.float32)


def test_neither_package_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingDependency, match=r"pip install .*irstd-sdk\[cuda\]"):
        find_binding()


MAKE = """
import sys, numpy as np
from irstd.errors import DeviceError, UsageError
from irstd.runtime.kernels.cuda.driver import open_device
from irstd.runtime.kernels.cuda.images import Image
from irstd.runtime.kernels.cuda.launch import Launch
if sys.argv[1] == "pycuda":
    from irstd.runtime.kernels.cuda.pycuda_binding import Pycuda as make
else:
    from irstd.runtime.kernels.cuda.cuda_python import CudaPython as make
def refused(call):
    try:
        call()
    except DeviceError as error:
        print("refused", error, flush=True)
"""
USE = """
with open_device(0, make(), lambda op, *facts: Image(b"image", f"{op} {facts}")) as device:
    print(tuple(device.properties), device.form_of("op"), flush=True)
    device.stream = device.new_stream()
    x, out = device.array(np.arange(6, dtype=np.float32)), device.empty((6,), np.float32)
    launch = Launch((1, 2, 3), (4, 5, 1), 60 << 10)
    device.kernel("op", "copy_bytes")(launch, x, out, np.int32(24))
    print(out.numpy().tolist(), flush=True)
    mixed, one = device.kernel("op", "mixed"), Launch((1, 1, 1), (1, 1, 1), 0)
    mixed(one, np.int8(-2), np.float64(1), np.int16(3), np.float32(1), None)
    x.fill_bytes(255)
    print(np.isnan(x.numpy()).all(), device.time_ms(lambda: None), flush=True)
    refused(lambda: device.kernel("op", "absent"))
    refused(lambda: mixed(Launch((1, 1, 1), (1, 1, 1), 200 << 10)))
    refused(lambda: open_device(3, device.binding))
    refused(lambda: device.binding.load(b"?"))
"""


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory):
    """The folder of a libcuda.so.1, for LD_LIBRARY_PATH."""
    return build_fake_driver(tmp_path_factory.mktemp("driver"))


def run(code, name, library_path="", *arguments):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_path)}
    done = subprocess.run(
        [sys.executable, "-c", MAKE + code, name, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("stream")]


@pytest.mark.parametrize("name", INSTALLED)
def test_real_package_moves_arrays_and_launches(fake_driver, name):
    lines = run(USE, name, fake_driver)
    assert lines[0] == f"('Fake Orin', 87, 16, {8 << 30}, {4 << 20}, True) op (87, 13000)"
    assert lines[1] == f"attribute 8 {60 << 10}"
    words = lines[2].split()
    assert words[:-1] == ["launch", "copy_bytes", *"123451", str(60 << 10), "0x5eed"]
    assert len(words[-1]) == 40
    assert words[-1].endswith("18000000")
    assert lines[3] == "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]"
    assert lines[4].split()[-1] == "fe" + "00" * 13 + "f03f" + "030000000000803f" + "00" * 8
    assert lines[5] == "True 1.5"
    assert [line.split()[0] for line in lines[6:]].count("refused") == 4
    assert lines[-1] == NOTHING_LEFT


RECORD = """
from concurrent.futures import ThreadPoolExecutor
device = open_device(0, make(), lambda op, *facts: Image(b"image", "form"))
print(device.properties.shares_memory, device.free_bytes, flush=True)
device.stream = device.new_stream()
host, back = device.host_array((2, 3), np.float32), device.host_array((6,), np.float32)
x, y = device.empty((2, 3), np.float32), device.empty((6,), np.float32)
copy = device.kernel("op", "copy_bytes")
def put():
    host.copy_to(x)
    copy(Launch((1, 1, 1), (1, 1, 1), 0), x, y, np.int32(24))
    back.copy_from(y)
back.array[:] = host.array[:] = -1
graph = device.capture(put)
print(back.array.tolist(), flush=True)
for start in (0, 10):
    host.array[:] = np.arange(start, start + 6).reshape(2, 3)
    graph.launch()
    device.synchronize()
    print(back.array.tolist(), flush=True)
host.array[:] = 7
copy(Launch((1, 1, 1), (1, 1, 1), 0), type("Mapped", (), {"__cuda_array_interface__": {
    "shape": (6,), "typestr": "<f4", "version": 3, "data": (host.device_address, False)}})(),
    y, np.int32(24))
print(y.numpy().tolist(), flush=True)
refused(lambda: device.capture(lambda: device.empty((4,), np.float32)))
refused(lambda: device.host_array((9 << 30,), np.uint8))
device.capture(put).launch()  # after a broken recording the stream records again
graph.free()
graph.free()
if sys.argv[2:] == ["other-thread"]:
    with ThreadPoolExecutor(1) as other:
        other.submit(device.close).result()
else:
    device.close()
device.close()
"""
NOTHING_LEFT = "released with 0 page-locked, 0 graphs, 0 streams"


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("discrete", [False, True])
def test_page_locked_memory_and_graphs(fake_driver, name, discrete, monkeypatch):
    if discrete:
        monkeypatch.setenv("FAKE_DISCRETE", "1")
    lines = [
        line for line in run(RECORD, name, fake_driver) if line[:6] not in ("launch", "stream")
    ]
    assert lines[0] == f"{not discrete} {3 << 30}"
    assert lines[1] == str([-1.0] * 6)
    assert lines[2] == "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]"
    assert lines[3] == "[10.0, 11.0, 12.0, 13.0, 14.0, 15.0]"
    assert lines[4] == str([7.0] * 6)
    assert "not permitted when stream is capturing" in lines[5]
    assert "out of memory" in lines[6]
    assert lines[7:] == [NOTHING_LEFT]


@pytest.mark.parametrize("name", INSTALLED)
def test_another_thread_may_close_a_device(fake_driver, name):
    lines = run(RECORD, name, fake_driver, "other-thread")
    # pycuda keeps the primary context, which is the process's: its thread alone may release it.
    assert name == "pycuda" or lines[-1] == NOTHING_LEFT


THREADS = """
import threading
binding = make()
opened = []
def open_one():
    opened.append(open_device(0, binding, lambda op, *facts: Image(b"image", "form")))
    opened[-1].host_array((4,), np.float32)
    opened[-1].binding.free_bytes()
def call_it():
    try:
        opened[-1].free_bytes
    except UsageError as error:
        print("refused", error, flush=True)
for close_while_it_lives in (False, True):
    may_end = threading.Event()
    worker = threading.Thread(target=lambda: (open_one(), ready.set(), may_end.wait()))
    ready = threading.Event()
    worker.start()
    ready.wait()
    call_it()
    if close_while_it_lives:
        opened[-1].close()
    may_end.set()
    worker.join()
    opened[-1].close()
first, second = (open_device(0, binding, lambda op, *facts: None) for _ in range(2))
first.close()
print(second.free_bytes, flush=True)
second.close()
print("end", flush=True)
"""


@pytest.mark.parametrize("name", INSTALLED)
def test_devices_of_several_threads_are_told_apart_and_end_with_them(fake_driver, name):
    lines = run(THREADS, name, fake_driver)
    refused = [line for line in lines if line.startswith("refused a Device belongs to the thread")]
    assert len(refused) == 2
    assert str(3 << 30) in lines
    assert "end" in lines


def test_a_driver_without_graphs_is_told(monkeypatch):
    monkeypatch.setattr(driver_graphs, "_LIBRARY", "libc.so.6")
    with pytest.raises(DeviceError, match=r"the NVIDIA driver has no CUDA graphs: .*cuStreamBegin"):
        driver_graphs.DriverGraphs()
    monkeypatch.setattr(driver_graphs, "_LIBRARY", "libnothing.so.1")
    with pytest.raises(DeviceError, match=r"the NVIDIA driver has no CUDA graphs: .*libnothing"):
        driver_graphs.DriverGraphs()


@pytest.mark.parametrize("name", INSTALLED)
def test_no_driver_is_a_device_error(name):
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert "NVIDIA driver" in run("refused(make)", name)[0]
    else:
        pytest.skip("this machine has a driver")
