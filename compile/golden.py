"""The frames in a bundle that prove a device right. Needs neither onnx nor torch."""

import dataclasses
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.bundle import Bundle
from irstd.compile.parity import Parity, Tolerance, compare_logits
from irstd.errors import BundleCorrupt
from irstd.frames import Frame
from irstd.types import Precision


@dataclasses.dataclass(frozen=True)
class Golden:
    """Golden frames and what was computed of them when the bundle was built.

    Attributes:
        frames: (H, W), of at most the input's size.
        logits: (H, W) float32 of the FP32 graph, in the frame's pixels.
        deployed: The same of the deployed graph, computed node by node.
        tolerance: How far an engine may be from `deployed`.
    """

    frames: list[Frame]
    logits: list[NDArray[np.float32]]
    deployed: list[NDArray[np.float32]]
    tolerance: Tolerance

    @classmethod
    def read(cls, bundle: Bundle) -> "Golden":
        """Read them out of a bundle.

        Raises:
            BundleCorrupt: None, or what does not belong together.
        """
        frames, logits, deployed = (
            _arrays(bundle, kind) for kind in ("frame", "logits", "deployed")
        )
        if not frames or not len(frames) == len(logits) == len(deployed):
            raise BundleCorrupt(
                f"{bundle.path}: {len(frames)} golden frames, {len(logits)} and {len(deployed)} "
                "logit maps; wanted at least one of each, build the bundle again"
            )
        for frame, *maps in zip(frames, logits, deployed, strict=True):
            if any(found.shape != frame.shape or found.dtype != np.float32 for found in maps):
                raise BundleCorrupt(f"{bundle.path}: golden logits do not fit their frames")
        return cls(frames, logits, deployed, _tolerance(bundle))

    def check(self, logits: Callable[[Frame], NDArray[np.float32]], precision: Precision) -> Parity:
        """Hold an engine of the deployed graph against the golden logits.

        Args:
            logits: Maps a frame to the engine's logits.
            precision: Of the deployed graph.
        """
        got = [logits(frame) for frame in self.frames]
        return compare_logits(got, self.deployed, precision, self.tolerance)


def _arrays(bundle: Bundle, kind: str) -> list[NDArray[Any]]:
    names = sorted(name for name in bundle.members if name.startswith(f"golden/{kind}_"))
    arrays = []
    for name in names:
        try:
            arrays.append(np.load(io.BytesIO(bundle.read(name)), allow_pickle=False))
        except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
            raise BundleCorrupt(f"{bundle.path}: {name} is not an array ({error})") from error
    return arrays


def _tolerance(bundle: Bundle) -> Tolerance:
    name = "golden/tolerance.json"
    try:
        raw = json.loads(bundle.read(name))
        found = Tolerance(**{key: float(value) for key, value in raw.items()})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BundleCorrupt(f"{bundle.path}: {name} is damaged ({error})") from error
    if not all(math.isfinite(value) and value >= 0 for value in dataclasses.astuple(found)):
        raise BundleCorrupt(f"{bundle.path}: {name} holds {found}; wanted finite shares")
    return found
