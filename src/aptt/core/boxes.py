"""Pairs of boxes, measured against the box that encloses them.

Every length is divided by the enclosing box's, axis by axis, so nothing depends on the scale, and
areas neither overflow nor vanish. Per axis, of a prediction ``lo..hi`` and a target:

    span     the enclosing length                width, goal   the two lengths / span
    common   length of the intersection / span   flip          how far hi lies before lo / span

An axis on which both boxes are the same point has width = goal = common = 1: it decides nothing.
A prediction turned inside out has no width; ``flip`` is what a loss adds to turn it back, and the
enclosing length is held there: the only pull is to turn back.

    out      how much of the prediction lies outside of the target / span
    off      how much of the target lies outside of the prediction / span

    iou  = I / U             with I = common_x common_y, P and G likewise, U = P + G - I relative
                             to the enclosing area, which is therefore 1
    miss = (U - I) / U       U - I = out_x h + common_x out_y + off_x H + common_x off_y

where ``miss`` is 1 - iou, and no difference: boxes nearly equal keep their digits. So do widths, as
:func:`change`.

What there is one of per axis is an :data:`Axes`: one tensor ``(2, N)``, which halves the number of
operators, or inside ``torch.compile`` two of ``(N,)``, from which it makes one kernel.
:func:`each` computes with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Axes",
    "BoxFormat",
    "Overlap",
    "Slopes",
    "against_each_other",
    "change",
    "check_box_format",
    "each",
    "edges",
    "once",
    "overlap",
    "pull_back",
]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


class Axes(Protocol):
    """A number per box for each of x and y."""

    def __getitem__(self, axis: int, /) -> Tensor: ...


def check_box_format(box_format: str) -> None:
    """Refuse unknown names."""
    if box_format not in ("xyxy", "xywh", "cxcywh"):
        raise ValueError(f"box_format: got {box_format!r}, wanted 'xyxy', 'xywh' or 'cxcywh'")


def each(of_axis: Callable[..., tuple[Tensor, ...]], *axes: Axes | None) -> tuple[Axes, ...]:
    """What ``of_axis`` makes of its arguments on each axis."""
    if not torch.compiler.is_compiling():
        return of_axis(*axes)
    x, y = (of_axis(*(a if a is None else a[axis] for a in axes)) for axis in (0, 1))
    return tuple(zip(x, y, strict=True))


def against_each_other(a: Tensor, k: Tensor, factor: float) -> Axes:
    """``a - factor * k`` for x, ``a + factor * k`` for y."""
    if torch.compiler.is_compiling():
        return a - factor * k, a + factor * k
    signs = torch.arange(-1, 2, 2, dtype=a.dtype, device=a.device).unsqueeze(1)
    return torch.addcmul(a, k, signs, value=factor)


class Overlap(NamedTuple):
    """The measures of each pair: lengths and edges per axis, and ratios ``(N,)``."""

    lo: Axes
    hi: Axes
    goal_low: Axes  # in order
    goal_high: Axes
    span: Axes  # in the units of the boxes
    unit: Axes  # span, or 1 where it is 0
    per_unit: Axes  # 1 / span, or 0 where it is 0
    size: Axes  # hi - lo, below 0 where the prediction is turned inside out
    met: Axes  # the intersection, below 0 where the boxes are apart
    width: Axes  # relative to the span, like goal and common
    goal: Axes
    common: Axes
    flip: Axes  # size where it is below 0, or 0
    before: Axes  # how far the edges lie behind the target's
    behind: Axes
    out: Axes  # of boxes that overlap
    off: Axes
    union: Tensor
    some: Tensor  # union, or 1 where it is 0
    iou: Tensor
    miss: Tensor


def edges(boxes: Tensor, box_format: BoxFormat) -> tuple[Tensor, Tensor]:
    """Lower and upper edges, each ``(2, N)``: x, then y."""
    return _edges(boxes[:, :2].t(), boxes[:, 2:].t(), box_format)


def overlap(x: Tensor, t: Tensor, box_format: BoxFormat) -> Overlap:
    """Measure predictions ``x`` against targets ``t``, row by row; differentiable."""

    def measured(a: Tensor, b: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        if box_format != "xyxy":  # edges are sums, which lose no digits near the origin
            a, g = a - g, torch.zeros_like(g)
        (lo, hi), (goal_lo, goal_hi) = _edges(a, b, box_format), _edges(g, h, box_format)
        size, goal = hi - lo, goal_hi - goal_lo
        met = torch.minimum(hi, goal_hi).sub_(torch.maximum(lo, goal_lo))
        goal_low, goal_high = torch.minimum(goal_lo, goal_hi), torch.maximum(goal_lo, goal_hi)
        # the edges in order; of a prediction inside out, held
        span = torch.maximum(torch.clamp(hi, min=lo.detach()), goal_high)
        span.sub_(torch.minimum(torch.clamp(lo, max=hi.detach()), goal_low))
        span = once(span)
        unit = torch.threshold(span, 0.0, 1.0)
        point = (unit - span).detach()
        width, goal, common = (torch.clamp(k, min=point).div_(unit) for k in (size, goal, met))
        flip = F.hardtanh(size, -math.inf, 0.0)
        before, behind = lo - goal_low, hi - goal_high
        left, right = _above_0(before), _above_0(behind)
        per_unit = torch.reciprocal(unit) - point
        out = ((left - before) + right) * per_unit
        off = (left + (right - behind)) * per_unit
        edges = lo, hi, goal_low, goal_high, span, unit, per_unit, size, met
        return *edges, width, goal, common, flip, before, behind, out, off

    axes = each(measured, *_columns(x), *_columns(t))
    *_, width, goal, common, _, _, _, out, off = axes
    both = common[0] * common[1]
    union = torch.addcmul(width[0] * width[1], goal[0], goal[1]) - both
    some = torch.threshold(union, 0.0, 1.0)
    missed = torch.addcmul(out[0] * width[1], off[0], goal[1])
    missed = torch.addcmul(missed, common[0], out[1] + off[1])
    iou = both / some
    # either is exact, with its slopes, where it is the lesser
    miss = torch.where(missed < both, missed / some, 1 - iou)
    return Overlap._make((*axes, union, some, iou, miss))


def change(o: Overlap) -> Axes:
    """``width - goal``: by the edges where the boxes overlap, for widths nearly equal.

    Of a point it is ``-goal``, exactly.
    """

    def of_axis(
        common: Tensor, width: Tensor, goal: Tensor, out: Tensor, off: Tensor
    ) -> tuple[Tensor, ...]:
        return (torch.where(common > 0, out - off, width - goal),)

    (found,) = each(of_axis, o.common, o.width, o.goal, o.out, o.off)
    return found


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
        half = edge.new_full((), 0.5)
        high = torch.addcmul(both, torch.heaviside(-behind, half), edge)
        low = both.addcmul_(torch.heaviside(before, half), edge).neg_()
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
    areas = _swapped(o.width), _swapped(o.common)
    turned = None if turn is None else turn(area)
    return _boxes(*each(pulled, *lengths, *areas, turned, span, width, pull))


def _edges(first: Tensor, second: Tensor, box_format: BoxFormat) -> tuple[Tensor, Tensor]:
    if box_format == "xyxy":
        return first, second
    if box_format == "xywh":
        return first, first + second
    half = second / 2
    return first - half, first + half


def once(values: Tensor) -> Tensor:
    """What a compiler shall compute once: it neither repeats it nor, within a kernel, writes it.

    Inductor repeats short expressions wherever they are used, so that what is read across the
    rows, once, would be read dozens of times; and then it gives up on vector instructions. It
    takes 3 times as long. To autograd the detour is a scatter, and not worth it.
    """
    if not torch.compiler.is_compiling() or (torch.is_grad_enabled() and values.requires_grad):
        return values
    return values.clone(memory_format=torch.contiguous_format).as_strided(values.shape, (1,))


def _columns(boxes: Tensor) -> tuple[Axes, Axes]:
    """The two numbers of each axis, side by side in memory."""
    if torch.compiler.is_compiling():
        a, b, c, d = (once(boxes.select(1, i)) for i in range(4))
        return (a, b), (c, d)
    rows = torch.stack(boxes.unbind(1))
    return rows[:2], rows[2:]


def _boxes(first: Axes, second: Axes) -> Tensor:
    """Boxes, of the two numbers of each axis."""
    columns = (first[0], first[1], second[0], second[1])
    if torch.compiler.is_compiling():
        return torch.stack(columns, 1)
    boxes = columns[0].new_empty(len(columns[0]), 4)
    for column, values in zip(boxes.unbind(1), columns, strict=True):
        column.copy_(values)  # one by one: a stack takes twice the time
    return boxes


def _above_0(length: Tensor) -> Tensor:
    """The length, or 0 below it; at 0, of an edge in common, half its slope."""
    if torch.is_grad_enabled():
        return torch.maximum(length, length.new_zeros(()))
    return torch.relu(length)


def _swapped(axes: Axes) -> Axes:
    """Of each axis, what the other one has."""
    if isinstance(axes, Tensor):
        return axes.flip(0)
    return axes[1], axes[0]


def _unless_below_0(slope: Tensor, length: Tensor) -> Tensor:
    """``slope``, or 0 where ``length`` is below 0; ``torch.where`` takes 5 times longer."""
    return torch.ops.aten.threshold_backward(slope, length, -1e-38)
