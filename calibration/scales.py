"""The ranges of a graph's activations, and what they were taken from."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from irstd.errors import CalibrationError


@dataclasses.dataclass(frozen=True)
class TensorRange:
    """Range of one tensor.

    Attributes:
        low: Lowest value that keeps its own level.
        high: Highest value that keeps its own level.
        seen_low: Lowest value of the calibration frames.
        seen_high: Highest value of the calibration frames.
        clipped_share: Share of the values seen that lie outside [low, high].
    """

    low: float
    high: float
    seen_low: float
    seen_high: float
    clipped_share: float


@dataclasses.dataclass(frozen=True)
class ScaleTable:
    """Ranges by tensor name, with their origin.

    Attributes:
        method: Key of irstd.calibration.observers.METHODS.
        frames: Number of input tensors seen; a tiled frame is several.
        ranges: By the tensor's name in the graph.
    """

    method: str
    frames: int
    ranges: Mapping[str, TensorRange]

    def to_json(self) -> str:
        """Return the table as JSON text, tensors in graph order."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ScaleTable":
        """Read a table written by `to_json`.

        Raises:
            CalibrationError: Not such a table, or a range that is reversed or not finite.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            ranges = {str(name): _range(value) for name, value in raw["ranges"].items()}
            table = cls(str(raw["method"]), int(raw["frames"]), ranges)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = str(error) or type(error).__name__
            raise CalibrationError(f"not a scale table ({reason}); calibrate again") from error
        for name, found in ranges.items():
            if not all(map(math.isfinite, dataclasses.astuple(found))) or found.low > found.high:
                raise CalibrationError(
                    f"scale table: {name!r} ranges from {found.low} to {found.high}; wanted "
                    "finite numbers in order, calibrate again"
                )
        return table


def _range(value: Mapping[str, Any]) -> TensorRange:
    return TensorRange(**{name: float(number) for name, number in value.items()})
