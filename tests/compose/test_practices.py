"""The two classes of the brief as they are written there, each beside its short form."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from aptt import compose
from aptt.compose import Ramp
from aptt.loss import FocalLoss, GIoULoss


class CombinedLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_loss = FocalLoss(alpha=0.25, gamma=2.0)
        self.box_loss = GIoULoss()

    def forward(self, pred_cls, pred_box, target_cls, target_box):
        loss_cls = self.cls_loss(pred_cls, target_cls)
        loss_box = self.box_loss(pred_box, target_box)
        return loss_cls + 5.0 * loss_box


class AdaptiveLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.mtp_lambda = 0.3

    def forward(self, logits, mtp_logits, targets, epoch):
        mtp_weight = self.mtp_lambda * min(1.0, epoch / 10)

        main_loss = F.cross_entropy(logits, targets)
        mtp_loss = self.compute_mtp_loss(mtp_logits, targets)

        return main_loss + mtp_weight * mtp_loss


def ahead(mtp_logits, targets):
    """The logits at position i predict the token after the next."""
    return F.cross_entropy(mtp_logits[:-1], targets[1:])


class Adaptive(AdaptiveLoss):
    def compute_mtp_loss(self, mtp_logits, targets):
        return ahead(mtp_logits, targets)


def test_the_combined_class_and_its_short_form():
    short = compose.CombinedLoss(
        {"cls": FocalLoss(alpha=0.25, gamma=2.0), "box": GIoULoss()},
        weights={"box": 5.0},
        inputs={"cls": ("pred_cls", "target_cls"), "box": ("pred_box", "target_box")},
    )
    torch.manual_seed(0)
    cls, hits = torch.randn(6, 3, requires_grad=True), torch.randint(2, (6, 3)).float()
    box = torch.tensor([[0.0, 0, 2, 2], [5, 5, 6, 7]], requires_grad=True)
    goal = torch.tensor([[1.0, 1, 3, 3], [0, 0, 1, 1]])
    long = CombinedLoss()(cls, box, hits, goal)
    total = short(pred_cls=cls, pred_box=box, target_cls=hits, target_box=goal)
    torch.testing.assert_close(total, long)
    mine = torch.autograd.grad(total, [cls, box])
    torch.testing.assert_close(mine, torch.autograd.grad(long, [cls, box]))
    assert all(slope.abs().max() > 0 for slope in mine)


def test_the_adaptive_class_and_its_short_form():
    short = compose.CombinedLoss(
        {"main": F.cross_entropy, "mtp": ahead},
        weights={"mtp": Ramp(0.0, 0.3, over=10)},
        inputs={"main": ("logits", "targets"), "mtp": ("mtp_logits", "targets")},
    )
    torch.manual_seed(0)
    given = {"logits": torch.randn(7, 5), "mtp_logits": torch.randn(7, 5, requires_grad=True)}
    given["logits"].requires_grad_()
    targets = torch.randint(5, (7,))
    for epoch in range(14):
        long = Adaptive()(**given, targets=targets, epoch=epoch)
        total = short(given, targets=targets)
        torch.testing.assert_close(total, long)
        mine = torch.autograd.grad(total, list(given.values()))
        torch.testing.assert_close(mine, torch.autograd.grad(long, list(given.values())))
        short.step()
    assert short.weight.tolist() == pytest.approx([1.0, 0.3])
