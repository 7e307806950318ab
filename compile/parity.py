"""Does an engine compute what its graph says? Numbers, one table of tolerances, one verdict."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.types import Precision


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest allowed errors, as shares of the range of the reference logits.

    Attributes:
        mean: Of the mean absolute error.
        worst: Of the largest absolute error.
    """

    mean: float
    worst: float


# The reference is the same graph computed node by node in float32 (session "reference").
TOLERANCES: dict[Precision, Tolerance] = {
    # Engines reorder sums; ACM and ALCNet differ by less than a hundredth of this.
    Precision.FP32: Tolerance(mean=1e-5, worst=1e-4),
    # Half has 11 significant bits; some engines accumulate in it.
    Precision.FP16: Tolerance(mean=5e-3, worst=5e-2),
    # A value on a rounding border may take the neighbouring level, and the next layers amplify
    # that: right engines stay near 0.5 % on average. Instructions that saturate (8-bit products
    # summed in 16 bits, on CPUs without VNNI) give 5 %.
    Precision.INT8: Tolerance(mean=2e-2, worst=3e-1),
}


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far one set of logits is from the reference.

    Attributes:
        mean_abs_error: Mean absolute difference of logits.
        max_abs_error: Largest absolute difference of logits.
        logit_range: Highest minus lowest reference logit.
        tolerance: What was allowed.
    """

    mean_abs_error: float
    max_abs_error: float
    logit_range: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether both errors are within tolerance; NaN is not."""
        scale = max(self.logit_range, 1.0)
        return (
            self.mean_abs_error <= self.tolerance.mean * scale
            and self.max_abs_error <= self.tolerance.worst * scale
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `passed` as JSON values."""
        return dataclasses.asdict(self) | {"passed": self.passed}

    def __str__(self) -> str:
        return (
            f"mean error {self.mean_abs_error:.2g}, worst {self.max_abs_error:.2g} "
            f"on logits that span {self.logit_range:.3g} "
            f"(allowed {self.tolerance.mean:.0e} and {self.tolerance.worst:.0e} of the span)"
        )


def compare_logits(
    got: Sequence[NDArray[np.float32]],
    wanted: Sequence[NDArray[np.float32]],
    precision: Precision,
) -> Parity:
    """Compare logit maps, all frames together.

    Args:
        got: (H, W) maps of the engine.
        wanted: (H, W) maps of the reference, of the same shapes.
        precision: Chooses the tolerance.

    Raises:
        InputError: No maps, or shapes that differ.
    """
    if not wanted or [a.shape for a in got] != [b.shape for b in wanted]:
        raise InputError(f"{len(got)} and {len(wanted)} logit maps, or of different shapes")
    errors = [np.abs(a.astype(np.float64) - b).ravel() for a, b in zip(got, wanted, strict=True)]
    error = np.concatenate(errors)
    span = max(float(b.max()) for b in wanted) - min(float(b.min()) for b in wanted)
    return Parity(float(error.mean()), float(error.max()), span, TOLERANCES[precision])
