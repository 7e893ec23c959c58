"""The call of a loss of boxes that are paired row by row: its checks, its count, its module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_boxes,
    check_choice,
    check_flags,
    check_floating,
    check_number,
    check_numbers,
)
from aptt.core.formula import Formula
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, count_of, count_positives, reduce
from aptt.core.shapes import check_pairs, check_shapes

__all__ = ["BLOCK", "BoxLoss", "Normalize", "check_options", "paired_loss"]

Normalize = Literal["elements", "positives"]

BLOCK = 2**18


def paired_loss(
    formula: Formula,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    numbers: tuple[int, ...],
    weight: Numbers | None,
    validate: bool,
    ordered: bool,
    normalize: Normalize,
    reduction: Reduction,
    most: float = math.inf,
    **options: Any,
) -> Tensor:
    """The loss of boxes of so many numbers, or so many, against their targets, row by row.

    A value above the ``most`` that boxes in order cost, but for a few, has them looked at: those
    that are inside out may have another format than they are read in.
    """
    check_flags(validate=validate)
    check_floating(pred_boxes=pred_boxes)
    target_boxes = as_tensor("target_boxes", target_boxes, pred_boxes)
    check_numbers(target_boxes=target_boxes)
    each = check_pairs(pred_boxes, target_boxes, numbers)
    x = pred_boxes.reshape(-1, each)
    t = target_boxes.reshape(-1, each).to(widen(pred_boxes[:0]).dtype)
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
        check_shapes(pred_boxes=(pred_boxes, f"*N {each}"), weight=(weight, "*N"))
        weight = weight.reshape(-1)
    if validate:
        check_boxes(x, t, weight, ordered=ordered)
    loss = reduce(
        formula,
        x,
        t,
        weight=weight,
        count=lambda: (
            count_positives(x[:, 0], weight, reduction)
            if normalize == "positives"
            else count_of(x[:, 0], weight)
        ),
        reduction=reduction,
        term=term,
        kind="values" if normalize == "elements" else "positives",
        **options,
    )
    if reduction == "none":
        return loss.reshape(pred_boxes.shape[:-1])
    looked = weight is None and reduction in ("mean", "sum") and is_readable(loss)
    if looked and loss.item() > most * (1 if reduction == "mean" else len(x)):
        check_boxes(x, t, None, ordered=ordered)
    return loss


def check_options(
    box_format: BoxFormat | None, power: float, normalize: Normalize, reduction: Reduction
) -> None:
    """Refuse unknown names, and powers below 1; None: boxes that are rotated."""
    check_reduction(reduction)
    if box_format is not None:
        check_box_format(box_format)
    check_number("power", power, 1.0)
    check_choice("normalize", normalize, ("elements", "positives"))


class BoxLoss(LossModule):
    """The module form of a loss of aligned boxes; a subclass names its function."""

    _function: Callable[..., Tensor]

    def __init__(
        self,
        box_format: BoxFormat = "xyxy",
        power: float = 1.0,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(box_format, power, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(
            box_format=box_format,
            power=power,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return self._function(pred_boxes, target_boxes, weight=weight, **self.options())
