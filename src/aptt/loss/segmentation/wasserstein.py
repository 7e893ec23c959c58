"""Generalised Wasserstein Dice loss: a mistake costs what the two classes are apart.

    W[i] = sum over c of D[t[i], c] p[i, c]        how far pixel i is from its class
    TP   = sum of 1 - W[i] over the pixels of objects, t[i] > 0
    loss = 1 - 2 TP / (2 TP + sum W) = sum W / (2 TP + sum W)

over the pixels that are pooled; D is 0 for a class and itself, and 1 for the two that are farthest.

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices; D ``(C, C)``, target by prediction.
From: Fidon et al., "Generalised Wasserstein Dice Score for Imbalanced Multi-class Segmentation
using Holistic Convolutional Networks", 2017, arXiv:1707.00478, section 2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.chances import Chances, of_softmax
from aptt.core.checks import IgnoreIndex, Numbers, as_tensor, check_numbers, ignored
from aptt.core.engine import evaluate
from aptt.core.formula import Formula, Kept
from aptt.core.marks import cleared, removes, weighed
from aptt.core.masks import aligned, pixels
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.precision import wide
from aptt.core.reduction import Reduction
from aptt.core.regions import Pool, check_regions, reduced
from aptt.core.softmax import of_class
from aptt.core.squares import through
from aptt.loss.segmentation.ratio import over

__all__ = ["WassersteinDiceLoss", "wasserstein_dice_loss"]


def wasserstein_dice_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    class_distance: Numbers | None = None,
    ignore_index: IgnoreIndex = "auto",
    absent: Literal["skip", "zero", "penalize"] = "skip",
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised Wasserstein Dice loss from logits.

        loss = sum W / (2 TP + sum W)        W[i] = sum over c of D[t[i], c] p[i, c]

    Args:
        logits: ``(N, C, ...)``, class 0 the background. Any floating dtype.
        target: class indices ``(N, ...)``, or one-hot ``(N, C, ...)`` of an integer dtype.
        weight: ``(N, ...)``, the part of each pixel in every sum; 0 removes it.
        class_distance: D, ``(C, C)``: what it costs to take the class of a row for that of a
            column; from 0 to 1, and 0 for a class and itself. None: 1 for any other.
        ignore_index: the target value that removes its pixel; None: none does; ``"auto"``: -100.
        absent: what a pool costs that has background alone: ``"skip"``, it is not counted;
            ``"zero"``, nothing, and it is counted; ``"penalize"``, the mean of W.
        pool: the pixels summed before the ratio is taken: ``"batch"``, ``"sample"``, or a callable
            that sums the batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over samples: ``"mean"``, ``"sum"``, ``"none"`` for one number, or ``(N,)``, or a
            callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1]; 0 for a perfect prediction. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, targets or distances out of range (on CPU), an unknown
            option.

    The gradient goes to ``logits``, and to weights and distances that ask for it. The sums of a
    ratio cannot be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Some classes are parts or stages of others, as the regions of a tumour are, and to confuse
        those is the lesser mistake. The distance of two leaves in a tree of classes, over the
        largest, is a good D.

    Elsewhere:
        MONAI ``GeneralizedWassersteinDiceLoss``.

    Differs from:
        MONAI: smoothed, ``pool="sample"``; ``weighting_mode="GDL"`` weighs classes by their rarity.
            Before 1.6 its sums broadcast one sample against all the others of a batch.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.7, 0.1], [0.2, 0.6], [0.1, 0.3]]]).log()
        >>> far = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]]
        >>> target = torch.tensor([[0, 1]])
        >>> round(wasserstein_dice_loss(logits, target, class_distance=far).item(), 4)
        0.2683
    """
    _check(absent, pool, reduction)
    x, t, w = aligned(logits, target, "multiclass", weight, ignore_index, hard=True)
    far = _distances(class_distance, x)
    w = None if w is None else w.unsqueeze(1)
    bare = removes(x, t, w)
    sums = evaluate(_APART, x, t, w, gather="samples", far=far, bare=bare)
    there = (t > 0).to(sums.dtype)
    there = there if w is None else there * w.squeeze(1).to(sums.dtype)
    sizes = pixels(x, w)[:, 0].to(sums.dtype)
    parts = torch.stack((*sums.unbind(-1), there.sum(1), sizes), -1)
    if pool != "sample":
        parts = parts.sum(0)
    parts = pool(parts) if callable(pool) else parts
    every, of_objects, objects, size = parts.unbind(-1)
    present = objects > 0
    loss = over(every, 2 * (objects - of_objects) + every)
    if absent == "penalize":
        loss = torch.where(present, loss, over(every, size))
    else:
        loss = torch.where(present, loss, 0.0)
    counted = (present if absent == "skip" else size > 0).to(loss.dtype)
    return reduced(loss, counted, loss.dtype, reduction, pool, term="wasserstein_dice")


