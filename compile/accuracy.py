"""Accuracy of a deployed graph against its FP32 source, and the budget it must keep."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from irstd.errors import InputError, UsageError
from irstd.frames import Frame, LabelledFiles, read_frame, read_mask
from irstd.metrics import Scores, evaluate

Logits = Callable[[Frame], NDArray[np.float32]]

# The sign of a change that hurts: for these more is worse.
_LOWER_IS_BETTER = ("fa",)
BUDGET_METRICS = ("hse", "hse_p", "hse_t", "iou", "niou", "pd", "fa")
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Scores of the FP32 source and of what is deployed, on the same labelled frames.

    Attributes:
        fp32: Scores of the source.
        deployed: Scores of the deployed graph.
        change: Deployed minus fp32, by metric: points, for fa false pixels per million.
        pd_interval: 95 % interval of the deployed Pd, percent (Wilson score): with few targets
            one more or less is within it.
    """

    fp32: Scores
    deployed: Scores
    change: Mapping[str, float]
    pd_interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What verification found.

    Attributes:
        frames: Frames that verified.
        labelled: Whether they had masks.
        accuracy: None when unlabelled.
        budget: Allowed change by metric; empty without a budget.
        violations: One line for each metric out of budget.
    """

    frames: int
    labelled: bool
    accuracy: Accuracy | None
    budget: Mapping[str, float]
    violations: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no metric is out of budget."""
        return not self.violations


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget such as "hse=-0.3,pd=-0.3,fa=+2".

    Returns:
        Allowed change by metric: points, for fa false pixels per million.

    Raises:
        UsageError: An unknown metric, not a number, or a sign that would demand an improvement.
    """
    budget: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in BUDGET_METRICS:
            known = ", ".join(BUDGET_METRICS)
            raise UsageError(f"--budget: unknown metric {name!r} in {text!r}; known: {known}")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(f"--budget: {name} needs a number, got {number!r}") from None
        if not math.isfinite(value):
            raise UsageError(f"--budget: {name} needs a finite number, got {number!r}")
        if value * (1 if name in _LOWER_IS_BETTER else -1) < 0:
            sign = "+" if name in _LOWER_IS_BETTER else "-"
            raise UsageError(f"--budget: {name}={number} demands an improvement; wanted {sign}...")
        if name in budget:
            raise UsageError(f"--budget: {name} is given twice")
        budget[name] = value
    return budget


def judge(
    files: Sequence[LabelledFiles],
    fp32: Logits,
    deployed: Logits,
    threshold: float,
    budget: Mapping[str, float],
) -> Verdict:
    """Score both on the same frames and hold the change against the budget.

    Args:
        files: Frames; all with masks, or none.
        fp32: Logits of the source, as deployed (same size, padding and tiling).
        deployed: Logits of the deployed graph.
        threshold: Probability above which a pixel is positive.
        budget: From `parse_budget`, or empty.

    Raises:
        InputError: No frames, or masks of other sizes.
        UsageError: A budget on unlabelled frames.
    """
    labelled = bool(files) and all(file.mask is not None for file in files)
    if not labelled:
        if budget:
            raise UsageError("--budget needs labelled frames to verify on (a masks/ folder)")
        return Verdict(len(files), labelled, None, budget, ())
    masks = [_matching_mask(file) for file in files]
    if not any(mask.any() for mask in masks):
        raise InputError(
            f"none of the {len(files)} labelled frames holds a target: accuracy cannot be measured"
        )
    before = evaluate((_probability(fp32(read_frame(f.image))) for f in files), masks, threshold)
    after = evaluate((_probability(deployed(read_frame(f.image))) for f in files), masks, threshold)
    change = {name: getattr(after, name) - getattr(before, name) for name in BUDGET_METRICS}
    accuracy = Accuracy(before, after, change, wilson_interval(after.pd / 100, after.targets))
    return Verdict(len(files), labelled, accuracy, budget, tuple(_violations(change, budget)))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share of `count`, in percent."""
    if not count:
        return 0.0, 100.0
    z2 = _Z95**2 / count
    centre = (share + z2 / 2) / (1 + z2)
    spread = _Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count)) / (1 + z2)
    return 100 * (centre - spread), 100 * (centre + spread)


def _violations(change: Mapping[str, float], budget: Mapping[str, float]) -> list[str]:
    lines = []
    for name, allowed in budget.items():
        worse = change[name] > allowed if name in _LOWER_IS_BETTER else change[name] < allowed
        if worse:
            lines.append(f"{name} changed by {change[name]:+.3f}, allowed {allowed:+.3f}")
    return lines


def _matching_mask(file: LabelledFiles) -> NDArray[np.bool_]:
    if file.mask is None:  # judge() has asked already
        raise InputError(f"{file.image}: no mask")
    return read_mask(file.mask)


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    half: NDArray[np.float32] = np.tanh(logits * np.float32(0.5)) * np.float32(0.5)
    return half + np.float32(0.5)
