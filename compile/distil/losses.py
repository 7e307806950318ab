"""Training losses. Logits and masks are (N, 1, H, W) float32; masks hold 0 and 1."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

EDGE_WEIGHT = 4.0
HARD_SHARE = 0.5


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft intersection over union of each sample, averaged (models.md 2.5)."""
    return _soft_iou(logits, target, (1, 2, 3))


def batch_iou(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the soft intersection over union of the whole batch (models.md 2.5).

    As the metric counts: a false alarm on a frame without targets costs as much as one beside a
    target, where `soft_iou` hardly feels it.
    """
    return _soft_iou(logits, target, (0, 1, 2, 3))


def _soft_iou(logits: Tensor, target: Tensor, axes: tuple[int, ...]) -> Tensor:
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum(axes)
    total = probability.sum(axes) + target.sum(axes)
    return (1 - (overlap + 1) / (total - overlap + 1)).mean()


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, target)


def edge_map(target: Tensor) -> Tensor:
    """Mark every pixel with a 4-neighbour of the other class, on both sides of the boundary.

    The image border is no boundary.
    """
    cross = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]], device=target.device)[None, None]
    grown = F.conv2d(target, cross, padding=1) > 0
    shrunk_away = F.conv2d(1 - target, cross, padding=1) > 0
    inside = target > 0.5
    return (grown & ~inside) | (shrunk_away & inside)


def eedm(logits: Tensor, target: Tensor) -> Tensor:
    """Edge-enhanced difficulty-mining loss (models.md 2.5).

    Cross-entropy, weighted by 4 on boundary pixels, averaged over the harder half of all pixels of
    the batch (ties with the median included).
    """
    weight = torch.where(edge_map(target), EDGE_WEIGHT, 1.0)
    loss = (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).flatten()
    rank = int(HARD_SHARE * loss.numel())  # 0-based index into the ascending order
    median = loss.detach().kthvalue(rank + 1).values
    return loss[loss >= median].mean()


TERMS: dict[str, Loss] = {
    "soft_iou": soft_iou,
    "batch_iou": batch_iou,
    "bce": bce,
    "eedm": eedm,
}


def weighted_loss(weights: Mapping[str, float]) -> Loss:
    """Return the weighted sum of the named terms."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        terms = [weight * TERMS[name](logits, target) for name, weight in weights.items()]
        return torch.stack(terms).sum()

    return loss
