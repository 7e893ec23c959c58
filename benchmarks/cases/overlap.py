"""Region overlap losses of a softmax, averaged over the classes.

Dice, Jaccard and Tversky are one formula, ``1 - I / (I + alpha FP + beta FN)``. Peers differ in
what they pool: kornia and MONAI take the ratio for each sample and class, segmentation-models-
pytorch for each class of the batch. Each stands against ours with the same ``pool``. Every class
is present in every sample, so it does not matter what becomes of absent ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss
from benchmarks.peers import smp_losses

__all__ = ["CASES"]

_BATCH = f"{OURS}, pool='batch'"


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    samples, classes, *pixels = size
    return torch.randn(size), torch.randint(classes, (samples, *pixels))


def plain(logits: Tensor, target: Tensor, alpha: float, beta: float) -> Tensor:
    """Salehi et al. 2017, arXiv:1706.05721, eq. 3, for each sample and class."""
    p = logits.softmax(1)
    classes = torch.arange(p.shape[1], device=p.device).view(1, -1, 1, 1)
    t = (classes == target.unsqueeze(1)).to(p.dtype)
    common, prediction, truth = (p * t).sum((2, 3)), p.sum((2, 3)), t.sum((2, 3))
    whole = common + alpha * (prediction - common) + beta * (truth - common)
    return 1 - (common / whole).mean()


def _kornia_dice() -> Loss:
    from kornia.losses import dice_loss

    return partial(dice_loss, average="macro")


def _kornia_tversky(alpha: float, beta: float) -> Loss:
    from kornia.losses import tversky_loss

    return partial(tversky_loss, alpha=alpha, beta=beta)


def _monai(name: str, **options: Any) -> Loss:
    import monai.losses

    loss = getattr(monai.losses, name)(softmax=True, to_onehot_y=True, **options)
    return lambda x, t: loss(x, t.unsqueeze(1))


def _case(
    name: str,
    uses: str,
    shares: tuple[float, float],
    kornia: Callable[[], Loss],
    monai: Callable[[], Loss],
    smp: Callable[[], Loss],
    **options: Any,
) -> Case:
    def ours(pool: str) -> Callable[[], Loss]:
        return lambda: partial(getattr(aptt.loss, uses), pool=pool, **options)

    formula = partial(plain, alpha=shares[0], beta=shares[1])
    return Case(
        name,
        uses,
        _inputs,
        size=(8, 21, 512, 512),
        quick=(2, 3, 96, 96),
        contenders=(
            Contender(OURS, ours("sample")),
            Contender("plain, compiled", lambda: formula, compiled=True),
            Contender("kornia", kornia),
            Contender("monai", monai),
            Contender(_BATCH, ours("batch"), against=_BATCH),
            Contender("smp", smp, against=_BATCH),
        ),
    )


CASES = (
    _case(
        "dice",
        "dice_loss",
        (0.5, 0.5),
        kornia=_kornia_dice,
        monai=lambda: _monai("DiceLoss"),
        smp=lambda: smp_losses().DiceLoss("multiclass"),
    ),
    _case(
        "jaccard",
        "mask_iou_loss",
        (1.0, 1.0),
        kornia=lambda: _kornia_tversky(1.0, 1.0),
        monai=lambda: _monai("DiceLoss", jaccard=True),
        smp=lambda: smp_losses().JaccardLoss("multiclass"),
    ),
    _case(
        "tversky",
        "tversky_loss",
        (0.3, 0.7),
        kornia=lambda: _kornia_tversky(0.3, 0.7),
        monai=lambda: _monai("TverskyLoss", alpha=0.3, beta=0.7),
        smp=lambda: smp_losses().TverskyLoss("multiclass", alpha=0.3, beta=0.7),
        alpha=0.3,
        beta=0.7,
    ),
)
