"""What the losses of aligned boxes share: the cost of the overlap, powers, the call, the module.

    loss   = 1 - I / U + sum penalty                    I, U: areas of intersection and union
    power  = 1 - (I / U)**power + sum penalty**power    of any of them

and, for a prediction turned inside out, how far: ``sum flip``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import (
    Axes,
    BoxFormat,
    Overlap,
    Slopes,
    check_box_format,
    each,
    once,
    overlap,
    pull_back,
)
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
from aptt.core.formula import Formula, Kept, widen
from aptt.core.logistic import power as raised
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, count_of, count_positives, reduce
from aptt.core.shapes import (
    check_pairs,
    check_shapes,
)

__all__ = [
    "LEAST_SIZE",
    "BoxLoss",
    "Distance",
    "Forms",
    "Normalize",
    "Pull",
    "box_loss",
    "check_options",
    "distance",
    "forms",
    "pull",
    "slowed",
]

Normalize = Literal["elements", "positives"]

LEAST_SIZE = 0.01  # of a box, relative to the enclosing one: below it, slopes grow no further


class Forms(NamedTuple):
    """One loss, and the same to a power, whose gradient is left to autograd."""

    plain: Formula
    powered: Formula


def forms(
    penalties: Callable[..., tuple[Tensor, ...]],
    slopes: Callable[..., tuple[Tensor | float, Slopes]] | None,
) -> Forms:
    """Of what is added to 1 - IoU: each from 0 up; and of their sum with its slopes."""

    def result(
        x: Tensor,
        kept: Kept,
        t: Tensor,
        *,
        box_format: BoxFormat,
        power: float | None = None,
        **options: Any,
    ) -> Tensor:
        o = overlap(x, t, box_format)
        loss = o.miss if power is None else _less_power(o, power)
        for penalty in penalties(o, **options):
            loss = loss + _raised(penalty, power)
        return _turned_back(loss, o)

    def step(
        x: Tensor,
        up: Tensor | float,
        kept: Kept,
        t: Tensor,
        *,
        box_format: BoxFormat,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        # I / U with U = P + G - I: its slope in P is -I / U**2, in I it is 1 / U + I / U**2
        assert slopes is not None
        o = overlap(x, t, box_format)
        penalty, by = slopes(o, **options)
        per_union = torch.reciprocal(o.some)
        area = o.iou * per_union
        common = by.common - (per_union + area)
        by = by._replace(area=area + by.area if by.area else area, common=common)
        return _turned_back(o.miss + penalty, o), pull_back(o, up, by, box_format)

    return Forms(
        Formula(result, None if slopes is None else step, ahead=True, block=BLOCK),
        Formula(result, ahead=True, block=BLOCK),
    )


BLOCK = 2**18


def _turned_back(loss: Tensor, o: Overlap) -> Tensor:
    """And how far a prediction is turned inside out."""
    for axis in (0, 1):
        loss = torch.addcdiv(loss, o.flip[axis], o.unit[axis], value=-1)
    return loss


def _less_power(o: Overlap, power: float) -> Tensor:
    """``1 - iou**power``, from what is missed where that is the lesser part."""
    near = o.miss < 0.5
    log = torch.log1p(-torch.where(near, o.miss, 0.0))
    return torch.where(near, -torch.expm1(power * log), 1 - _raised(o.iou, power))


def _raised(measure: Tensor, power: float | None) -> Tensor:
    """A power of at least 1; flat at 0, and where rounding leads below it."""
    if power is None:
        return measure
    none = measure <= 0  # of NaN, neither this nor its opposite holds
    return torch.where(none, 0, raised(torch.where(none, 1, measure), power))


class Distance(NamedTuple):
    """The centres' distance."""

    square: Tensor  # d**2 / c**2: of the centres, over the enclosing diagonal
    sides: Axes  # the spans, in a unit of their size
    diagonal: Tensor  # c**2 in that unit


