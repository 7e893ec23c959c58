"""Focal Tversky loss: the Tversky loss of each class to a power.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    loss = ((alpha FP + beta FN) / (I + alpha FP + beta FN + s))**gamma        s: smooth

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: focal Tversky, Abraham and Khan 2018, arXiv:1810.07842, eq. 4; Tversky, Salehi et al. 2017,
arXiv:1706.05721, eq. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers
from aptt.core.logistic import power
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Absent, Pool, RegionOptions, average, check_regions, measured
from aptt.loss.segmentation.module import RegionLoss
from aptt.loss.segmentation.ratio import ratio

__all__ = ["FocalTverskyLoss", "focal_tversky_loss"]


def focal_tversky_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 0.75,
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Tversky loss of each class to a power.

        loss = (1 - I / (I + alpha FP + beta FN))**gamma

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or ``(N, C, ...)`` in [0, 1], hard or soft,
            of any dtype; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        alpha: what a false positive weighs.
        beta: what a false negative weighs; above ``alpha`` for recall, below it for precision.
        gamma: the exponent, above 0: below 1 it sharpens the last errors, above 1 it fades them.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted, and what
            is wrongly taken for it has no gradient; ``"zero"``, nothing, and it is
            counted; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its mean
            probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Classes that are nearly right should still be pushed (gamma < 1), or left alone (> 1).

    Elsewhere:
        segmentation-models-pytorch ``TverskyLoss(gamma=...)``.

    Differs from:
        The paper: its exponent is 1 / gamma.
        segmentation-models-pytorch: raises the mean over the classes; here each class.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> target = torch.tensor([[[1, 0, 0]]])
        >>> round(focal_tversky_loss(logits, target, mode="binary").item(), 4)
        0.4466
    """
    check_regions(
        mode,
        background,
        absent,
        pool,
        reduction,
        smooth=smooth,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
    )
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    loss = ratio(regions, alpha, beta, smooth)
    if gamma != 1:
        none = loss <= 0  # where the slope of a power below 1 is infinite; a NaN stays one
        loss = torch.where(none, 0, power(torch.where(none, 1, loss), gamma))
    return average(loss, regions, options, term="focal_tversky")


class FocalTverskyLoss(RegionLoss):
    """Module form of :func:`focal_tversky_loss`; same options, same defaults."""

    _function = staticmethod(focal_tversky_loss)

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 0.75,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        check_regions(
            mode,
            background,
            absent,
            pool,
            reduction,
            smooth=smooth,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
        )
        super().__init__(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            pool=pool,
            reduction=reduction,
        )
