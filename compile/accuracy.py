"""Accuracy of a deployed graph against its FP32 source, and the budget it must keep."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irstd.compile.progress import SILENT, Progress
from irstd.errors import InputError, UsageError
from irstd.frames import Frame, LabelledFiles, read_mask
from irstd.metrics import Scores, evaluate
from irstd.runtime.postprocess import sigmoid

Logits = Callable[[Frame], NDArray[np.float32]]
ReadFrame = Callable[[LabelledFiles], Frame]

THRESHOLD = 0.5
BUDGET_METRICS = ("hse", "hse_p", "hse_t", "iou", "niou", "pd", "fa")
_LOWER_IS_BETTER = ("fa",)
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `passed` as JSON values."""
        return dataclasses.asdict(self) | {"passed": self.passed}


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget such as "hse=-0.3,pd=-0.3,fa=+2".

    Returns:
        Allowed change by metric: points, for fa false pixels per million.

    Raises:
        UsageError: A metric that is unknown or named twice, not a number, or see `check_budget`.
    """
    budget: dict[str, Any] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name in budget:
            raise UsageError(f"--budget: {name} is given twice")
        budget[name] = number
    return check_budget(budget)


def check_budget(budget: Mapping[str, Any]) -> dict[str, float]:
    """Return a budget with its values as numbers.

    Raises:
        UsageError: An unknown metric, not a finite number, or a sign that would demand an
            improvement.
    """
    numbers: dict[str, float] = {}
    for name, given in budget.items():
        if name not in BUDGET_METRICS:
            known = ", ".join(BUDGET_METRICS)
            raise UsageError(f'--budget: unknown metric {name!r}; known: {known}, as in "hse=-0.3"')
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"--budget: {name} needs a number, got {given!r}")
        if value * (1 if name in _LOWER_IS_BETTER else -1) < 0:
            sign = "+" if name in _LOWER_IS_BETTER else "-"
            raise UsageError(
                f"--budget: {name}={given} demands an improvement; wanted {name}={sign}..., "
                "the change that is allowed"
            )
        numbers[name] = value
    return numbers


def is_labelled(files: Sequence[LabelledFiles]) -> bool:
    """Whether accuracy can be measured on these frames: there are some, and all have masks."""
    return bool(files) and all(file.mask is not None for file in files)


def score_frames(
    files: Sequence[LabelledFiles],
    read: ReadFrame,
    logits: Logits,
    threshold: float,
    progress: Progress = SILENT,
    what: str = "scoring",
) -> Scores:
    """Score one graph on labelled frames.

    Args:
        files: Frames, all with masks.
        read: Reads a frame, checked for its bit depth.
        logits: (H, W) frame to (H, W) logits.
        threshold: Probability above which a pixel is positive.
        progress: Told of each frame.
        what: What it is told.

    Raises:
        InputError: A mask of another size than its frame, or not one target in any of them.
    """
    masks = [read_mask(file.mask) for file in files if file.mask is not None]
    if not any(mask.any() for mask in masks):
        raise InputError(
            f"none of the {len(masks)} labelled frames to verify on holds a target: accuracy "
            "cannot be measured; add frames with targets, or leave masks/ out"
        )

    def probabilities() -> Iterator[NDArray[np.float32]]:
        for file, mask in zip(progress.track(files, what), masks, strict=True):
            frame = read(file)
            if frame.shape != mask.shape:
                raise InputError(
                    f"{file.mask}: {mask.shape[0]}x{mask.shape[1]} px, wanted the size of its "
                    f"frame, {frame.shape[0]}x{frame.shape[1]}"
                )
            yield sigmoid(logits(frame))

    return evaluate(probabilities(), masks, threshold)


def judge(fp32: Scores, deployed: Scores, budget: Mapping[str, float]) -> Verdict:
    """Hold the change of accuracy against the budget.

    Args:
        fp32: Scores of the source, as deployed (same size, padding and tiling).
        deployed: Scores of the deployed graph on the same frames.
        budget: From `parse_budget`, or empty.
    """
    change = {name: getattr(deployed, name) - getattr(fp32, name) for name in BUDGET_METRICS}
    interval = wilson_interval(deployed.pd / 100, deployed.targets)
    accuracy = Accuracy(fp32, deployed, change, interval)
    violations = tuple(_violations(change, budget))
    return Verdict(deployed.frames, True, accuracy, budget, violations)


def unmeasured(files: Sequence[LabelledFiles]) -> Verdict:
    """Return the verdict on frames without masks."""
    return Verdict(len(files), False, None, {}, ())


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share of `count`, in percent."""
    if not count:
        return 0.0, 100.0
    z2 = _Z95**2 / count
    centre = (share + z2 / 2) / (1 + z2)
    spread = _Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count)) / (1 + z2)
    return 100 * max(centre - spread, 0.0), 100 * min(centre + spread, 1.0)


def _violations(change: Mapping[str, float], budget: Mapping[str, float]) -> Iterator[str]:
    for name, allowed in budget.items():
        worse = change[name] > allowed if name in _LOWER_IS_BETTER else change[name] < allowed
        if worse:
            yield f"{name} changed by {change[name]:+.3f}, allowed {allowed:+.3f}"
