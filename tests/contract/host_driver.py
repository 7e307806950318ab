"""A driver whose device is the host: what a session and the double that runs engines share.

It stands where cuda-python and pycuda stand (irstd.runtime.kernels.cuda.bindings.Binding), so that
memory, streams, recording and threads are followed call by call:

    driver = HostDriver(shares_memory=True)
    device = Device(driver, 0, no_images)
    driver.calls                 # what was asked of it, by name
    driver.held                  # what has not been given back

Work is put into a stream with `put`; while the stream records, it is kept and runs when the graph
is launched. What NVIDIA's driver refuses, this refuses: a call in a thread without a current
context, an allocation while recording, memory that is not there.
"""

import contextlib
import ctypes
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from irstd.errors import DeviceError
from irstd.runtime.kernels.cuda.bindings import Properties
from irstd.runtime.kernels.cuda.images import Image

ALIGNMENT = 256  # of an address that TensorRT takes


def no_images(op: str, architecture: int, driver_version: int) -> Image:
    raise AssertionError("a session launches no kernel of its own")


def view(address: int, nbytes: int) -> np.ndarray:
    """Return memory as bytes."""
    return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), np.uint8)


@dataclasses.dataclass
class HostDriver:
    """The driver.

    Attributes:
        shares_memory: Whether the device is integrated.
        total_bytes: Of the device's memory.
        records: Whether a stream can be recorded.
        fault: What the next `synchronize` says went wrong; empty: nothing.
        calls: Names of the functions called, in order.
        held: What is allocated, by address, handle or graph.
    """

    shares_memory: bool = True
    total_bytes: int = 8 << 30
    records: bool = True
    fault: str = ""
    name: str = "host"
    calls: list[str] = dataclasses.field(default_factory=list)
    held: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._current = threading.local()
        self._recordings: dict[int, list[Callable[[], None]]] = {}
        self._broken: set[int] = set()
        self._handles = itertools.count(0x5EED)
        self._retained = 0

    def put(self, work: Callable[[], None], stream: int) -> None:
        """Do work in a stream: now, or whenever the graph that it records is launched."""
        if stream in self._recordings:
            self._recordings[stream].append(work)
        else:
            work()

    def is_recording(self, stream: int) -> bool:
        """Whether a stream records."""
        return stream in self._recordings

    def break_recording(self, stream: int) -> None:
        """Something was asked for that no graph can hold."""
        self._broken.add(stream)

    def driver_version(self) -> int:
        return 12060

    def open(self, index: int) -> object:
        self._current.depth = getattr(self._current, "depth", 0) + 1
        self._retained += 1
        return index

    def close(self, context: object) -> None:
        self._retained -= 1
        assert self._retained or not self.held, f"not given back: {self.held}"

    @contextlib.contextmanager
    def current(self, context: object) -> Iterator[None]:
        self._current.depth = getattr(self._current, "depth", 0) + 1
        try:
            yield
        finally:
            self._current.depth -= 1

    def properties(self, index: int) -> Properties:
        return Properties("Orin", 87, 8, self.total_bytes, 4 << 20, self.shares_memory)

    def free_bytes(self) -> int:
        used = sum(held.nbytes for held in list(self.held.values()) if isinstance(held, np.ndarray))
        return self.total_bytes - used

    def load(self, image: bytes) -> object:
        raise AssertionError("a session launches no kernel of its own")

    function = allow_shared = launch = fill = copy_in = copy_out = load
    event = record = elapsed_ms = load

    def allocate(self, nbytes: int) -> int:
        return self._make("allocate", nbytes)

    def free(self, address: int) -> None:
        self._called("free")
        del self.held[address]

    def allocate_host(self, nbytes: int) -> int:
        return self._make("allocate_host", nbytes)

    def free_host(self, address: int) -> None:
        self._called("free_host")
        del self.held[address]

    def device_address(self, host: int) -> int:
        return host

    def copy_in_async(self, address: int, host: int, nbytes: int, stream: int) -> None:
        self._called("copy_in_async", stream)
        self.put(lambda: np.copyto(view(address, nbytes), view(host, nbytes)), stream)

    def copy_out_async(self, host: int, address: int, nbytes: int, stream: int) -> None:
        self._called("copy_out_async", stream)
        self.put(lambda: np.copyto(view(host, nbytes), view(address, nbytes)), stream)

    def stream(self, *, is_apart: bool = False) -> int:
        assert is_apart, "other libraries' work in the default stream would break a recording"
        self._called("stream")
        handle = next(self._handles)
        self.held[handle] = "stream"
        return handle

    def free_stream(self, stream: int) -> None:
        self._called("free_stream")
        del self.held[stream]

    def synchronize(self, stream: int) -> None:
        self._called("synchronize", stream)
        if self.fault:
            raise DeviceError(f"cuStreamSynchronize: {self.fault}")

    def begin_capture(self, stream: int) -> None:
        self._called("begin_capture", stream)
        if not self.records:
            raise DeviceError("the NVIDIA driver has no CUDA graphs")
        self._recordings[stream] = []
        self._current.recording = stream

    def end_capture(self, stream: int) -> object:
        self._called("end_capture", stream)
        recorded = self._recordings.pop(stream)
        self._current.recording = None
        if stream in self._broken:
            self._broken.remove(stream)
            raise DeviceError(
                "cuStreamEndCapture: operation failed due to a previous error during capture"
            )
        graph = object()
        self.held[graph] = recorded
        return graph

    def launch_graph(self, graph: Any, stream: int) -> None:
        self._called("launch_graph", stream)
        for work in self.held[graph]:
            work()

    def free_graph(self, graph: Any) -> None:
        self._called("free_graph")
        del self.held[graph]

    def _make(self, function: str, nbytes: int) -> int:
        self._called(function)
        if recording := getattr(self._current, "recording", None):
            self.break_recording(recording)
            raise DeviceError(f"{function}: operation not permitted when stream is capturing")
        if nbytes > self.free_bytes():
            raise DeviceError(f"{function}: out of memory (CUDA_ERROR_OUT_OF_MEMORY)")
        memory = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
        address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.held[address] = memory
        return address

    def _called(self, function: str, stream: int | None = None) -> None:
        self.calls.append(function)
        if getattr(self._current, "depth", 0) < 1:
            raise DeviceError(f"{function}: invalid device context")
        assert stream is None or self.held.get(stream) == "stream", f"{function}: no such stream"
