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
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.chances import of_sigmoid, of_softmax
from aptt.core.checks import (
    IgnoreIndex,
    check_choice,
    check_floating,
    check_tensors,
    check_whole,
    ignored,
)
from aptt.core.formula import wide, widen
from aptt.core.masks import Mode, aligned, check_class_weight, of_classes
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.core.regions import Pool, check_regions, reduced, shares
from aptt.core.skeleton import Border, skeleton_of

__all__ = ["ClDiceLoss", "cl_dice_loss", "cl_dice_terms", "soft_skeleton"]


def soft_skeleton(mask: Tensor, *, iterations: int = 3, border: Border = "open") -> Tensor:
    """The soft skeleton of soft masks, differentiable.

    Args:
        mask: ``(N, C, *S)``, from 0 to 1, such as probabilities; an image of any number of axes.
        iterations: how often it is eroded: at least the largest half width, or wide tubes have no
            skeleton.
        border: what lies beyond the frame: ``"open"``, nothing, so that what touches the frame
            goes on there; ``"background"``.

    Returns:
        ``(N, C, *S)``, from 0 to 1. float32 for half types.

    Raises:
        ValueError: no axis of pixels, an unknown option.

    Cells that are equal share a gradient. It holds ``2 (iterations + 1)`` tensors of this size.

    Example:
        >>> import torch
        >>> bar = torch.zeros(1, 1, 5, 7)
        >>> bar[..., 1:4, :] = 1
        >>> soft_skeleton(bar)[0, 0, 2].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    check_floating(mask=mask)
    _check_skeleton(iterations, border)
    if mask.ndim < 3:
        raise ValueError(f"mask: got shape {tuple(mask.shape)}, wanted (N, C, *S)")
    return skeleton_of(widen(mask), iterations, border)


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
    s = _sums(logits, target, weight, skeleton, iterations, border, mode, ignore_index, pool)
    # a and b are what precision and sensitivity lack: (P b + R a) / (P + R)
    whole, held = s.hit + s.stray, s.kept + s.lost
    some = torch.where(whole == 0, 1, whole)
    right, stray = s.hit / some, torch.where(whole == 0, 1, s.stray / some)
    present = held != 0
    most = torch.where(present, held, 1)
    kept, lost = s.kept / most, s.lost / most
    both = right + kept
    loss = (right * lost + kept * stray) / torch.where(both == 0, 1, both)
    loss = torch.where(both == 0, 1, loss)
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
    s = _sums(logits, target, weight, skeleton, iterations, border, mode, ignore_index, pool)
    whole, held = s.hit + s.stray, s.kept + s.lost
    present = held != 0
    stray = torch.where(whole == 0, 1, s.stray / torch.where(whole == 0, 1, whole))
    lost = s.lost / torch.where(present, held, 1)
    return {
        name: _average(v, present, s, class_weight, background, absent, pool, reduction)
        for name, v in (("precision", stray), ("sensitivity", lost))
    }


# -------------------------------------------------------------------------------- the sums


class _Sums(NamedTuple):
    """Over the pixels of each pool, ``(C,)`` or ``(N, C)``."""

    hit: Tensor
    """Of the predicted skeleton, in the target."""
    stray: Tensor
    """Of the predicted skeleton, beside it."""
    kept: Tensor
    """Of the target's skeleton, predicted."""
    lost: Tensor
    """Of the target's skeleton, not predicted."""
    predicted: Tensor
    truth: Tensor
    size: Tensor
    logits: Tensor


def _sums(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    skeleton: Tensor | None,
    iterations: int,
    border: Border,
    mode: Mode,
    ignore_index: IgnoreIndex,
    pool: Pool,
) -> _Sums:
    x, t, w = aligned(logits, target, mode, weight, ignore_index, hard=True)
    channel = 2 if mode != "binary" or logits.shape[1:2] == (1,) else 1
    size = tuple(logits.shape[channel:])
    if not size:
        raise ValueError(
            f"logits: got shape {tuple(logits.shape)}, without an axis of pixels; a skeleton wants "
            "one at least"
        )
    dtype = wide(x.dtype)
    if t.ndim == 2:
        t = t.unsqueeze(1) == torch.arange(x.shape[1], device=t.device)[:, None]
    t = t.to(dtype)
    w = None if w is None else (w if w.ndim == 3 else w.unsqueeze(1))
    x = widen(x)
    if w is not None:
        x, t = torch.where(w == 0, 0.0, x), torch.where(w == 0, 0.0, t)
    p = (of_softmax if mode == "multiclass" else of_sigmoid)(x)
    yes, no, odds = p.yes, p.no, x
    if mode == "multiclass":
        least = torch.finfo(dtype).tiny
        odds = yes.clamp(min=least).log() - no.clamp(min=least).log()
        odds = torch.where(no <= 0, torch.inf, torch.where(yes <= 0, -torch.inf, odds))
    if w is not None:
        yes, odds = torch.where(w == 0, 0.0, yes), torch.where(w == 0, -torch.inf, odds)
    shape = (*x.shape[:2], *size)
    mine = skeleton_of(odds.reshape(shape), iterations, border, odds=True).flatten(2)
    if skeleton is None:
        with torch.no_grad():
            theirs = skeleton_of(t.reshape(shape), iterations, border).flatten(2)
    else:
        check_floating(skeleton=skeleton)
        check_tensors(logits=logits, skeleton=skeleton)
        if skeleton.shape != logits.shape:
            raise ValueError(
                f"skeleton: got shape {tuple(skeleton.shape)}, wanted that of the logits, "
                f"{tuple(logits.shape)}"
            )
        theirs = skeleton.reshape(x.shape).to(dtype)
        theirs = theirs if w is None else torch.where(w == 0, 0.0, theirs)
    by = torch.ones_like(x[:, :, :1]) if w is None else w.to(dtype)
    values = (mine * t, mine * (1 - t), theirs * yes, theirs * no, yes, t, torch.ones_like(x))
    each = torch.stack([(v * by).sum(2) for v in values], -1)
    each = each if pool == "sample" else each.sum(0)
    each = pool(each) if callable(pool) else each
    hit, stray, kept, lost, predicted, truth, sizes = each.unbind(-1)
    return _Sums(hit, stray, kept, lost, predicted, truth, sizes, x)


def _average(
    loss: Tensor,
    present: Tensor,
    s: _Sums,
    class_weight: Tensor | None,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
) -> Tensor:
    alone = torch.zeros_like(loss)
    if absent == "penalize":  # a target too wide for a skeleton says nothing
        mean = s.predicted / torch.where(s.size > 0, s.size, 1)
        alone = torch.where(s.truth == 0, mean, alone)
    loss = torch.where(present, loss, alone)
    counted = present if absent == "skip" else s.size > 0
    share = shares(counted, of_classes(class_weight, s.logits), background=background)
    return reduced(loss, share, loss.dtype, reduction, pool, term="cl_dice")


# ------------------------------------------------------------------------------- the checks


def _check_skeleton(iterations: int, border: str) -> None:
    check_whole("iterations", iterations, 0)
    check_choice("border", border, ("open", "background"))


def _check(
    iterations: int,
    border: str,
    mode: str,
    background: bool,
    absent: str,
    pool: Pool,
    reduction: Reduction,
) -> None:
    _check_skeleton(iterations, border)
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
