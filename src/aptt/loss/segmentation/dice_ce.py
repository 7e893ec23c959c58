"""Dice and cross-entropy of the same logits, in one walk over them.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    loss = dice_weight (FP + FN) / (2 I + FP + FN) + ce_weight mean -log q

with q the probability of the right answer; the first term is averaged over classes.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Dice, Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers, check_number
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Absent, Pool, RegionOptions, check_regions
from aptt.loss.segmentation.compound import compound, scaled
from aptt.loss.segmentation.generalized import Weighting, check_weighting
from aptt.loss.segmentation.module import RegionLoss

__all__ = ["DiceCELoss", "dice_ce_loss", "dice_ce_terms"]


def dice_ce_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Absent = "skip",
    smooth: float = 0.0,
    weighting: Weighting | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice and cross-entropy of the same logits, in one walk over them.

        loss = dice_weight * dice + ce_weight * cross_entropy

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or ``(N, C, ...)`` in [0, 1], hard or soft,
            of any dtype; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        dice_weight: what the Dice term is multiplied by.
        ce_weight: what the cross-entropy is multiplied by: of a softmax, or of each sigmoid.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class, for both terms; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is in the Dice term; it is in the cross-entropy.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted, and what
            is wrongly taken for it has no gradient from this term; ``"zero"``, nothing, and it is
            counted; ``"smooth"``, what ``smooth`` makes of it; ``"penalize"``, its mean
            probability, which has a gradient wherever it is predicted.
        smooth: pixels added to numerator and denominator of Dice.
        weighting: None: Dice of each class, averaged. ``"square"``, ``"linear"``, ``"uniform"``:
            one ratio for all classes, each by that power of its rarity, as in
            :func:`generalized_dice_loss`, with ``absent`` as there.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: ``"mean"``: Dice over classes (and samples), cross-entropy over pixels, each by
            weight; ``"sum"``; or a callable ``(total, count, *, term)``, called for each term,
            ``"dice"`` and ``"cross_entropy"``. There is no ``"none"``: the terms have no common
            shape.

    Returns:
        The loss, at least 0; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        In doubt, for segmentation: cross-entropy gives every pixel a gradient, and Dice keeps the
        small classes in sight. With the hardest pixels alone, as nnU-Net's ``DC_and_topk_loss``:
        :class:`aptt.compose.CombinedLoss` of :class:`DiceLoss` and :class:`TopKCrossEntropyLoss`.

    Elsewhere:
        MONAI ``DiceCELoss``, nnU-Net ``DC_and_CE_loss``; for masks also Dice + BCE.

    Differs from:
        MONAI: the second term follows the mode: binary cross-entropy of each label, where
            ``DiceCELoss(sigmoid=True)`` takes that of a softmax; pixels can be ignored.
        nnU-Net: Dice there is minus the score, so that the sum starts below 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_ce_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        1.6929
    """
    check_number("dice_weight", dice_weight)
    check_number("ce_weight", ce_weight)
    terms = dice_ce_terms(
        logits,
        target,
        mode=mode,
        class_weight=class_weight,
        weight=weight,
        ignore_index=ignore_index,
        background=background,
        absent=absent,
        smooth=smooth,
        weighting=weighting,
        pool=pool,
        reduction=reduction,
    )
    return scaled(terms["dice"], dice_weight) + scaled(terms["cross_entropy"], ce_weight)


def dice_ce_terms(
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
    weighting: Weighting | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`dice_ce_loss`, each before its weight.

    Args as there.

    Returns:
        ``{"dice": ..., "cross_entropy": ...}``.

    Example:
        >>> import torch
        >>> terms = dice_ce_terms(torch.zeros(1, 2, 3), torch.tensor([[0, 0, 1]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'dice': 0.5143, 'cross_entropy': 0.6931}
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False)
    check_weighting(weighting, absent=absent, smooth=smooth)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    return compound(logits, target, options, weighting=weighting, gamma=0.0, term="cross_entropy")


class DiceCELoss(RegionLoss):
    """Module form of :func:`dice_ce_loss`; same options, same defaults."""

    _function = staticmethod(dice_ce_loss)
    terms_function = staticmethod(dice_ce_terms)

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Absent = "skip",
        smooth: float = 0.0,
        weighting: Weighting | None = None,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        check_number("dice_weight", dice_weight)
        check_number("ce_weight", ce_weight)
        check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False)
        check_weighting(weighting, absent=absent, smooth=smooth)
        super().__init__(
            dice_weight=dice_weight,
            ce_weight=ce_weight,
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            smooth=smooth,
            weighting=weighting,
            pool=pool,
            reduction=reduction,
        )
