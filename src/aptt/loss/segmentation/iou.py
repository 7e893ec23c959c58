"""IoU (Jaccard) loss: the overlap of whole areas, against their union.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    IoU     1 - I / (sum p + sum t - I) = (FP + FN) / (I + FP + FN)

averaged over the classes that are present (``absent`` says what becomes of the others). It is
computed from the errors, without the difference from 1, and so keeps its digits near 0.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: the intersection with soft targets, Wang et al. 2023, arXiv:2302.05666, eq. 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction
from aptt.core.regions import Absent, Pool, RegionOptions, average, check_regions, measured
from aptt.loss.segmentation.module import RegionLoss
from aptt.loss.segmentation.ratio import ratio

__all__ = ["IoULoss", "mask_iou_loss"]


def mask_iou_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
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
    """Soft IoU (Jaccard) loss from logits.

        loss = 1 - I / (sum p + sum t - I)      I = sum min(p, t)

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
        IoU is the metric of masks. It ranks as Dice does, and punishes poor overlap harder. For
        boxes there is :func:`box_iou_loss`.

    Elsewhere:
        segmentation-models-pytorch ``JaccardLoss``, MONAI ``DiceLoss(jaccard=True)``.

    Differs from:
        MONAI: ``DiceLoss(jaccard=True)`` adds its smoothing once to ``sum p + sum t - I``, and half
            of it to I; here ``smooth`` is added to both.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(mask_iou_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        0.509
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, log=log)
    if mode == "multiclass":
        _refuse_boxes(logits, target)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options, log=log)
    loss = ratio(regions, 1.0, 1.0, smooth, log=log)
    return average(loss, regions, options, term="mask_iou")


def _refuse_boxes(logits: Tensor, target: Numbers) -> None:
    """Tell who brings boxes, four numbers a row, that they have a loss of their own."""
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
        return
    if logits.shape != target.shape or logits.shape[1:] != (4,) or not target.is_floating_point():
        return
    if not (len(target) and is_readable(logits) and is_readable(target)):
        return
    beyond = bool((target > 1).any())
    both = torch.cat((logits.detach(), target.detach().to(logits.dtype)))
    corners = bool((both >= 0).all()) and bool((both[:, 2:] > both[:, :2]).all())
    if beyond or (corners and bool((target.sum(1) > 1.001).all())):
        raise ValueError(
            f"target: got {tuple(target.shape)} numbers that read as boxes, wanted class indices "
            "or masks; IoULoss (mask_iou_loss) is for masks, and for boxes there is BoxIoULoss "
            "(box_iou_loss)"
        )


class IoULoss(RegionLoss):
    """Module form of :func:`mask_iou_loss`; same options, same defaults.

    It is for masks; that of boxes is :class:`aptt.loss.BoxIoULoss`.
    """

    _function = staticmethod(mask_iou_loss)

    def __init__(
        self,
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
        check_regions(mode, background, absent, pool, reduction, smooth=smooth, log=log)
        super().__init__(
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
