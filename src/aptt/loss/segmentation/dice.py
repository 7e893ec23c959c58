"""Dice loss: the overlap of whole areas, against their sum.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Dice       1 - 2 I / (sum p + sum t) = (FP + FN) / (2 I + FP + FN)
    squared    1 - 2 sum p t / (sum p**2 + sum t**2) = sum (p - t)**2 / (sum p**2 + sum t**2)

averaged over the classes that are present (``absent`` says what becomes of the others). It is
computed from the errors, without the difference from 1, and so keeps its digits near 0.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: squared, Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3; without squares, as most
have it, Drozdzal et al. 2016, arXiv:1608.04117.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers, check_flags
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Absent, Pool, RegionOptions, average, check_regions, measured
from aptt.loss.segmentation.module import RegionLoss
from aptt.loss.segmentation.ratio import of_squares, ratio

__all__ = ["DiceLoss", "dice_loss"]


def dice_loss(
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
    squared: bool = False,
    log: bool = False,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Soft Dice loss from logits.

        loss = 1 - 2 I / (sum p + sum t)      I = sum min(p, t)

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
        squared: squares in the denominator, as V-Net has them: a pixel that is half sure counts a
            quarter there. It is 0 at p = t for soft targets too, and its gradient fades near t.
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
        The regions are small beside the background, or Dice is the metric. Alone it says little
        about confidence: add cross-entropy. With ``pool="sample"`` every image counts alike.
        Where most masks are empty, as those of lesions are, mind the default of ``absent``: an
        image, or with ``pool="batch"`` a batch, without one gives 0 and no gradient, whatever is
        predicted on it. ``"penalize"`` teaches to predict nothing there, and so does a
        cross-entropy beside it.

    Elsewhere:
        MONAI, segmentation-models-pytorch ``DiceLoss``, kornia ``dice_loss``, nnU-Net
        ``SoftDiceLoss``; soft F1.

    Differs from:
        MONAI: per sample and class, and an absent class that is predicted at all costs nearly 1:
            ``pool="sample", absent="smooth", smooth=...`` with half its smoothing constant.
        segmentation-models-pytorch: ``absent="zero"``; the same ``smooth``.
        kornia: from 0.9.0 on ``average="macro"`` is ``pool="sample"``, averaged by sample first;
            before, an absent class cost 1, which is ``absent="smooth", smooth=1e-8``. Its default
            ``"micro"`` pools the classes: :func:`generalized_dice_loss` says how.
        nnU-Net: minus the score, from -1 to 0.
        MONAI ``squared_pred=True``, mmsegmentation ``exponent=2``, CondInst and SOLOv2:
            ``squared=True``, the last two with ``mode="binary", pool="sample"``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        0.3414
    """
    _check(squared, log, mode, background, absent, pool, reduction, smooth)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    regions, _, _ = measured(logits, target, options, log=log, squared=squared)
    if regions.squares is None:
        loss = ratio(regions, 0.5, 0.5, smooth, log=log)
    else:
        error, common = regions.squares
        loss = of_squares(error, common, smooth)
    return average(loss, regions, options, term="dice")


def _check(
    squared: bool,
    log: bool,
    mode: str,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
    smooth: float,
) -> None:
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, log=log)
    check_flags(squared=squared)
    if squared and log:
        raise ValueError(
            "log: got True with squared=True, wanted one of the two: where nearly nothing "
            "overlaps, the sums of squares hold no digit of it"
        )


class DiceLoss(RegionLoss):
    """Module form of :func:`dice_loss`; same options, same defaults."""

    _function = staticmethod(dice_loss)

    def __init__(
        self,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        squared: bool = False,
        log: bool = False,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(squared, log, mode, background, absent, pool, reduction, smooth)
        super().__init__(
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            squared=squared,
            log=log,
            pool=pool,
            reduction=reduction,
        )
