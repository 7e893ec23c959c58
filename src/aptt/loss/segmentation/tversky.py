"""Tversky loss: overlap with a price for each kind of error.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Tversky    1 - (I + s) / (I + alpha FP + beta FN + s)        s: smooth
               = (alpha FP + beta FN) / (I + alpha FP + beta FN + s)

averaged over the classes that are present (``absent`` says what becomes of the others). Dice is
alpha = beta = 1/2, IoU alpha = beta = 1.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Tversky, Salehi et al. 2017, arXiv:1706.05721, eq. 3.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Absent, Pool, RegionOptions, average, check_regions, measured
from aptt.loss.segmentation.module import RegionLoss
from aptt.loss.segmentation.ratio import ratio

__all__ = ["TverskyLoss", "tversky_loss"]


def tversky_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float = 0.5,
    beta: float = 0.5,
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    log: bool = False,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Tversky loss from logits: Dice with a price for each kind of error.

        loss = 1 - I / (I + alpha FP + beta FN)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or ``(N, C, ...)`` in [0, 1], hard or soft,
            of any dtype; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        alpha: what a false positive weighs.
        beta: what a false negative weighs; above ``alpha`` for recall, below it for precision.
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
        log: minus the logarithm of the ratio, not 1 less it.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction. float32 for half types. With
        ``log`` it is infinite by definition where nothing overlaps; it ends at ``-log 1e-30``,
        which is 69.1.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Missing a region and inventing one do not cost the same.

    Elsewhere:
        MONAI, segmentation-models-pytorch ``TverskyLoss``, kornia ``tversky_loss``.

    Differs from:
        MONAI, kornia, segmentation-models-pytorch: the same alpha and beta. Some papers name them
            the other way round. Absent classes: as in :func:`dice_loss`.
        kornia: from 0.9.0 on it is ``pool="sample"``, averaged by sample first; before, it pooled
            all classes of a sample, which with hard targets weighs none: at ``alpha + beta = 1`` it
            was ``1 - mean p[target]``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> target = torch.tensor([[[1, 0, 0]]])
        >>> round(tversky_loss(logits, target, mode="binary", alpha=0.3, beta=0.7).item(), 4)
        0.2415
    """
    check_regions(
        mode, background, absent, pool, reduction, smooth=smooth, log=log, alpha=alpha, beta=beta
    )
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options, log=log)
    loss = ratio(regions, alpha, beta, smooth, log=log)
    return average(loss, regions, options, term="tversky")


class TverskyLoss(RegionLoss):
    """Module form of :func:`tversky_loss`; same options, same defaults."""

    _function = staticmethod(tversky_loss)

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        log: bool = False,
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
            log=log,
            alpha=alpha,
            beta=beta,
        )
        super().__init__(
            alpha=alpha,
            beta=beta,
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            log=log,
            pool=pool,
            reduction=reduction,
        )
