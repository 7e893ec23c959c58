"""Class scores that say how good a box is: qualities as targets, and what their losses count.

A quality is a number from 0 to 1 at the class of a positive, as a rule the IoU of its box, and 0
everywhere else. A positive whose quality is 0 is told from a negative by a mask.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.axes import align_elements
from aptt.core.checks import Numbers, as_tensor, check_choice, check_range
from aptt.core.engine import at_once
from aptt.core.formula import Formula
from aptt.core.ordinary import is_readable
from aptt.core.precision import wide, widen
from aptt.core.reduction import Count, Reduction, count_found, count_of, reduce
from aptt.core.shapes import check_shapes

__all__ = ["Normalize", "check_normalize", "positives", "quality_loss"]

Normalize = Literal["elements", "positives", "quality"]


def check_normalize(normalize: str) -> None:
    """Hold the option to what a mean can count."""
    check_choice("normalize", normalize, ("elements", "positives", "quality"))


def positives(positive: Numbers | None, logits: Tensor) -> Tensor | None:
    """A mask of the logits' shape, laid out as :func:`align_elements` lays out these."""
    if positive is None:
        return None
    positive = as_tensor("positive", positive, logits)
    check_shapes(logits=(logits, "*N"), positive=(positive, "*N"))
    if positive.dtype != torch.bool:
        raise TypeError(f"positive: got {positive.dtype}, wanted torch.bool")
    return positive if logits.ndim and at_once(logits) else positive.reshape(-1)


def quality_loss(
    formula: Formula,
    term: str,
    logits: Tensor,
    target: Numbers,
    weight: Numbers | None,
    positive: Tensor | None,
    normalize: Normalize,
    reduction: Reduction,
    sides: tuple[Tensor | None, ...],
    **options: Any,
) -> Tensor:
    """The loss of qualities ``target`` by a formula of elements, and what its mean counts.

    ``positive`` is as :func:`positives` gives it, or None: where the quality is above 0. ``sides``
    follow the target in the formula.
    """
    x, y, w = align_elements(logits, target, weight, by_class=False, class_dim=None)
    y = widen(y) if y.requires_grad else y  # once, so that its two gradients are rounded once
    check_range(y, 0, 1, keep=None if w is None else w != 0)
    _check_negatives(y, positive, w)

    def count() -> Count:
        if normalize == "elements":
            return count_of(x, w)
        hits = y if normalize == "quality" else y > 0 if positive is None else positive
        return count_found(hits.to(wide(x.dtype)), w, reduction)

    loss = reduce(
        formula,
        x,
        y,
        *sides,
        weight=w,
        count=count,
        reduction=reduction,
        term=term,
        kind="values" if normalize == "elements" else "positives",
        **options,
    )
    return loss.reshape(logits.shape) if reduction == "none" else loss


def _check_negatives(y: Tensor, positive: Tensor | None, weight: Tensor | None) -> None:
    """Refuse a quality where there is no positive; in eager mode on CPU."""
    if positive is None or not is_readable(y):
        return
    wrong = (y != 0) & ~positive
    if weight is not None:
        wrong &= weight != 0
    if bool(wrong.any()):
        raise ValueError(f"target: got {y[wrong][0].item()} outside positive, wanted 0")
