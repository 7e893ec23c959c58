"""What the losses of boxes along the axes share: the cost of the overlap, powers, the call.

    loss   = 1 - I / U + sum penalty                    I, U: areas of intersection and union
    power  = 1 - (I / U)**power + sum penalty**power    of any of them
    log    = -log(max(I / U, f)) + max(f - I / U, 0) / f

and, for a prediction turned inside out, how far: ``sum flip``. Areas are products over the axes:
lengths of segments, volumes of cuboids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, Overlap, overlap
from aptt.core.checks import Numbers
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import power as raised
from aptt.core.reduction import Reduction
from aptt.core.slopes import Slopes, pull_back
from aptt.loss.bbox.paired import BLOCK, Normalize, check_options, paired_loss

__all__ = [
    "LEAST_IOU",
    "LEAST_SIZE",
    "Forms",
    "box_loss",
    "forms",
    "slowed",
]

_ANY = 2, 4, 6  # numbers of a segment, of a box, of a cuboid
_LINES = (2,), (6,)

LEAST_SIZE = 0.01  # of a box, relative to the enclosing one: below it, slopes grow no further
LEAST_IOU = 1e-6  # below it, the logarithm goes on as a line


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
        log: bool = False,
        **options: Any,
    ) -> Tensor:
        o = overlap(x, t, box_format)
        loss = _log(o) if log else o.miss if power is None else _less_power(o, power)
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
        log: bool = False,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        # I / U with U = P + G - I: its slope in P is -I / U**2, in I it is 1 / U + I / U**2
        assert slopes is not None
        o = overlap(x, t, box_format)
        penalty, by = slopes(o, **options)
        per_union = torch.reciprocal(o.some)
        if log:
            per_union = per_union / torch.clamp(o.iou, min=LEAST_IOU)
        area = o.iou * per_union
        common = by.common - (per_union + area)
        by = by._replace(area=area + by.area if by.area else area, common=common)
        return _turned_back((_log(o) if log else o.miss) + penalty, o), pull_back(
            o, up, by, box_format
        )

    return Forms(
        Formula(result, None if slopes is None else step, ahead=True, block=BLOCK),
        Formula(result, ahead=True, block=BLOCK),
    )


def _turned_back(loss: Tensor, o: Overlap) -> Tensor:
    """And how far a prediction is turned inside out."""
    for axis in range(len(o.flip)):
        loss = torch.addcdiv(loss, o.flip[axis], o.unit[axis], value=-1)
    return loss


def _less_power(o: Overlap, power: float) -> Tensor:
    """``1 - iou**power``, from what is missed where that is the lesser part."""
    near = o.miss < 0.5
    log = torch.log1p(-torch.where(near, o.miss, 0.0))
    return torch.where(near, -expm1(power * log), 1 - _raised(o.iou, power))


def _log(o: Overlap) -> Tensor:
    """``-log iou``, from what is missed where that is the lesser part; at most a cap."""
    near = o.miss < 0.5
    log = -torch.log1p(-torch.where(near, o.miss, 0.0))
    least = torch.clamp(torch.where(near, 1.0, o.iou), min=LEAST_IOU)
    far = torch.relu(LEAST_IOU - o.iou) / LEAST_IOU - least.log()
    return torch.where(near, log, far)


def _raised(measure: Tensor, power: float | None) -> Tensor:
    """A power of at least 1; flat at 0, and where rounding leads below it."""
    if power is None:
        return measure
    none = measure <= 0  # of NaN, neither this nor its opposite holds
    return torch.where(none, 0, raised(torch.where(none, 1, measure), power))


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
    plane: str | None = None,
    most: float = 2.0,
    **options: Any,
) -> Tensor:
    """Check a call of a loss of this family, and evaluate it; ``plane``: why it wants two axes."""
    check_options(box_format, power, normalize, reduction)
    if plane is not None and isinstance(pred_boxes, Tensor) and pred_boxes.shape[-1:] in _LINES:
        raise ValueError(
            f"pred_boxes: got shape {tuple(pred_boxes.shape)}, wanted 4 numbers in the last axis: "
            f"{plane}; giou_loss, diou_loss and eiou_loss take segments and cuboids"
        )
    if power != 1:
        options["power"] = power
    return paired_loss(
        formulas.plain if power == 1 else formulas.powered,
        term,
        pred_boxes,
        target_boxes,
        numbers=_ANY if plane is None else (4,),
        weight=weight,
        validate=validate,
        ordered=box_format == "xyxy",
        most=most,
        normalize=normalize,
        reduction=reduction,
        box_format=box_format,
        **options,
    )
