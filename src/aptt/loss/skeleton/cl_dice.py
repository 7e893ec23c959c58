"""clDice: precision and sensitivity of skeletons, which are lost where a thin tube is cut.

    P = sum S_p t / sum S_p      how much of the predicted skeleton lies in the target
    R = sum S_t p / sum S_t      how much of the target's skeleton is predicted
    loss = 1 - 2 P R / (P + R)

over the pixels that are pooled, averaged over the classes that are present; S is the soft skeleton.

Axes: logits ``(N, C, *S)``; target ``(N, *S)`` class indices, or like the logits.
From: Shit et al., "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure
Segmentation", CVPR 2021, arXiv:2003.07311, section 2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, ignored
from aptt.core.masks import Mode, check_class_weight, of_classes
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Pool, check_regions, reduced, shares
from aptt.core.skeleton import Border
from aptt.loss.skeleton.soft import check_skeleton
from aptt.loss.skeleton.sums import Sums, least, parts, skeleton_sums

__all__ = ["ClDiceLoss", "cl_dice_loss", "cl_dice_terms"]


def cl_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    skeleton: Tensor | None = None,
    iterations: int = 3,
    border: Border = "open",
    mode: Mode = "multiclass",
    class_weight: Tensor | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """ClDice loss from logits: whether thin structures hang together.

        loss = 1 - 2 P R / (P + R)

    Args:
        logits: ``(N, C, *S)``, an image of any number of axes; binary also ``(N, *S)``. Any
            floating dtype.
        target: multiclass: class indices ``(N, *S)``, or one-hot ``(N, C, *S)`` of an integer
            dtype; multilabel: 0 and 1, like the logits; binary: like the logits, with or without
            their single channel.
        weight: ``(N, *S)``, the part of each pixel in every sum; where it is 0 there is background.
            Multilabel: also ``(N, C, *S)``, for each class; 1 for an axis along which it is the
            same.
        skeleton: the target's, of the shape of the logits, made ahead. None: made here.
        iterations: how often masks are eroded: at least the largest half width, or wide tubes
            have no skeleton, and say nothing.
        border: what lies beyond the frame: ``"open"``, nothing, so that what touches the frame
            goes on there; ``"background"``.
        mode: ``"multiclass"`` (softmax), ``"multilabel"`` or ``"binary"`` (sigmoid).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is averaged with the others; it is no tube.
        absent: what a class costs whose target has no skeleton: ``"skip"``, it is not counted;
            ``"zero"``, nothing, and it is counted; ``"penalize"``, its mean probability where it
            has no pixels, and nothing where they are too wide for a skeleton.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] per class; 0 for a perfect prediction, 1 where no skeleton is predicted.
        float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to weights that ask for it; the target's skeleton is a
    constant. The sums of a ratio cannot be split: micro-batches are exact with ``pool="sample"``
    only. An erosion cannot leave a pixel out of its neighbours: what is removed is background to
    the skeleton, and has no part in the sums.

    Use when:
        Vessels, roads, rivers or neurites must not be cut, and the metric counts components or
        skeletons. Never alone: a mask may be any width about its skeleton, and where no skeleton
        is predicted the loss is 1 without a gradient. The authors take
        ``(1 - a) Dice + a clDice`` with a = 0.5. Skeleton recall, :func:`tversky_loss` with
        ``alpha=0, beta=1`` against a skeleton made ahead, asks half of it for a tenth of the work.

    Elsewhere:
        The authors' ``soft_cldice``; MONAI ``SoftclDiceLoss``.

    Differs from:
        Both: without smoothing, which makes a mask of nothing but foreground as good as a perfect
            one: it has no skeleton, and 0 / 0 is a precision of 1 there, and 0 here. By logits.
            Ties share a gradient, where pooling sends it to the first cell of a plateau.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 7, 9, dtype=torch.long)
        >>> target[:, 2:5, 1:8] = 1
        >>> logits = torch.where(target == 1, 0.0, -torch.inf)
        >>> round(cl_dice_loss(logits, target, mode="binary").item(), 4)
        0.3333
    """
    _check(iterations, border, mode, background, absent, pool, reduction)
    s = skeleton_sums(
        logits, target, weight, skeleton, iterations, border, mode, ignore_index, pool
    )
    right, stray, predicted = parts(s.hit, s.stray)
    kept, lost, present = parts(s.kept, s.lost)
    stray = torch.where(predicted, stray, 1)
    # of P, R and what they lack of 1, so that nothing cancels: (P (1 - R) + R (1 - P)) / (P + R).
    # Where P + R is faint, the slopes of this quotient are differences of huge numbers, and those
    # of the harmonic mean, 2 P R / (P + R), are not
    both = right + kept
    faint = both.abs() < _FAINT
    loss = (right * lost + kept * stray) / torch.where(faint, 1, both)
    nothing = both.abs() <= least(both)
    harmonic = 2 * right * (kept / torch.where(nothing, 1, both))
    loss = torch.where(faint, 1 - harmonic, loss)
    return _average(loss, present, s, class_weight, background, absent, pool, reduction)


def cl_dice_terms(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    skeleton: Tensor | None = None,
    iterations: int = 3,
    border: Border = "open",
    mode: Mode = "multiclass",
    class_weight: Tensor | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """What precision and sensitivity of :func:`cl_dice_loss` lack, averaged over classes.

    The loss is 1 less the harmonic mean of the two in each class, not their sum.

    Args:
        logits: as there.
        target: as there.
        weight: as there.
        skeleton: as there.
        iterations: as there.
        border: as there.
        mode: as there.
        class_weight: as there.
        ignore_index: as there.
        background: as there.
        absent: as there.
        pool: as there.
        reduction: as there.

    Returns:
        ``{"precision": 1 - P, "sensitivity": 1 - R}``.
    """
    _check(iterations, border, mode, background, absent, pool, reduction)
    s = skeleton_sums(
        logits, target, weight, skeleton, iterations, border, mode, ignore_index, pool
    )
    _, stray, predicted = parts(s.hit, s.stray)
    _, lost, present = parts(s.kept, s.lost)
    stray = torch.where(predicted, stray, 1)
    return {
        name: _average(v, present, s, class_weight, background, absent, pool, reduction)
        for name, v in (("precision", stray), ("sensitivity", lost))
    }


_FAINT = 2.0**-10  # of precision and sensitivity together


def _average(
    loss: Tensor,
    present: Tensor,
    s: Sums,
    class_weight: Tensor | None,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
) -> Tensor:
    alone = torch.zeros_like(loss)
    if absent == "penalize":  # a target too wide for a skeleton says nothing
        mean = s.predicted / torch.where(s.pixels > 0, s.pixels, 1)
        alone = torch.where(s.truth == 0, mean, alone)
    loss = torch.where(present, loss, alone)
    counted = present if absent == "skip" else s.pixels > 0
    share = shares(counted, of_classes(class_weight, s.logits), background=background)
    return reduced(loss, share, loss.dtype, reduction, pool, term="cl_dice")


def _check(
    iterations: int,
    border: str,
    mode: str,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
) -> None:
    check_skeleton(iterations, border)
    policies = ("skip", "zero", "penalize")
    check_regions(mode, background, absent, pool, reduction, policies=policies)


class ClDiceLoss(LossModule):
    """Module form of :func:`cl_dice_loss`; same options, same defaults."""

    terms_function = staticmethod(cl_dice_terms)

    def __init__(
        self,
        iterations: int = 3,
        border: Border = "open",
        mode: Mode = "multiclass",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(iterations, border, mode, background, absent, pool, reduction)
        check_class_weight(by := per_class(class_weight, "class_weight"), mode)
        ignored(ignore_index, indexed=True)
        super().__init__(
            iterations=iterations,
            border=border,
            mode=mode,
            class_weight=by,
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        skeleton: Tensor | None = None,
    ) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        given: dict[str, Any] = {"weight": weight, "skeleton": skeleton}
        return cl_dice_loss(logits, target, **given, **self.options())
