"""The one preprocessing: a frame of any size becomes the engine's tensors (interface.md, Frames).

Calibration, parity, benchmarks and the runtime all go through here (docs/adr/0004).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.frames import Frame
from irstd.runtime.tiles import Tile, plan_tiles
from irstd.types import Fit, InputSpec

_PLANS_KEPT = 8


class Preprocessor:
    """Turns frames into the tensors of one InputSpec.

    One tensor is allocated, at construction, and reused for every tile of every frame. Not for use
    by several threads at once. With `per_frame_max` the maximum is that of the whole frame, 1 for a
    black one, and `pad_level` counts in units of it, so that padding is the same for every frame.

    Args:
        spec: The engine's input and the affine that leads to it.
    """

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self._tensor = np.empty(spec.shape, np.float32)
        self._scale = np.array(spec.scale, np.float64)
        self._offset = np.array(spec.offset, np.float32)
        pad_level = np.array(spec.pad_level, np.float64)
        self._pad = (pad_level * self._scale + np.array(spec.offset, np.float64)).astype(np.float32)
        self._dtype = np.dtype(np.uint8 if spec.bit_depth == 8 else np.uint16)
        self._plans: dict[tuple[int, int], tuple[Tile, ...]] = {}
        self._covered: tuple[int, int] | None = None  # the rest of the tensor holds the pad value

    def tiles(self, shape: tuple[int, int]) -> tuple[Tile, ...]:
        """Return the tiles that `tensors` yields for a frame of (H, W) `shape`, in that order.

        With `Fit.RESIZE` that is one tile, the whole frame.
        """
        plan = self._plans.get(shape)
        if plan is None:
            spec = self.spec
            resized = spec.fit is Fit.RESIZE
            plan = plan_tiles(shape, shape if resized else (spec.height, spec.width))
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            self._plans[shape] = plan
        return plan

    def check(self, frame: object) -> tuple[int, int]:
        """Check that a frame is what the spec's bit depth asks for, and return its (H, W).

        Raises:
            InputError: Not an (H, W) array of at least one pixel; not uint8 (bit depth 8), uint16
                (14 and 16) or float32; a value that is not finite, below 0 or above 2^depth - 1.
        """
        if not isinstance(frame, np.ndarray):
            got = type(frame).__name__
            raise InputError(f"a frame is {got}; wanted a numpy array (H, W)")
        if frame.ndim != 2 or frame.size == 0:
            raise InputError(
                f"a frame has shape {frame.shape}; wanted (H, W), one grey channel without batch"
            )
        depth = self.spec.bit_depth
        if frame.dtype not in (self._dtype, np.float32):
            raise InputError(
                f"a frame is {frame.dtype}; wanted {self._dtype} for bit depth {depth}, or float32 "
                f"in the same grey levels (build with --bit-depth 8, 14 or 16 for other frames)"
            )
        self._check_levels(frame)
        height, width = frame.shape
        return height, width

    def tensors(self, frame: Frame) -> Iterator[NDArray[np.float32]]:
        """Check a frame and return the engine's inputs that cover it, in the order of `tiles`.

        Args:
            frame: (H, W) uint8 for bit depth 8, uint16 for 14 and 16, or float32 in the same grey
                levels (not 0..1), any memory layout.

        Returns:
            Tensors of `spec.shape` float32, C-contiguous: ALWAYS THE SAME ARRAY, overwritten when
            the next is asked for. Copy it to keep it.

        Raises:
            InputError: See `check`.
        """
        return self.prepare(frame)[1]

    def prepare(self, frame: Frame) -> tuple[tuple[Tile, ...], Iterator[NDArray[np.float32]]]:
        """Return the `tiles` and the `tensors` of a frame, which go together one by one.

        Raises:
            InputError: See `check`.
        """
        tiles = self.tiles(self.check(frame))
        scale = (self._scale / self._divisor(frame)).astype(np.float32)
        return tiles, self._fill(frame, tiles, scale)

    def _fill(
        self, frame: Frame, tiles: tuple[Tile, ...], scale: NDArray[np.float32]
    ) -> Iterator[NDArray[np.float32]]:
        for tile in tiles:
            part = frame[tile.frame]
            if self.spec.fit is Fit.RESIZE:
                part = resize(part.astype(np.float32), (self.spec.height, self.spec.width))
            self._cover(part.shape)
            self._normalise(part, scale)
            yield self._tensor

    def _normalise(self, part: Frame, scale: NDArray[np.float32]) -> None:
        height, width = part.shape
        for channel in range(self.spec.channels):
            out = self._tensor[0, channel, :height, :width]
            # Two passes into the tensor itself; a 256-entry table is no faster (ADR 4).
            np.multiply(part, scale[channel], out=out, dtype=np.float32)
            np.add(out, self._offset[channel], out=out)

    def _cover(self, shape: tuple[int, ...]) -> None:
        """Make sure that everything beyond the top left `shape` holds the pad value."""
        covered = (shape[0], shape[1])
        if covered != self._covered:
            self._tensor[...] = self._pad[None, :, None, None]
            self._covered = covered

    def _divisor(self, frame: Frame) -> float:
        if not self.spec.per_frame_max:
            return 1.0
        return float(frame.max()) or 1.0  # an all-black frame stays black

    def _check_levels(self, frame: Frame) -> None:
        limit = self.spec.max_level
        is_float = frame.dtype == np.float32
        if not is_float and limit == np.iinfo(self._dtype).max:
            return
        high = float(frame.max())
        low = float(frame.min()) if is_float else 0.0
        if low >= 0.0 and high <= limit:  # false for NaN, which max and min pass on
            return
        depth = self.spec.bit_depth
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError("a frame holds NaN or infinity; wanted finite grey levels")
        raise InputError(
            f"a frame's levels go from {low:g} to {high:g}; wanted 0 to {limit} (bit depth {depth})"
        )


def resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a (H, W) float32 image to `size`, (height, width).

    Sides that shrink are averaged over the area, so that a target of a pixel is dimmed instead of
    skipped; sides that grow are interpolated linearly.
    """
    import cv2

    shrunk = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    resized: Any = image
    if image.shape != shrunk:
        resized = cv2.resize(resized, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != size:
        resized = cv2.resize(resized, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)
