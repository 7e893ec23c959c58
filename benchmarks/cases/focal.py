"""Sigmoid focal loss over the anchors and classes of a dense detector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss
from benchmarks.peers import smp_losses

__all__ = ["CASES"]


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """About one class in eighty is there."""
    return torch.randn(size), (torch.rand(size) < 1 / 80).float()


def plain(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The formula of Lin et al. 2017, arXiv:1708.02002, eq. 5, from cross-entropy and sigmoid."""
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = alpha * target + (1 - alpha) * (1 - target)
    return (share * (1 - right) ** gamma * nll).mean()


def _kornia() -> Loss:
    from kornia.losses import binary_focal_loss_with_logits

    return lambda x, t: binary_focal_loss_with_logits(x, t, alpha=0.25, gamma=2.0, reduction="mean")


def _monai() -> Loss:
    from monai.losses import FocalLoss

    return FocalLoss(alpha=0.25, gamma=2.0)


def _smp() -> Loss:
    return smp_losses().FocalLoss("binary", alpha=0.25, gamma=2.0)


CASES = (
    Case(
        "focal",
        "focal_loss",
        _inputs,
        size=(8, 100_000, 80),
        quick=(2, 300, 80),
        contenders=(
            Contender(OURS, lambda: aptt.loss.focal_loss),
            Contender("plain, compiled", lambda: plain, compiled=True),
            Contender("plain", lambda: plain),
            Contender("smp", _smp),
            Contender("kornia", _kornia),
            Contender("monai", _monai),
        ),
    ),
)