# ------------------------------------------------------------------------------ the formula


def _costs(p: Chances, t: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """What the likeliest class costs at each pixel, and how much more each class ``(N, C, S)``.

    Chances add up to 1: a gradient of the latter alone is no difference of costs that are alike.
    """
    assert p.lead is not None
    costs = far.to(p.yes.dtype)[t].movedim(-1, 1)
    likeliest = of_class(costs, p.lead.at)
    return likeliest, costs - likeliest


def _result(
    x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, far: Tensor, bare: bool
) -> Tensor:
    p = of_softmax(cleared(x, w) if bare else x)
    likeliest, more = _costs(p, t, far)
    each = likeliest + (more * p.yes).sum(1, keepdim=True)
    each = weighed(each, None if w is None else w.to(x.dtype))
    return torch.cat((each.sum(2), (each * (t > 0).unsqueeze(1)).sum(2)), 1)


def _step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, far: Tensor, bare: bool
) -> tuple[None, Tensor]:
    # d W / d p[c] = D[t, c], of every pixel, and of those of an object once more
    p = of_softmax(cleared(x, w) if bare else x)
    every, objects = up.to(x.dtype).unsqueeze(2).unbind(1)
    price = torch.addcmul(every, (t > 0).to(x.dtype), objects).unsqueeze(1)
    price = weighed(price, None if w is None else w.to(x.dtype))
    return None, through(p, _costs(p, t, far)[1] * price)


_APART = Formula(_result, _step)


# ------------------------------------------------------------------------------- the checks


def _distances(values: Numbers | None, x: Tensor) -> Tensor:
    classes = x.shape[1]
    if values is None:
        return 1 - torch.eye(classes, dtype=wide(x.dtype), device=x.device)
    far = as_tensor("class_distance", values, x)
    check_numbers(logits=x, class_distance=far)
    if far.shape != (classes, classes):
        raise ValueError(
            f"class_distance: got shape {tuple(far.shape)}, wanted ({classes}, {classes}), a row "
            "for each class of the target"
        )
    if is_readable(far) and is_readable(x):
        inside = bool(((far >= 0) & (far <= 1)).all())
        if not inside or bool(far.diagonal().any()):
            raise ValueError(
                "class_distance: got a number that is not from 0 to 1, or a class away from "
                "itself; wanted a diagonal of 0, and 1 for the farthest: divide by the largest"
            )
    return far.to(wide(x.dtype))


def _check(absent: str, pool: Pool, reduction: Reduction) -> None:
    policies = ("skip", "zero", "penalize")
    check_regions("multiclass", True, absent, pool, reduction, policies=policies)


class WassersteinDiceLoss(LossModule):
    """Module form of :func:`wasserstein_dice_loss`; same options, same defaults."""

    def __init__(
        self,
        class_distance: Numbers | None = None,
        ignore_index: IgnoreIndex = "auto",
        absent: Literal["skip", "zero", "penalize"] = "skip",
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check(absent, pool, reduction)
        ignored(ignore_index, indexed=True)
        far = None if class_distance is None else as_tensor("class_distance", class_distance)
        if far is not None and (far.ndim != 2 or far.shape[0] != far.shape[1]):
            raise ValueError(f"class_distance: got shape {tuple(far.shape)}, wanted (C, C)")
        super().__init__(
            class_distance=far,
            ignore_index=ignore_index,
            absent=absent,
            pool=pool,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return wasserstein_dice_loss(logits, target, weight=weight, **self.options())
