"""What a dense head is trained with: soft class scores over anchors, and distributions of sides."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]


def _scores(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Most logits are low, and about one class in eighty is there, with a quality."""
    target = torch.where(torch.rand(size) < 1 / 80, torch.rand(size), 0.0)
    return 2 * torch.randn(size) - 3, target


def _sides(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Distances within the bins, but not in the last: peers differ there."""
    *boxes, bins = size
    return torch.randn(size), (bins - 1.01) * torch.rand(boxes)


def plain_varifocal(logits: Tensor, target: Tensor) -> Tensor:
    """The formula of Zhang et al. 2021, arXiv:2008.13367, eq. 2, with a gradient of its weight."""
    p = logits.sigmoid()
    share = torch.where(target > 0, target, 0.75 * p.pow(2.0))
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (share * nll).mean()


def plain_quality(logits: Tensor, target: Tensor) -> Tensor:
    """The formula of Li et al. 2020, arXiv:2006.04388, eq. 2."""
    off = (target - logits.sigmoid()).abs()
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (off.pow(2.0) * nll).mean()


def plain_distribution(logits: Tensor, target: Tensor) -> Tensor:
    """The formula of Li et al. 2020, arXiv:2006.04388, eq. 6: cross-entropy with either bin."""
    rows, y = logits.flatten(0, -2), target.flatten()
    low = y.long()
    high = low + 1
    left = F.cross_entropy(rows, low, reduction="none") * (high - y)
    right = F.cross_entropy(rows, high, reduction="none") * (y - low)
    return (left + right).mean()


def _case(name: str, uses: str, plain: Loss, size: tuple[int, ...], quick: tuple[int, ...]) -> Case:
    return Case(
        name,
        uses,
        _sides if len(size) == 3 else _scores,
        size=size,
        quick=quick,
        contenders=(
            Contender(OURS, lambda: getattr(aptt.loss, uses)),
            Contender("plain, compiled", lambda: plain, compiled=True),
            Contender("plain", lambda: plain),
        ),
    )


CASES = (
    _case("varifocal", "varifocal_loss", plain_varifocal, (100_000, 80), (500, 80)),
    _case("quality_focal", "quality_focal_loss", plain_quality, (100_000, 80), (500, 80)),
    _case("dfl", "distribution_focal_loss", plain_distribution, (100_000, 4, 16), (600, 4, 16)),
)
