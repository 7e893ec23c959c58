"""Losses of whole regions beside the plain ratios: compounds, generalised Dice, Lovasz.

As in the cases of Dice and its kin, peers differ in what they pool, each stands against ours with
the same ``pool``, and every class is present in every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss
from benchmarks.cases import overlap
from benchmarks.peers import smp_losses

__all__ = ["CASES"]

_BATCH = f"{OURS}, pool='batch'"
_UNIFORM = f"{OURS}, weighting='uniform'"
# Peers, and the plain form, take differences of J in float32: a step of 1e-5 keeps 3 digits.
_STEPS = 2e-2


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    samples, classes, *pixels = size
    return torch.randn(size), torch.randint(classes, (samples, *pixels))


def plain_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Dice for each sample and class, plus cross-entropy."""
    return overlap.plain(logits, target, 0.5, 0.5) + F.cross_entropy(logits, target)


def plain_generalized(logits: Tensor, target: Tensor) -> Tensor:
    """Sudre et al. 2017, arXiv:1707.03237, section 2.1, for each sample."""
    p, t = logits.softmax(1), _one_hot(logits, target)
    common, both, truth = (p * t).sum((2, 3)), (p + t).sum((2, 3)), t.sum((2, 3))
    weight = truth**-2
    return 1 - (2 * (weight * common).sum(1) / (weight * both).sum(1)).mean()


def plain_lovasz(logits: Tensor, target: Tensor) -> Tensor:
    """Berman et al. 2018, arXiv:1705.08790, algorithm 1, for each sample and class."""
    t = _one_hot(logits, target)
    errors, order = (t - logits.softmax(1)).abs().flatten(2).sort(dim=2, descending=True)
    t = t.flatten(2).gather(2, order)
    total = t.sum(2, keepdim=True)
    jaccard = 1 - (total - t.cumsum(2)) / (total + (1 - t).cumsum(2))
    steps = jaccard.diff(dim=2, prepend=torch.zeros_like(total))
    return (errors * steps).sum(2).mean()


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    return (classes == target.unsqueeze(1)).to(logits.dtype)


def _monai(name: str, **options: float) -> Loss:
    import monai.losses

    loss = getattr(monai.losses, name)(softmax=True, to_onehot_y=True, **options)
    return lambda x, t: loss(x, t.unsqueeze(1))


def _smp_dice_ce() -> Loss:
    dice = smp_losses().DiceLoss("multiclass")
    return lambda x, t: dice(x, t) + F.cross_entropy(x, t)


def _kornia(name: str) -> Loss:
    import kornia.losses

    loss: Loss = getattr(kornia.losses, name)
    return loss


def _ours(name: str, **options: str) -> Callable[[], Loss]:
    return lambda: partial(getattr(aptt.loss, name), **options)


def _case(name: str, uses: str, *contenders: Contender) -> Case:
    return Case(
        name, uses, _inputs, size=(8, 21, 512, 512), quick=(2, 3, 96, 96), contenders=contenders
    )


CASES = (
    _case(
        "dice_ce",
        "dice_ce_loss",
        Contender(OURS, _ours("dice_ce_loss", pool="sample")),
        Contender("plain, compiled", lambda: plain_dice_ce, compiled=True),
        Contender("monai", lambda: _monai("DiceCELoss")),
        Contender(_BATCH, _ours("dice_ce_loss"), against=_BATCH),
        Contender("smp + torch", _smp_dice_ce, against=_BATCH),
    ),
    _case(
        "generalized_dice",
        "generalized_dice_loss",
        Contender(OURS, _ours("generalized_dice_loss", pool="sample")),
        Contender("plain, compiled", lambda: plain_generalized, compiled=True),
        Contender("monai", lambda: _monai("GeneralizedDiceLoss", smooth_nr=0.0, smooth_dr=0.0)),
        Contender(
            _UNIFORM,
            _ours("generalized_dice_loss", pool="sample", weighting="uniform"),
            against=_UNIFORM,
        ),
        Contender("kornia, micro", lambda: _kornia("dice_loss"), against=_UNIFORM),
    ),
    _case(
        "lovasz",
        "lovasz_loss",
        Contender(OURS, _ours("lovasz_loss", pool="sample")),
        Contender("plain, compiled", lambda: plain_lovasz, compiled=True, tolerance=_STEPS),
        Contender("kornia", lambda: _kornia("lovasz_softmax_loss"), tolerance=_STEPS),
        Contender(_BATCH, _ours("lovasz_loss"), against=_BATCH),
        Contender(
            "smp",
            lambda: smp_losses().LovaszLoss("multiclass"),
            against=_BATCH,
            tolerance=_STEPS,
        ),
    ),
)
