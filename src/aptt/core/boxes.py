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
:func:`change`. Of segments there is x alone, and of cuboids z besides: areas are products over the
axes, and what lies outside, of one axis and those after it, is ``out_x h d + common_x (outside)``.

What there is one of per axis is an :data:`Axes`: one tensor ``(D, N)``, for fewer operators, or
inside ``torch.compile`` D of ``(N,)``, from which it makes one kernel. :func:`each` computes with
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Axes",
    "BoxFormat",
    "Overlap",
    "against_each_other",
    "change",
    "check_box_format",
    "each",
    "edges",
    "once",
    "overlap",
]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


class Axes(Protocol):
    """A number per box for each axis."""

    def __getitem__(self, axis: int, /) -> Tensor: ...

    def __iter__(self) -> Iterator[Tensor]: ...

    def __len__(self) -> int: ...


def check_box_format(box_format: str) -> None:
    """Refuse unknown names."""
    if box_format not in ("xyxy", "xywh", "cxcywh"):
        raise ValueError(f"box_format: got {box_format!r}, wanted 'xyxy', 'xywh' or 'cxcywh'")


def each(of_axis: Callable[..., tuple[Tensor, ...]], *axes: Axes | None) -> tuple[Axes, ...]:
    """What ``of_axis`` makes of its arguments on each axis."""
    if not torch.compiler.is_compiling():
        return of_axis(*axes)
    there = next(a for a in axes if a is not None)
    found = [of_axis(*(a if a is None else a[axis] for a in axes)) for axis in range(len(there))]
    return tuple(zip(*found, strict=True))


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
    """Lower and upper edges, each ``(D, N)``: x, then y."""
    first, second = boxes.chunk(2, 1)
    return _edges(first.t(), second.t(), box_format)


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
    w, g, both, missed = width[-1], goal[-1], common[-1], out[-1] + off[-1]
    for axis in range(len(width) - 2, -1, -1):
        missed = torch.addcmul(torch.addcmul(out[axis] * w, off[axis], g), common[axis], missed)
        both = common[axis] * both
        if axis > 0:
            w, g = width[axis] * w, goal[axis] * g
    union = (w + g if len(width) == 1 else torch.addcmul(width[0] * w, goal[0], g)) - both
    some = torch.threshold(union, 0.0, 1.0)
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
    numbers = boxes.shape[1]
    if torch.compiler.is_compiling():
        columns = tuple(once(boxes.select(1, i)) for i in range(numbers))
        return columns[: numbers // 2], columns[numbers // 2 :]
    rows = torch.stack(boxes.unbind(1))
    return rows[: numbers // 2], rows[numbers // 2 :]


def _above_0(length: Tensor) -> Tensor:
    """The length, or 0 below it; at 0, of an edge in common, half its slope."""
    if torch.is_grad_enabled():
        return torch.maximum(length, length.new_zeros(()))
    return torch.relu(length)
