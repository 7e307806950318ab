"""One frame through one engine: tensors in, logits in the frame's own pixels out."""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from irstd.errors import BuildError
from irstd.frames import Frame
from irstd.runtime.preprocess import Preprocessor, resize
from irstd.runtime.sessions.protocol import Session
from irstd.runtime.tiles import Tile
from irstd.types import Fit, InputSpec


class FrameRunner:
    """Runs frames of any size through an engine of one size.

    Construction runs the engine once on an empty frame, so that an engine that cannot run says so
    here, and the first frame is as fast as the next. Not for use by several threads at once.

    Args:
        session: The engine; it stays the caller's to close.
        spec: Its input and preprocessing.

    Raises:
        BuildError: The engine's input is not `spec.shape`, or its first output is not one logit a
            pixel, (1, 1, H, W).

    Attributes:
        infer_s: Seconds that the last frame spent inside the engine.
    """

    def __init__(self, session: Session, spec: InputSpec) -> None:
        if tuple(session.input_shape) != spec.shape:
            raise BuildError(f"the graph's input is {session.input_shape}; wanted {spec.shape}")
        self.infer_s = 0.0
        self._session = session
        self._spec = spec
        self._preprocessor = Preprocessor(spec)
        self._stitched = np.empty((0, 0), np.float32)
        output = session.run(np.zeros(spec.shape, np.float32))[0]
        wanted = (1, 1, spec.height, spec.width)
        if output.shape != wanted or output.dtype != np.float32:
            raise BuildError(
                f"the graph's output is {output.shape} {output.dtype}; wanted logits {wanted} "
                f"float32, one a pixel"
            )

    def logits(self, frame: Frame, *, reuse: bool = False) -> NDArray[np.float32]:
        """Return the logits of a frame.

        Args:
            frame: (H, W) uint8, uint16 or float32 as irstd.runtime.preprocess says; any size.
            reuse: Return a buffer that the next call overwrites, instead of an array of one's own.

        Returns:
            (H, W) float32, for the frame's own pixels.

        Raises:
            InputError: The frame is not what the spec asks for.
        """
        self.infer_s = 0.0
        tiles, tensors = self._preprocessor.prepare(frame)
        height, width = frame.shape
        if self._spec.fit is Fit.RESIZE:
            logits = resize(self._infer(next(tensors)), (height, width))
        elif len(tiles) == 1:
            logits = self._infer(next(tensors))[:height, :width]
        else:
            logits = self._stitch(tiles, tensors, (height, width))
        return logits if reuse else logits.copy()

    def _stitch(
        self,
        tiles: tuple[Tile, ...],
        tensors: Iterator[NDArray[np.float32]],
        shape: tuple[int, int],
    ) -> NDArray[np.float32]:
        if self._stitched.shape != shape:
            self._stitched = np.empty(shape, np.float32)
        for tile, tensor in zip(tiles, tensors, strict=True):
            self._stitched[tile.keep_frame] = self._infer(tensor)[tile.keep_tile]
        return self._stitched

    def _infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.perf_counter()
        output = self._session.run(tensor)[0]
        self.infer_s += time.perf_counter() - started
        logits: NDArray[np.float32] = output[0, 0]
        return logits
