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
    # that; `tolerance_for` widens this where the graph's own rounding is larger.
    Precision.INT8: Tolerance(mean=2e-2, worst=3e-1),
}


# Two right computations of a quantized graph round differently here and there, and end up about as
# far from each other as either is from FP32: independent errors of one size differ by sqrt(2) of
# it. Instructions that saturate (8-bit products summed in 16 bits, on CPUs without VNNI) were seen
# at 2 to 7 times.
ROUNDING_FACTOR = 1.5
# The worst pixel of many scatters more than their mean.
WORST_FACTOR = 3.0


def tolerance_for(
    precision: Precision,
    reference: Sequence[NDArray[np.float32]],
    source: Sequence[NDArray[np.float32]],
) -> Tolerance:
    """Return what an engine may differ by: the table's, or the graph's own error if larger.

    Args:
        precision: Of the deployed graph.
        reference: (H, W) logits of the deployed graph, node by node.
        source: (H, W) logits of the FP32 graph on the same frames.
    """
    table = TOLERANCES[precision]
    if precision is not Precision.INT8:
        return table
    own = compare_logits(source, reference, precision)  # shares are of the reference's range
    scale = max(own.logit_range, 1.0)
    return Tolerance(
        mean=max(table.mean, ROUNDING_FACTOR * own.mean_abs_error / scale),
        worst=max(table.worst, WORST_FACTOR * own.max_abs_error / scale),
    )


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
    tolerance: Tolerance | None = None,
) -> Parity:
    """Compare logit maps, all frames together.

    Args:
        got: (H, W) maps of the engine.
        wanted: (H, W) maps of the reference, of the same shapes.
        precision: Chooses the tolerance.
        tolerance: Instead of the table's.

    Raises:
        InputError: No maps, or shapes that differ.
    """
    if not wanted or [a.shape for a in got] != [b.shape for b in wanted]:
        raise InputError(f"{len(got)} and {len(wanted)} logit maps, or of different shapes")
    errors = [np.abs(a.astype(np.float64) - b).ravel() for a, b in zip(got, wanted, strict=True)]
    error = np.concatenate(errors)
    span = max(float(b.max()) for b in wanted) - min(float(b.min()) for b in wanted)
    allowed = tolerance or TOLERANCES[precision]
    return Parity(float(error.mean()), float(error.max()), span, allowed)
