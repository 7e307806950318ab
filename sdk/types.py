"""Value types that every layer shares: Precision, InputSpec, Detections."""

import dataclasses
import enum
import math

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError, UsageError

BIT_DEPTHS = (8, 14, 16)


class Precision(str, enum.Enum):
    """Number format that a graph asks for. It is in the graph, never in builder flags."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Fit(str, enum.Enum):
    """How a frame of another size meets the engine's static input."""

    PAD = "pad"
    RESIZE = "resize"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """What a network's engine expects, and how a frame becomes that.

    The tensor is `frame * scale[c] + offset[c]` for each channel c, in float32. Normalisation and a
    BatchNorm on the raw input are composed into this one affine, so `mean` and `std` of a training
    code never appear at run time.

    Attributes:
        height: Of the engine's input, px.
        width: Of the engine's input, px.
        scale: One factor a channel, per grey level.
        offset: One offset a channel.
        pad_level: One grey level a channel, which fills the part of the input that a frame does not
            cover; not necessarily an integer or in range. With it the tensor equals
            pad-after-normalise. With `per_frame_max` it counts in units of the frame's maximum.
        bit_depth: 8, 14 or 16; frames hold grey levels from 0 to 2**bit_depth - 1.
        fit: Whether frames of another size are padded and tiled, or resized.
        per_frame_max: Divide each frame by its own maximum before the affine.
    """

    height: int
    width: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    pad_level: tuple[float, ...]
    bit_depth: int = 8
    fit: Fit = Fit.PAD
    per_frame_max: bool = False

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UsageError(f"input size {self.height}x{self.width}: both sides must be above 0")
        if self.bit_depth not in BIT_DEPTHS:
            raise UsageError(f"bit depth {self.bit_depth}: one of {BIT_DEPTHS}")
        counts = {len(self.scale), len(self.offset), len(self.pad_level)}
        if counts not in ({1}, {3}):
            raise UsageError(
                "scale, offset, pad level: wanted one value for each of 1 or 3 channels"
            )
        if not all(map(math.isfinite, (*self.scale, *self.offset, *self.pad_level))):
            raise UsageError("scale, offset and pad level must be finite")

    @property
    def channels(self) -> int:
        """Channels of the engine's input, 1 or 3."""
        return len(self.scale)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the engine's input tensor (N, C, H, W), float32."""
        return 1, self.channels, self.height, self.width

    @property
    def max_level(self) -> int:
        """Highest grey level of a frame."""
        return int((1 << self.bit_depth) - 1)


@dataclasses.dataclass(frozen=True)
class Detections:
    """Targets found in one frame, as a struct of arrays sorted by descending score.

    Pixel (0, 0) has its centre at (0, 0). With N = 0 every array is empty and correctly shaped.

    Attributes:
        centroid_yx: (N, 2) float32 px, weighted by probability.
        box_xyxy: (N, 4) float32 px, x0, y0, x1, y1, half-open in pixel-edge coordinates: a target
            on pixel (0, 0) alone has the box -0.5, -0.5, 0.5, 0.5.
        score: (N,) float32 in (0, 1), sigmoid of the peak logit.
        area_px: (N,) int32, pixels above the threshold.
        covariance_yx: (N, 2, 2) float32 px^2, of the centroid, not the extent of the blob.
        peak_logit: (N,) float32.
        frame_index: Number of the frame in its stream.
        captured_at_s: When the frame arrived, `time.monotonic()` seconds; NaN when unknown.
        ready_at_s: When the detections were ready, likewise.
    """

    centroid_yx: NDArray[np.float32]
    box_xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    area_px: NDArray[np.int32]
    covariance_yx: NDArray[np.float32]
    peak_logit: NDArray[np.float32]
    frame_index: int = 0
    captured_at_s: float = math.nan
    ready_at_s: float = math.nan

    def __post_init__(self) -> None:
        n = len(self.score)
        shapes = {
            "centroid_yx": (n, 2),
            "box_xyxy": (n, 4),
            "score": (n,),
            "area_px": (n,),
            "covariance_yx": (n, 2, 2),
            "peak_logit": (n,),
        }
        for name, wanted in shapes.items():
            got = getattr(self, name).shape
            if got != wanted:
                raise InputError(f"detections disagree: {name} is {got}, wanted {wanted}")

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        return f"Detections({len(self)} targets, frame_index={self.frame_index})"

    @classmethod
    def empty(cls) -> "Detections":
        """Return detections of nothing, correctly shaped."""
        floats = np.float32
        return cls(
            centroid_yx=np.zeros((0, 2), floats),
            box_xyxy=np.zeros((0, 4), floats),
            score=np.zeros(0, floats),
            area_px=np.zeros(0, np.int32),
            covariance_yx=np.zeros((0, 2, 2), floats),
            peak_logit=np.zeros(0, floats),
        )
