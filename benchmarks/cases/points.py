"""Penalty-reduced focal loss over the heat maps of a dense detector."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender

__all__ = ["CASES"]

_OBJECTS = 20  # in an image


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits of an untrained head, about one pixel in ten, and targets with objects everywhere."""
    images, classes, height, width = size
    low = torch.rand(images, _OBJECTS, 2) * torch.tensor([width, height]) * 0.9
    sides = 1 + torch.rand(images, _OBJECTS, 2) * torch.tensor([width, height]) * 0.3
    targets = aptt.loss.centernet_targets(
        torch.cat((low, low + sides), 2),
        torch.randint(classes, (images, _OBJECTS)),
        num_classes=classes,
        size=(height, width),
        stride=1.0,
    )
    return torch.randn(size) - 2.19, targets["hm"]


def clamped(logits: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Zhou et al. 2019, arXiv:1904.07850, eq. 1, of probabilities kept from 0 and 1, as is usual.

    Logits stay below 9.2 here, so the clamp changes nothing.
    """
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = target.eq(1).float()
    there = (1 - p) ** alpha * p.log() * peak
    elsewhere = (1 - target) ** beta * p**alpha * (1 - p).log() * (1 - peak)
    return -(there.sum() + elsewhere.sum()) / peak.sum().clamp(min=1)


def plain(logits: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """The same from logits."""
    p = logits.sigmoid()
    peak = target.eq(1).float()
    there = (1 - p) ** alpha * F.softplus(-logits) * peak
    elsewhere = (1 - target) ** beta * p**alpha * F.softplus(logits) * (1 - peak)
    return (there + elsewhere).sum() / peak.sum().clamp(min=1)


CASES = (
    Case(
        "heatmap_focal",
        "heatmap_loss",
        _inputs,
        size=(16, 80, 128, 128),
        quick=(2, 3, 40, 40),
        contenders=(
            Contender(OURS, lambda: partial(aptt.loss.heatmap_loss, kind="focal")),
            Contender("plain, compiled", lambda: plain, compiled=True),
            Contender("clamped, compiled", lambda: clamped, compiled=True),
            Contender("plain", lambda: plain),
            Contender("clamped", lambda: clamped),
        ),
    ),
)
