"""The absent device is a device: a session that needs no library, for tests and dry runs."""

import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError, one_line
from irstd.runtime.sessions.shapes import image_shape

Function = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class FakeSession:
    """A Python function in the place of an engine.

    Args:
        input_shape: (1, C, H, W).
        function: Maps `input_shape` float32 to the one output; the default is the mean over the
            channels, (1, 1, H, W), which is purely local: every pixel depends on itself alone.
    """

    def __init__(self, input_shape: Sequence[int], function: Function | None = None) -> None:
        self.input_shape = image_shape([input_shape])
        self.description = "fake, no engine"
        self._function = function or _channel_mean
        self._output: NDArray[np.float32] | None = None
        self._is_closed = False

    def run(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Infer once; see Session.run. The output is one buffer, reused like a real engine's."""
        if self._is_closed:
            raise BuildError("the session is closed; open another")
        if x.shape != self.input_shape or x.dtype != np.float32:
            raise BuildError(f"got {x.shape} {x.dtype}; wanted {self.input_shape} float32")
        result = self._function(x)
        if self._output is None or self._output.shape != result.shape:
            self._output = np.empty_like(result)
        np.copyto(self._output, result)
        return (self._output,)

    def close(self) -> None:
        """Refuse further runs."""
        self._is_closed = True


def open_fake(model: bytes, threads: int | None) -> FakeSession:
    """Open the fake engine's "graph": a JSON object `{"input_shape", "gain", "bias"}`.

    The output is `gain * mean over channels + bias`; gain is 1 and bias 0 unless given.

    Raises:
        BuildError: Not such an object.
    """
    del threads  # one function, the caller's thread
    try:
        graph = json.loads(model)
        shape = [int(size) for size in graph["input_shape"]]
        gain, bias = np.float32(graph.get("gain", 1.0)), np.float32(graph.get("bias", 0.0))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildError(
            f'fake refuses the graph ({one_line(error)}); wanted JSON {{"input_shape": [1, C, H, W]'
            ', "gain": float, "bias": float}'
        ) from error
    return FakeSession(shape, lambda x: _channel_mean(x) * gain + bias)


def _channel_mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = x.mean(axis=1, keepdims=True, dtype=np.float32)
    return mean