def distance(o: Overlap) -> Distance:
    """d**2 / c**2 = sum share gap**2, where share = span**2 / c**2 and the gap is over the span."""
    longer = torch.threshold(torch.maximum(o.span[0], o.span[1]).detach(), 0.0, 1.0)
    (sides,) = each(lambda span: (once(span / longer),), o.span)
    diagonal = torch.addcmul(sides[0].square(), sides[1], sides[1])
    diagonal = torch.threshold(diagonal, 0.0, 1.0)

    def seen(before: Tensor, behind: Tensor, unit: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        twice = (before + behind) / unit
        return twice, twice * (side.square() / diagonal)

    twice, centre = each(seen, o.before, o.behind, o.unit, sides)
    square = torch.addcmul(centre[0] * twice[0], centre[1], twice[1]) * 0.25
    return Distance(square, sides, diagonal)


class Pull(NamedTuple):
    """The centres' distance with its slopes; all lengths over the enclosing diagonal."""

    square: Tensor
    sides: Axes  # the spans
    slopes: Slopes
    """Those of ``square``: in the gap of the centres, and in the logarithms of the spans."""


def pull(o: Overlap) -> Pull:
    """:func:`distance`, of which nothing is to be differentiated.

    Slopes: 2 gap in the gap; and in a span's logarithm, by way of c**2, -2 share of ``square``.
    """
    unit = torch.threshold(torch.hypot(o.span[0], o.span[1]), 0.0, 1.0)
    per_unit = torch.reciprocal(unit)

    def seen(before: Tensor, behind: Tensor, span: Tensor) -> tuple[Tensor, ...]:
        return (before + behind).mul_(per_unit), once(span / unit)

    twice, sides = each(seen, o.before, o.behind, o.span)
    square = torch.addcmul(twice[0].square(), twice[1], twice[1]).mul_(0.25)
    less = -2 * square
    span, gap = each(lambda side, twice: (side.square() * less, twice * per_unit), sides, twice)
    return Pull(square, sides, Slopes(span=span, pull=gap))


def slowed(measure: Tensor, size: Tensor) -> Tensor:
    """The same value; where ``size`` is small, with the slope of the least size."""
    return torch.lerp(measure.detach(), measure, (size / LEAST_SIZE).clamp(max=1))


def box_loss(
    formulas: Forms,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None,
    box_format: BoxFormat,
    power: float,
    validate: bool,
    normalize: Normalize,
    reduction: Reduction,
    **options: Any,
) -> Tensor:
    """Check a call of a loss of this family, and evaluate it."""
    check_options(box_format, power, normalize, reduction)
    if power != 1:
        options["power"] = power
    return paired_loss(
        formulas.plain if power == 1 else formulas.powered,
        term,
        pred_boxes,
        target_boxes,
        numbers=4,
        weight=weight,
        validate=validate,
        ordered=box_format == "xyxy",
        most=1 if term == "box_iou" else 2,
        normalize=normalize,
        reduction=reduction,
        box_format=box_format,
        **options,
    )


def paired_loss(
    formula: Formula,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    numbers: int,
    weight: Numbers | None,
    validate: bool,
    ordered: bool,
    normalize: Normalize,
    reduction: Reduction,
    most: float = math.inf,
    **options: Any,
) -> Tensor:
    """The loss of boxes of so many numbers against their targets, row by row.

    A value above the ``most`` that boxes in order cost, but for a few, has them looked at: those
    that are inside out may have another format than they are read in.
    """
    check_flags(validate=validate)
    check_floating(pred_boxes=pred_boxes)
    target_boxes = as_tensor("target_boxes", target_boxes, pred_boxes)
    check_numbers(target_boxes=target_boxes)
    check_pairs(pred_boxes, target_boxes, numbers)
    x = pred_boxes.reshape(-1, numbers)
    t = target_boxes.reshape(-1, numbers).to(widen(pred_boxes[:0]).dtype)
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
        check_shapes(pred_boxes=(pred_boxes, f"*N {numbers}"), weight=(weight, "*N"))
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
