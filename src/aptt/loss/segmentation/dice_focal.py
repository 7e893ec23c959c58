"""Dice and focal loss of the same logits, in one walk over them.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    loss = dice_weight (FP + FN) / (2 I + FP + FN) + focal_weight mean (1 - q)**gamma -log q

with q the probability of the right answer; the first term is averaged over classes.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Dice, Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3; focal, Lin et al. 2017,
arXiv:1708.02002, eq. 5.
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

__all__ = ["DiceFocalLoss", "dice_focal_loss", "dice_focal_terms"]


def dice_focal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    gamma: float = 2.0,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
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
    """Dice and focal loss of the same logits, in one walk over them.

        loss = dice_weight * dice + focal_weight * (1 - p)**gamma * -log p

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or their one-hot mask like the logits, of
            an integer dtype or bool; multilabel: 0 and 1, like the logits; binary: 0 and 1, like
            the logits, with or without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        gamma: how fast easy pixels fade, above 0; at 0 it would be :func:`dice_ce_loss`.
        dice_weight: what the Dice term is multiplied by.
        focal_weight: what the focal term is multiplied by: of a softmax, or of each sigmoid.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class, for both terms; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is in the Dice term; it is in the focal term.
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
        reduction: ``"mean"``: Dice over classes (and samples), focal over pixels, each by weight;
            ``"sum"``; or a callable ``(total, count, *, term)``, called for each term, ``"dice"``
            and ``"focal"``. There is no ``"none"``: the terms have no common shape.

    Returns:
        The loss, at least 0; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights that ask for it.

    Use when:
        Most pixels are easy, and cross-entropy would be spent on them.

    Elsewhere:
        MONAI ``DiceFocalLoss``; with ``weighting="square"`` its ``GeneralizedDiceFocalLoss``.

    Differs from:
        MONAI: the focal term is of a softmax in a multiclass problem, and its mean is over pixels,
            not pixels times classes.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(dice_focal_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        1.633
    """
    check_number("dice_weight", dice_weight)
    check_number("focal_weight", focal_weight)
    terms = dice_focal_terms(
        logits,
        target,
        gamma=gamma,
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
    return scaled(terms["dice"], dice_weight) + scaled(terms["focal"], focal_weight)


def dice_focal_terms(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    gamma: float = 2.0,
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
    """The terms of :func:`dice_focal_loss`, each before its weight.

    Args as there.

    Returns:
        ``{"dice": ..., "focal": ...}``.

    Example:
        >>> import torch
        >>> terms = dice_focal_terms(torch.zeros(1, 2, 3), torch.tensor([[0, 0, 1]]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'dice': 0.5143, 'focal': 0.1733}
    """
    check_regions(mode, background, absent, pool, reduction, smooth=smooth, none=False, gamma=gamma)
    check_weighting(weighting, absent=absent, smooth=smooth)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, smooth, pool, reduction
    )
    return compound(logits, target, options, weighting=weighting, gamma=gamma, term="focal")


class DiceFocalLoss(RegionLoss):
    """Module form of :func:`dice_focal_loss`; same options, same defaults."""

    _function = staticmethod(dice_focal_loss)
    terms_function = staticmethod(dice_focal_terms)

    def __init__(
        self,
        gamma: float = 2.0,
        dice_weight: float = 1.0,
        focal_weight: float = 1.0,
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
        check_number("focal_weight", focal_weight)
        check_regions(
            mode, background, absent, pool, reduction, smooth=smooth, none=False, gamma=gamma
        )
        check_weighting(weighting, absent=absent, smooth=smooth)
        super().__init__(
            gamma=gamma,
            dice_weight=dice_weight,
            focal_weight=focal_weight,
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
