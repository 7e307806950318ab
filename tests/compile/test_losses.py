"""Training losses against their definitions, written out pixel by pixel."""

import math

import numpy as np
import pytest
import torch

from irstd.compile.distil.config import LOSSES
from irstd.compile.distil.losses import (
    EDGE_WEIGHT,
    TERMS,
    batch_iou,
    bce,
    edge_map,
    eedm,
    soft_iou,
    weighted_loss,
)


def square(side=8, low=3, high=5):
    target = torch.zeros(1, 1, side, side)
    target[..., low:high, low:high] = 1
    return target


def edges_by_hand(mask):
    """A pixel with a 4-neighbour of the other class."""
    height, width = mask.shape
    edges = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
            edges[y, x] = any(mask[v, u] != mask[y, x] for v, u in inside)
    return edges


def eedm_by_hand(logits, target):
    z, t = logits.double().numpy().ravel(), target.numpy().ravel()
    edges = np.concatenate([edges_by_hand(mask).ravel() for mask in target[:, 0].numpy()])
    loss = np.where(edges, 4, 1) * (np.logaddexp(0, z) - t * z)
    median = np.sort(loss)[len(loss) // 2]
    return loss[loss >= median].mean()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (7, 5), (16, 16)])
def test_edge_map_is_the_brute_force_one(share, size_hw, rng):
    mask = rng.random(size_hw) < share
    target = torch.from_numpy(mask.astype(np.float32))[None, None]
    np.testing.assert_array_equal(edge_map(target)[0, 0].numpy(), edges_by_hand(mask))


def test_a_target_at_the_border_has_no_edge_along_it():
    target = torch.zeros(1, 1, 6, 6)
    target[..., :2, :2] = 1
    edges = edge_map(target)[0, 0]
    assert not edges[0, 0]
    assert edges[1, 0]
    assert edges[2, 0]


def test_edges_of_a_batch_do_not_touch():
    batch = torch.cat([square(), torch.zeros(1, 1, 8, 8)])
    assert not edge_map(batch)[1].any()


def test_eedm_reproduces_the_published_vector():
    edges = torch.zeros(8, 8, dtype=torch.bool)
    edges[2:6, 3:5] = True
    edges[3:5, 2:6] = True
    assert torch.equal(edge_map(square())[0, 0], edges)
    torch.manual_seed(1)
    logits = torch.randn(1, 1, 8, 8)
    assert float(eedm(logits, square())) == pytest.approx(2.18997, abs=5e-6)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("side", [5, 8])
def test_eedm_is_the_one_written_out(batch, side):
    torch.manual_seed(batch)
    logits = 3 * torch.randn(batch, 1, side, side)
    target = (torch.rand(batch, 1, side, side) < 0.1).float()
    assert float(eedm(logits, target)) == pytest.approx(eedm_by_hand(logits, target), rel=1e-5)


def test_eedm_includes_ties_with_the_median():
    """All pixels equal: all count, and the mean is the cross-entropy of one."""
    logits = torch.zeros(2, 1, 4, 4)
    assert float(eedm(logits, torch.zeros_like(logits))) == pytest.approx(math.log(2))


def test_eedm_ignores_the_easier_half():
    logits = torch.full((1, 1, 4, 4), -20.0)
    logits[..., :2, :] = 1.0
    easier = logits.clone()
    easier[..., 2:, :] = -10.0
    target = torch.zeros_like(logits)
    assert float(eedm(logits, target)) == pytest.approx(float(eedm(easier, target)))


def test_eedm_weighs_boundary_pixels():
    """One wrong pixel beside a target costs four times one far away."""
    target = square(16, 7, 9)
    near, far = torch.full((2, 1, 1, 16, 16), -30.0)
    for logits in (near, far):
        logits[target > 0] = 30.0
    near[..., 6, 7] = 5.0
    far[..., 0, 0] = 5.0
    assert float(eedm(near, target)) == pytest.approx(EDGE_WEIGHT * float(eedm(far, target)))


def test_soft_iou_values():
    target = square()
    sure = torch.where(target > 0, 50.0, -50.0)
    assert float(soft_iou(sure, target)) == pytest.approx(0, abs=1e-6)
    assert float(soft_iou(-sure, target)) == pytest.approx(1 - 1 / 65)
    undecided = torch.zeros_like(target)  # probability 1/2: overlap 2, union 32 + 4 - 2
    assert float(soft_iou(undecided, target)) == pytest.approx(1 - 3 / 35)


def test_soft_iou_averages_over_samples_not_pixels():
    target = torch.cat([square(), torch.zeros(1, 1, 8, 8)])
    logits = torch.cat([torch.where(square() > 0, 50.0, -50.0), torch.zeros(1, 1, 8, 8)])
    assert float(soft_iou(logits, target)) == pytest.approx((0 + 1 - 1 / 33) / 2)


def test_batch_iou_counts_the_pixels_of_all_samples_together(rng):
    logits = torch.from_numpy(rng.normal(0, 2, (3, 1, 6, 7)).astype(np.float32))
    target = torch.from_numpy((rng.random((3, 1, 6, 7)) < 0.2).astype(np.float32))
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), target.numpy()
    overlap = (p * t).sum()
    wanted = 1 - (overlap + 1) / (p.sum() + t.sum() - overlap + 1)
    assert float(batch_iou(logits, target)) == pytest.approx(wanted)
    assert float(batch_iou(logits[:1], target[:1])) == float(soft_iou(logits[:1], target[:1]))


def test_batch_iou_feels_a_false_alarm_beside_empty_frames_where_soft_iou_does_not():
    target = torch.cat([square(), torch.zeros(1, 1, 8, 8)])
    logits = (target * 2 - 1) * 20
    logits[1, :, :4] = 3  # a large false alarm on the frame without target
    slopes = []
    for loss in (batch_iou, soft_iou):
        leaf = logits.clone().requires_grad_()
        slopes.append(torch.autograd.grad(loss(leaf, target), leaf)[0][1].abs().max())
    assert slopes[0] > 2 * slopes[1]


def test_bce_is_the_mean_cross_entropy():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 5, 5), (torch.rand(2, 1, 5, 5) < 0.5).float()
    p = torch.sigmoid(logits.double())
    wanted = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert float(bce(logits, target)) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite(name, share, scale):
    torch.manual_seed(0)
    logits = (scale * torch.randn(2, 1, 8, 8)).requires_grad_()
    loss = TERMS[name](logits, (torch.rand(2, 1, 8, 8) < share).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_lowers_the_loss(name):
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    target = (torch.rand(2, 1, 8, 8) < 0.2).float()
    before = TERMS[name](logits, target)
    before.backward()
    assert TERMS[name](logits - 0.1 * logits.grad, target) < before


def test_every_configurable_loss_exists():
    assert set(TERMS) == set(LOSSES)


def test_weighted_loss_is_the_weighted_sum():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 1, 8, 8), square()
    both = weighted_loss({"eedm": 30.0, "soft_iou": 0.5})(logits, target)
    wanted = 30 * eedm(logits, target) + 0.5 * soft_iou(logits, target)
    assert float(both) == pytest.approx(float(wanted), rel=1e-6)
