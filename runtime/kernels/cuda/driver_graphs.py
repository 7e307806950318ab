"""CUDA graphs through the driver's own library, for pycuda, which has none.

Streams are handles as numbers, as everywhere here, so they are the same streams.
"""

import ctypes

from irstd.errors import DeviceError, one_line

_LIBRARY = "libcuda.so.1"
# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is not of this recording.
_THREAD_LOCAL = 1
_POINTER, _POINTER_TO = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_ARGUMENTS = {
    "cuStreamBeginCapture_v2": (_POINTER, ctypes.c_int),
    "cuStreamEndCapture": (_POINTER, _POINTER_TO),
    "cuGraphInstantiateWithFlags": (_POINTER_TO, _POINTER, ctypes.c_ulonglong),
    "cuGraphDestroy": (_POINTER,),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
}  # as in cuda.h of CUDA 11.4 and later


class DriverGraphs:
    """The functions of `cuda.h` that record and launch graphs.

    Raises:
        DeviceError: The driver's library is not there, or older than CUDA 11.4.
    """

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL(_LIBRARY)
            for name, types in _ARGUMENTS.items():
                getattr(self._cuda, name).argtypes = types
            self._cuda.cuGetErrorString.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))
        except (OSError, AttributeError) as error:
            raise DeviceError(f"the NVIDIA driver has no CUDA graphs: {one_line(error)}") from error

    def _call(self, function: str, *arguments: object) -> None:
        if status := getattr(self._cuda, function)(*arguments):
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(status, ctypes.byref(text))
            reason = text.value.decode() if text.value else "unknown error"
            raise DeviceError(f"{function}: {reason} ({status})")

    def begin_capture(self, stream: int) -> None:
        """Record what this thread puts into a stream, instead of running it."""
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Stop recording and return the handle of a graph that can be launched."""
        recorded, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(recorded))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(graph), recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)
        return graph.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """Put a graph into a stream."""
        self._call("cuGraphLaunch", graph, stream)

    def free(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphExecDestroy", graph)
