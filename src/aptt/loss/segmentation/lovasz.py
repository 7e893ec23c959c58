"""Lovasz loss: the IoU loss of hard masks, made convex in the errors.

    loss = sum over k of e[k] (J[k] - J[k - 1])      e: errors, falling; J: IoU loss of the
                                                     mask that errs in the first k pixels

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or 0 and 1 like the logits.
From: Lovasz, Berman et al. 2018, arXiv:1705.08790, eq. 8, 9 and algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import IgnoreIndex, Numbers, check_choice
from aptt.core.lovasz import lovasz_sums
from aptt.core.masks import Mode, aligned, of_classes, pixels
from aptt.core.module import per_class
from aptt.core.pixels import counts
from aptt.core.reduction import Reduction
from aptt.core.regions import check_regions, reduced, shares
from aptt.loss.segmentation.module import RegionLoss

__all__ = ["LovaszLoss", "lovasz_loss"]


def lovasz_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    mode: Mode = "multiclass",
    class_weight: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    background: bool = True,
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Literal["batch", "sample"] = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovasz loss from logits: the IoU loss of hard masks, extended to errors in between.

        loss = sum over k of e[k] (J[k] - J[k - 1])      e: errors, falling; J: IoU loss of the
                                                         mask that errs in the first k pixels
        e    = |t - p| (multiclass)      max(0, 1 - (2 t - 1) x) (multilabel, binary)

    Args:
        logits: ``(N, C, ...)``; binary also ``(N, ...)``. Any floating dtype.
        target: multiclass: class indices ``(N, ...)``, or their one-hot mask like the logits, of
            an integer dtype or bool; multilabel: 0 and 1, like the logits; binary: 0 and 1, like
            the logits, with or without their single channel.
        weight: ``(N, ...)``, the part of each pixel in J; 0 removes it.
        mode: ``"multiclass"`` (Lovasz-softmax), ``"multilabel"`` or ``"binary"`` (Lovasz hinge).
        class_weight: ``(C,)``, one weight per class; multiplies and is counted.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100
            among class indices, and else none.
        background: whether class 0 of a softmax is averaged with the others.
        absent: what a class without target pixels costs: ``"skip"``, it is not counted;
            ``"zero"``, nothing; ``"penalize"``, its largest error, as the definition has it.
        pool: the pixels that are sorted together: ``"batch"`` or ``"sample"``. Ranks cannot be
            pooled: sorting is no sum.
        reduction: over classes (and samples): ``"mean"`` by weight, ``"sum"``, ``"none"`` for
            ``(C,)`` or ``(N, C)``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0; at most 1 per class of a softmax. 0 for a perfect prediction, of a
        hinge where each logit is right by 1. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets out of range (on CPU), an unknown option.

    The gradient goes to ``logits``, and to pixel weights that ask for it. Where errors are equal it
    is one of several. Micro-batches are exact with ``pool="sample"`` only.

    Use when:
        IoU is the metric, after training with cross-entropy: fine-tuning with it is what its
        authors do.

    Elsewhere:
        The authors' ``lovasz_softmax`` and ``lovasz_hinge``; kornia ``lovasz_softmax_loss``,
        ``lovasz_hinge_loss``; segmentation-models-pytorch ``LovaszLoss``.

    Differs from:
        The authors, segmentation-models-pytorch: ``per_image=True`` is ``pool="sample"``, averaged
            by sample first; their hinge of an empty mask is ``absent="penalize"``.
        kornia: ``pool="sample", absent="penalize"``; a label that is ignored there makes it
            negative.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, -4.0]]])
        >>> round(lovasz_loss(logits, torch.tensor([[[1, 0, 0]]]), mode="binary").item(), 4)
        2.5
    """
    _check_lovasz(mode, background, absent, pool, reduction)
    x, t, w = aligned(logits, target, mode, weight, ignore_index, hard=True)
    given = of_classes(class_weight, x)
    softmax, batch = mode == "multiclass", pool == "batch"
    loss = lovasz_sums(x, t, w, softmax=softmax, batch=batch, absent=absent == "penalize")
    present = (_foreground(x, t, w) > 0).any(0) if batch else _foreground(x, t, w) > 0
    if absent == "zero":
        loss = torch.where(present, loss, 0)
    if absent != "skip":
        present = (pixels(x, w) > 0).any(0) if batch else pixels(x, w) > 0
    share = shares(present, given, background=background)
    return reduced(loss, share, loss.dtype, reduction, pool, term="lovasz")


def _foreground(x: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
    """How many pixels of each sample's and class's foreground count."""
    if t.ndim < x.ndim:
        return counts(t, None if w is None else w != 0, x)
    return (t != 0 if w is None else (t != 0) & (w != 0)).sum(2)


def _check_lovasz(
    mode: Mode, background: bool, absent: str, pool: object, reduction: Reduction
) -> None:
    check_choice("pool", pool, ("batch", "sample"))
    policies = ("skip", "zero", "penalize")
    check_regions(mode, background, absent, "batch", reduction, policies=policies)


class LovaszLoss(RegionLoss):
    """Module form of :func:`lovasz_loss`; same options, same defaults."""

    _function = staticmethod(lovasz_loss)

    def __init__(
        self,
        mode: Mode = "multiclass",
        class_weight: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        background: bool = True,
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Literal["batch", "sample"] = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_lovasz(mode, background, absent, pool, reduction)
        super().__init__(
            mode=mode,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            background=background,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )
