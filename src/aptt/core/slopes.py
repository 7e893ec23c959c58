"""The gradient of boxes, from the slopes of a loss in what :mod:`aptt.core.boxes` measures.

An area grows with a length by the product of the others; a length, by its two edges; an edge
belongs to the intersection or to the enclosing box.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import Axes, BoxFormat, Overlap, each

__all__ = ["Slopes", "pull_back"]


class Slopes(NamedTuple):
    """The slopes of a loss in an :class:`Overlap`, relative to the span where nothing is said."""

    area: Tensor | float = 0.0  # d loss / d P
    common: Tensor | float = 0.0  # d loss / d I
    spread: Tensor | None = None  # in the logarithm of a span, of either axis
    span: Axes | None = None  # the same, of each
    width: Axes | None = None
    turn: Callable[[Tensor], Axes] | None = None  # from d loss / d P: that of either axis
    pull: Axes | None = None  # in the gap of the centres, in the units of the boxes


def pull_back(o: Overlap, up: Tensor | float, slopes: Slopes, box_format: BoxFormat) -> Tensor:
    """The gradient in the boxes of ``up`` times a loss of these slopes, with ``sum flip``."""
    area, common, spread, span, width, turn, pull = slopes
    assert isinstance(area, Tensor)  # the IoU's own slope is in it

    def pulled(
        per_unit: Tensor,
        size: Tensor,
        met: Tensor,
        before: Tensor,
        behind: Tensor,
        by_area: Tensor,
        by_common: Tensor,
        turned: Tensor | None,
        span: Tensor | None,
        width: Tensor | None,
        pull: Tensor | None,
    ) -> tuple[Tensor, ...]:
        scale = per_unit * up
        upright, meet = _unless_below_0(scale, size), _unless_below_0(scale, met)
        shrunk = area if turned is None else turned
        outer = spread if span is None else span
        sides = [slope for slope in (outer, width) if slope is not None]
        if sides:
            both = torch.addcmul(reduce(torch.add, sides), by_area, shrunk).mul_(upright)
        else:
            both = (by_area * shrunk).mul_(upright)
        both.sub_(scale.sub_(upright))  # where it is turned inside out
        # an edge belongs to the intersection or to the enclosing box, half to each at a tie
        edge = (by_common * common).mul_(meet)
        if outer is not None:
            edge.sub_(upright.mul_(outer))
        edge.mul_(0.5)  # by signs, as a step function takes ten times the time of another operator
        high = torch.addcmul(edge, behind.sign(), edge, value=-1).add_(both)
        low = both.add_(edge.addcmul_(before.sign(), edge)).neg_()
        if pull is not None:
            pull = pull if isinstance(up, float) and up == 1 else pull * up
            low.add_(pull, alpha=0.5)
            high.add_(pull, alpha=0.5)
        if box_format == "xyxy":
            return low, high
        if box_format == "xywh":
            return low + high, high
        return low + high, high.sub_(low).mul_(0.5)

    lengths = o.per_unit, o.size, o.met, o.before, o.behind
    areas = _others(o.width), _others(o.common)
    turned = None if turn is None else turn(area)
    return _boxes(*each(pulled, *lengths, *areas, turned, span, width, pull))


def _boxes(first: Axes, second: Axes) -> Tensor:
    """Boxes, of the two numbers of each axis."""
    columns = (*first, *second)
    if torch.compiler.is_compiling():
        return torch.stack(columns, 1)
    boxes = columns[0].new_empty(len(columns[0]), len(columns))
    for column, values in zip(boxes.unbind(1), columns, strict=True):
        column.copy_(values)  # one by one: a stack takes twice the time
    return boxes


def _others(axes: Axes) -> Axes:
    """Of each axis, the product of what the other ones have."""
    if len(axes) == 2:
        return axes.flip(0) if isinstance(axes, Tensor) else (axes[1], axes[0])
    products = []
    for axis, own in enumerate(axes):
        rest = [k for i, k in enumerate(axes) if i != axis]
        products.append(reduce(torch.mul, rest) if rest else torch.ones_like(own))
    return torch.stack(products) if isinstance(axes, Tensor) else tuple(products)


def _unless_below_0(slope: Tensor, length: Tensor) -> Tensor:
    """``slope``, or 0 where ``length`` is below 0; ``torch.where`` takes 5 times longer."""
    return torch.ops.aten.threshold_backward(slope, length, -1e-38)
