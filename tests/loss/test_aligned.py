"""MAL and IoU-aware cross-entropy: their values, and what they do where varifocal loss does not."""

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import detr_loss, ia_bce_loss, mal_loss, varifocal_loss
from aptt.loss.aligned.ia_bce import IA_BCE
from aptt.loss.aligned.mal import MAL


def _scores(n=60):
    g = torch.Generator().manual_seed(0)
    x = 6 * torch.randn(n, generator=g, dtype=torch.float64)
    q = torch.rand(n, generator=g, dtype=torch.float64)
    return x, torch.where(torch.rand(n, generator=g) < 0.5, q, 0.0)


@pytest.mark.parametrize(
    ("loss_fn", "positive", "negative"),
    [
        (mal_loss, 0.848504, 0.820880),
        (ia_bce_loss, 0.682883, 0.701868),
        (varifocal_loss, 0.427957, 0.526401),
    ],
)
def test_of_a_logit_of_1_and_a_quality_of_three_fifths(loss_fn, positive, negative):
    x, q = torch.tensor([1.0, 1.0]).double(), torch.tensor([0.6, 0.0]).double()
    found = loss_fn(x, q, reduction="none")
    torch.testing.assert_close(
        found, torch.tensor([positive, negative]).double(), atol=1e-6, rtol=0
    )


def test_a_positive_of_no_quality_is_trained_as_a_negative_where_varifocal_has_no_signal():
    x, none, positive = torch.tensor([1.0]), torch.zeros(1), torch.tensor([True])
    assert varifocal_loss(x, none, positive=positive) == 0
    assert mal_loss(x, none, positive=positive).item() == pytest.approx(1.313262, rel=1e-6)
    t = torch.tensor([0.01])
    want = F.binary_cross_entropy_with_logits(x, t)
    torch.testing.assert_close(ia_bce_loss(x, none, positive=positive), want)


def test_the_target_of_iou_aware_cross_entropy_is_held_constant():
    x = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.5]).double()
    (slope,) = torch.autograd.grad(ia_bce_loss(x, q), x)
    p = x.detach().sigmoid()
    torch.testing.assert_close(slope, p - p**0.25 * q**0.75)
    at = torch.tensor([0.5]).double().logit().requires_grad_()
    assert torch.autograd.grad(ia_bce_loss(at, q), at)[0].abs() < 1e-15  # p = q


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("detach_factor", [False, True])
@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 1.5), (0.3, 0.5), (0.75, 2.0)])
def test_slopes_of_mal_are_those_of_autograd(alpha, gamma, detach_factor, marked, same_as_autograd):
    x, q = _scores()
    positive = (q > 0) | (torch.arange(60) % 7 == 0) if marked else None
    options = {"alpha": alpha, "gamma": gamma, "detach_factor": detach_factor}
    same_as_autograd(MAL, x, q, positive, **options)


@pytest.mark.parametrize(("mixed", "gamma"), [(0.25, 2.0), (0.5, 0.5), (0.0, 1.0)])
def test_slopes_of_iou_aware_cross_entropy_are_those_of_autograd(mixed, gamma, same_as_autograd):
    x, q = _scores()
    same_as_autograd(IA_BCE, x, q, None, mixed=mixed, gamma=gamma, floor=0.05)


@pytest.mark.parametrize("loss_fn", [mal_loss, ia_bce_loss])
def test_compiled_it_is_the_same(loss_fn, same_when_compiled):
    same_when_compiled(loss_fn, *_scores(), reduction="none")


@pytest.mark.parametrize("loss_fn", [mal_loss, ia_bce_loss])
def test_the_set_loss_takes_them_with_its_qualities(loss_fn):
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 4, 3, generator=g, requires_grad=True)
    boxes = 0.3 + 0.3 * torch.rand(1, 4, 4, generator=g)
    given = logits, boxes, boxes[:, :2] + 0.05, torch.tensor([[0, 2]])
    loss = detr_loss(*given, class_loss=loss_fn, quality="iou", l1_gain=0.0, box_gain=0.0)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss > 0
    assert (slope != 0).all()
