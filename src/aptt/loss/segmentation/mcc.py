"""Loss of Matthews' correlation: of the whole table of right and wrong, the background included.

    TP = sum min(p, t)    FP = sum p - TP    FN = sum t - TP    TN = N - TP - FP - FN

    MCC    1 - (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))

over the pixels that are pooled, averaged over the classes that are present. With all in shares of
N, and B the root, the same is

    (TP**2 d2 + TN**2 d1 + d1 d2) / (B (B + TP TN)) + FP FN / B
    d1 = TP (FP + FN) + FP FN        d2 = TN (FP + FN) + FP FN

where nothing is a difference, and so nothing cancels near 0.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Abhishek and Hamarneh, "Matthews Correlation Coefficient Loss for Deep Convolutional Networks:
Application to Skin Lesion Segmentation", ISBI 2021, doi 10.1109/ISBI48211.2021.9433782.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.precision import widest
from aptt.core.reduction import Reduction
from aptt.core.regions import Pool, RegionOptions, check_regions, measured, reduced, shares
from aptt.loss.segmentation.module import RegionLoss

__all__ = ["MCCLoss", "mcc_loss"]

_ALL = 1e-6  # of the pixels, which single precision may not tell from nothing


def mcc_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Loss of Matthews' correlation coefficient from logits.

        loss = 1 - (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or ``(N, C, ...)`` in [0, 1], hard or soft,
            of any dtype; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class costs that has no target pixels, or all of them but a millionth:
            ``"skip"``, it is not counted; ``"zero"``, nothing, and it is counted; ``"penalize"``,
            its mean probability, or what is missing from 1 where it has all.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``. Single
            samples often have but one class.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 2] per class: 0 for a perfect prediction, 1 for one that says nothing,
        2 for its opposite. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only. A class that is
    predicted nowhere, or everywhere, has a correlation of 0 / 0, and a loss of 1: below a quarter
    of a pixel's share the slope, which is infinite there, is held at that of it.

    Use when:
        Background that is found should count as well, and classes are far from balanced.

    Elsewhere:
        segmentation-models-pytorch ``MCCLoss`` (binary, of a batch); MONAI ``MCCLoss``.

    Differs from:
        Both: computed in shares of the pixels and not from a product of four sums, which overflows
            in float16; a target of one class alone has a policy, where MONAI's value is 1 with a
            gradient of 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.8, 0.6, 0.2, 0.4]]]).logit()
        >>> round(mcc_loss(logits, torch.tensor([[[1, 1, 0, 0]]]), mode="binary").item(), 4)
        0.6
    """
    _check(mode, background, absent, pool, reduction)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, 0.0, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    size = regions.sizes()
    dtype = widest(regions.false)
    some = torch.where(size > 0, size, 1).to(dtype)
    truth, false, missed = (
        v.to(dtype) / some for v in (regions.truth, regions.false, regions.missed)
    )
    full = 1 - truth <= _ALL
    present = (truth > 0) & ~full
    loss = _of_shares(torch.where(present, truth, 0.5), false, missed, some)
    if absent == "penalize":
        alone = torch.where(full, missed, (truth - missed) + false)
        loss = torch.where(present, loss, alone)
    else:
        loss = torch.where(present, loss, 0.0)
    counted = present if absent == "skip" else size > 0
    share = shares(counted, regions.class_weight, background=background)
    return reduced(loss, share, regions.dtype, reduction, pool, term="mcc")


def _of_shares(truth: Tensor, false: Tensor, missed: Tensor, size: Tensor) -> Tensor:
    """The loss, of shares of the pixels; a truth of neither 0 nor 1."""
    hit, right = truth - missed, 1 - truth - false
    hit, right = (v - v.detach().clamp(max=0) for v in (hit, right))  # of rounding; with its slope
    wrong, both = false + missed, false * missed
    predicted, other = hit + false, right + missed
    spread = predicted * other
    least = 1 / (4 * size * size)
    few = spread < least
    fixed = truth * (1 - truth)
    root = (torch.where(few, least, spread) * fixed).sqrt()
    d1, d2 = hit * wrong + both, right * wrong + both
    exact = (hit.square() * d2 + right.square() * d1 + d1 * d2) / (root + hit * right) + both
    return torch.where(few, 1 - (hit * right - both) / root, exact / root)


def _check(mode: str, background: bool, absent: str, pool: Pool, reduction: Reduction) -> None:
    policies = ("skip", "zero", "penalize")
    check_regions(mode, background, absent, pool, reduction, policies=policies)


class MCCLoss(RegionLoss):
    """Module form of :func:`mcc_loss`; same options, same defaults."""

    _function = staticmethod(mcc_loss)

    def __init__(
        self,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(mode, background, absent, pool, reduction)
        super().__init__(
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )
