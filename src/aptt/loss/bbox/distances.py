"""How far the centres of a pair are apart, against the diagonal of the box that encloses them."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import Axes, Overlap, each, once
from aptt.core.slopes import Slopes

__all__ = ["Distance", "Pull", "along", "distance", "pull"]


class Distance(NamedTuple):
    """The centres' distance."""

    square: Tensor  # d**2 / c**2: of the centres, over the enclosing diagonal
    sides: Axes  # the spans, in a unit of their size
    diagonal: Tensor  # c**2 in that unit


def distance(o: Overlap) -> Distance:
    """d**2 / c**2 = sum share gap**2, where share = span**2 / c**2 and the gap is over the span."""
    longer = torch.threshold(reduce(torch.maximum, o.span).detach(), 0.0, 1.0)
    (sides,) = each(lambda span: (once(span / longer),), o.span)
    diagonal = torch.threshold(along(sides, sides), 0.0, 1.0)

    def seen(before: Tensor, behind: Tensor, unit: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        twice = (before + behind) / unit
        return twice, twice * (side.square() / diagonal)

    twice, centre = each(seen, o.before, o.behind, o.unit, sides)
    square = along(centre, twice) * 0.25
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
    unit = torch.threshold(reduce(torch.hypot, o.span), 0.0, 1.0)
    per_unit = torch.reciprocal(unit)

    def seen(before: Tensor, behind: Tensor, span: Tensor) -> tuple[Tensor, ...]:
        return (before + behind).mul_(per_unit), once(span / unit)

    twice, sides = each(seen, o.before, o.behind, o.span)
    square = along(twice, twice).mul_(0.25)
    less = -2 * square
    span, gap = each(lambda side, twice: (side.square() * less, twice * per_unit), sides, twice)
    return Pull(square, sides, Slopes(span=span, pull=gap))


def along(a: Axes, b: Axes) -> Tensor:
    """``sum a b`` over the axes."""
    total = a[0] * b[0]
    for axis in range(1, len(a)):
        total = torch.addcmul(total, a[axis], b[axis])
    return total
