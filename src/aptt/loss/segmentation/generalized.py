"""Generalised Dice loss: one ratio for all classes, each weighed by its rarity.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    loss = 1 - 2 sum_c v I / sum_c v (sum p + sum t)
         = sum_c v (FP + FN) / sum_c v (2 I + FP + FN)        v = 1 / (sum t)**2, of each class

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Sudre et al. 2017, arXiv:1707.03237, section 2.1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers, check_choice
from aptt.core.masks import Mode
from aptt.core.module import per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Pool, RegionOptions, Regions, check_regions, measured, reduced, shares
from aptt.loss.segmentation.module import RegionLoss
from aptt.loss.segmentation.ratio import errors, over, part

__all__ = [
    "GeneralizedDiceLoss",
    "Weighting",
    "check_weighting",
    "generalized_dice_loss",
    "of_all_classes",
]


_POWERS = {"square": 2, "linear": 1, "uniform": 0}
Weighting = Literal["square", "linear", "uniform"]


def generalized_dice_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    weighting: Weighting = "square",
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised Dice loss from logits: one ratio for all classes, each by its rarity.

        loss = 1 - 2 sum_c v I / sum_c v (sum p + sum t)      v = class_weight / (sum t)**2

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or ``(N, C, ...)`` in [0, 1], hard or soft,
            of any dtype; multilabel: like the logits, in [0, 1]; binary: like the logits, with or
            without their single channel.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it. Multilabel: also
            ``(N, C, ...)``, for each class; 1 for an axis along which it is the same.
        weighting: by what power of its area a class counts less: ``"square"``, ``"linear"``, or
            ``"uniform"``, by none.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one more weight per class, inside the ratio; it is not counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is summed with the others.
        absent: what a class without target pixels is worth: ``"skip"`` and ``"zero"``, nothing;
            ``"penalize"``, as much as the rarest. Where all are absent: ``"skip"``, it is not
            counted; ``"zero"``, 0; ``"penalize"``, the mean probability.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over samples: ``"mean"``, ``"sum"``, ``"none"`` for ``()`` or ``(N,)``, or a
            callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1]; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Classes differ in area by orders of magnitude. A class of a few pixels then rules the loss:
        :func:`dice_loss`, which counts every class alike, is steadier.

    Elsewhere:
        MONAI ``GeneralizedDiceLoss``. With ``weighting="uniform", pool="sample",
        absent="penalize"`` it is kornia's ``dice_loss`` as it is by default, and for class indices
        nothing but ``1 - mean p[target]``; with another ``absent`` it is not, for there absent
        classes are pooled with the others.

    Differs from:
        MONAI: ``pool="sample", absent="penalize"`` there, with smoothing; where all classes are
            absent it gives 0 without a gradient.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 2.0, 0.0], [0.0, 0.0, 1.0]]])
        >>> round(generalized_dice_loss(logits, torch.tensor([[0, 0, 1]])).item(), 4)
        0.213
    """
    _check(weighting, mode, background, absent, pool, reduction)
    options = RegionOptions(
        mode, class_weight, weight, ignore_index, background, absent, 0.0, pool, reduction
    )
    regions, _, _ = measured(logits, target, options)
    return of_all_classes(regions, options, weighting, term="generalized_dice")


def of_all_classes(
    regions: Regions, o: RegionOptions, weighting: Weighting, *, term: str
) -> Tensor:
    """The one ratio of all classes, reduced over samples."""
    share = shares(torch.ones_like(regions.truth), regions.class_weight, background=o.background)
    present = (regions.truth > 0) & (share > 0)
    some, truth = present.any(-1), torch.where(present, regions.truth, 1)
    # relative to the rarest class, so that a power of a large area does not underflow
    rarest = torch.where(present, regions.truth, torch.inf).amin(-1, keepdim=True).detach()
    rarest = torch.where(some.unsqueeze(-1), rarest, 1)
    value = torch.where(present, (rarest / truth) ** _POWERS[weighting], o.absent == "penalize")
    miss = errors(regions.false, regions.missed, 0.5, 0.5)
    by = value * share
    loss = part((by * miss).sum(-1), (by * regions.common).sum(-1))
    nothing: Tensor | float = 0.0
    if o.absent == "penalize":
        nothing = over((regions.mean_probability() * share).sum(-1), share.sum(-1))
    loss = torch.where(some, loss, nothing)
    counted = some if o.absent == "skip" else regions.sizes().amax(-1) > 0
    counted = counted.to(loss.dtype)
    return reduced(loss, counted, regions.dtype, o.reduction, o.pool, term=term)


def check_weighting(weighting: str | None, *, absent: str, smooth: float = 0.0) -> None:
    """Refuse a weighting that is unknown, or smoothing beside one."""
    if weighting is None:
        return
    check_choice("weighting", weighting, tuple(_POWERS))
    check_choice("absent", absent, ("skip", "zero", "penalize"))
    if smooth:
        raise ValueError(
            f"smooth: got {smooth} with weighting={weighting!r}, wanted 0: one ratio of all "
            "classes is never 0 / 0 while one of them is there"
        )


def _check(
    weighting: str, mode: Mode, background: bool, absent: str, pool: Pool, reduction: Reduction
) -> None:
    check_choice("weighting", weighting, tuple(_POWERS))
    check_weighting(weighting, absent=absent)
    check_regions(mode, background, absent, pool, reduction)


class GeneralizedDiceLoss(RegionLoss):
    """Module form of :func:`generalized_dice_loss`; same options, same defaults."""

    _function = staticmethod(generalized_dice_loss)

    def __init__(
        self,
        weighting: Weighting = "square",
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(weighting, mode, background, absent, pool, reduction)
        super().__init__(
            weighting=weighting,
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )
