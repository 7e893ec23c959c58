"""Region overlap losses for segmentation: one family over three sums.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Tversky  loss = 1 - (I + s) / (I + alpha FP + beta FN + s)
    Dice     alpha = beta = 1/2:  1 - (2 I + 2 s) / (sum p + sum t + 2 s)

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3; Salehi et al. 2017,
arXiv:1706.05721, eq. 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.module import LossModule, per_class
from aptt.core.overlap import overlap_sums
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import (
    check_choice,
    check_classes,
    check_floating,
    check_number,
    check_range,
    check_shapes,
    check_vector,
)
from aptt.core.streaming import widen

__all__ = ["Absent", "DiceLoss", "Mode", "Pool", "dice_loss"]

Mode = Literal["multiclass", "multilabel", "binary"]
Absent = Literal["skip", "zero", "smooth", "penalize"]
Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft Dice loss from logits."""
    return _overlap_loss(
        logits, target, 0.5, 0.5, mode, weight, pixel_weight, ignore_index, absent, smooth, pool,
        reduction, "dice",
    )  # fmt: skip


def _overlap_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    mode: Mode,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
    absent: Absent,
    smooth: float,
    pool: Pool,
    reduction: Reduction,
    term: str,
) -> Tensor:
    _check_options(mode, absent, smooth, pool, reduction)
    x, t, w = _aligned(logits, target, mode, pixel_weight, ignore_index)
    dtype = widen(x[:0]).dtype
    sums = overlap_sums(x, t, w, softmax=mode == "multiclass")
    pixels = _pixels(x, w).to(sums.dtype)
    sums = torch.cat((sums, pixels.unsqueeze(-1)), dim=-1)
    if pool != "sample":
        sums = sums.sum(0)
        if callable(pool):
            sums = pool(sums)
    common, prediction, truth, pixels = sums.unbind(-1)
    present = truth > 0
    miss = alpha * (prediction - common) + beta * (truth - common)
    whole = common + miss + smooth
    loss = miss / torch.where(whole > 0, whole, 1)
    if absent == "penalize":
        loss = torch.where(present, loss, prediction / torch.where(pixels > 0, pixels, 1))
    elif absent != "smooth":
        loss = torch.where(present, loss, 0)
    counted = present if absent == "skip" else torch.ones_like(present)
    share = counted.to(loss.dtype)
    if weight is not None:
        share = share * check_vector("weight", weight, x.shape[1])
    if reduction == "none":
        return (loss * share).to(dtype)
    total = (loss * share).sum().to(dtype)
    return normalize(total, share.sum().to(dtype), reduction, term=term)


def _aligned(
    logits: Tensor,
    target: Tensor,
    mode: Mode,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits ``(N, C, S)``, the target to match, and the weight of each pixel (0: removed)."""
    check_floating(logits=logits)
    if mode == "binary":
        if target.shape == logits.shape and logits.shape[1:2] == (1,):
            target = target.squeeze(1)
        if logits.shape[1:] == (1, *target.shape[1:]):
            logits = logits.squeeze(1)
        check_shapes(logits=(logits, "N *S"), target=(target, "N *S"))
        logits, target = logits.unsqueeze(1), target.unsqueeze(1)
    indexed = mode == "multiclass" and not target.is_floating_point()
    check_shapes(logits=(logits, "N C *S"), target=(target, "N *S" if indexed else "N C *S"))
    if mode == "multiclass" and logits.shape[1] == 1:
        raise ValueError(
            f"mode: 'multiclass' with logits {tuple(logits.shape)} has a single class, whose "
            "softmax is always 1; wanted mode='binary'"
        )
    x, t = logits.flatten(2), target.flatten(1 if indexed else 2)
    if x.ndim == 2:
        x, t = x.unsqueeze(2), t.unsqueeze(-1)
    keep = None
    if indexed:
        ignored = -100 if ignore_index is None else ignore_index
        check_classes(t, x.shape[1], ignored)
        keep = t != ignored
        t = torch.where(keep, t, 0).long()
    elif ignore_index is not None:
        keep = t != ignore_index
        t = torch.where(keep, t, 0)
    dtype = widen(x[:0]).dtype
    w = None if keep is None else keep.to(dtype)
    if pixel_weight is not None:
        check_shapes(logits=(logits, "N C *S"), pixel_weight=(pixel_weight, "N *S"))
        extra = pixel_weight.flatten(1).reshape(x.shape[0], x.shape[2]).to(dtype)
        w = extra if w is None else w * (extra if indexed else extra.unsqueeze(1))
    if not indexed:
        check_range(t, 0, 1, keep=None if w is None else w != 0)
    return x, t, w


def _pixels(x: Tensor, w: Tensor | None) -> Tensor:
    """How many pixels, by weight, each sample and class has."""
    if w is None:
        return torch.full(x.shape[:2], x.shape[2], device=x.device)
    return w.sum(-1) if w.ndim == x.ndim else w.sum(-1, keepdim=True).expand(x.shape[:2])


def _check_options(mode: str, absent: str, smooth: float, pool: Pool, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_choice("mode", mode, ("multiclass", "multilabel", "binary"))
    check_choice("absent", absent, ("skip", "zero", "smooth", "penalize"))
    check_number("smooth", smooth)
    if absent == "smooth" and smooth == 0:
        raise ValueError("smooth: got 0 with absent='smooth', wanted a positive number of pixels")
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")


class DiceLoss(LossModule):
    """Module form of :func:`dice_loss`; same options, same defaults."""

    def __init__(
        self,
        mode: Mode = "multiclass",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(mode, absent, smooth, pool, reduction)
        super().__init__(
            mode=mode,
            weight=per_class(weight),
            ignore_index=ignore_index,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )

    def forward(
        self, logits: Tensor, target: Tensor, *, pixel_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return dice_loss(logits, target, pixel_weight=pixel_weight, **self.options())
