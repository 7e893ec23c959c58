"""Pairs of boxes, measured against the box that encloses them.

Every length is divided by the enclosing box's, axis by axis, so nothing depends on the scale, and
areas neither overflow nor vanish. Per axis, of a prediction ``lo..hi`` and a target:

    span     the enclosing length                width, goal   the two lengths / span
    common   length of the intersection / span   flip          how far hi lies before lo / span

An axis on which both boxes are the same point has width = goal = common = 1: it decides nothing.
A prediction turned inside out has no width; ``flip`` is what a loss adds to turn it back.

    iou = I / U      with I = common_x common_y, P and G likewise, U = P + G - I relative to the
                     enclosing area, which is therefore 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.streaming import Work

__all__ = [
    "BoxFormat",
    "Overlap",
    "Slopes",
    "check_box_format",
    "edges",
    "overlap",
    "pull_back",
    "walked",
]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


def check_box_format(box_format: str) -> None:
    """Refuse unknown names."""
    if box_format not in ("xyxy", "xywh", "cxcywh"):
        raise ValueError(f"box_format: got {box_format!r}, wanted 'xyxy', 'xywh' or 'cxcywh'")


class Overlap(NamedTuple):
    """Edges and lengths per axis ``(2, N)``, and the ratios of each pair ``(N,)``."""

    lo: Tensor  # after walked(), of a prediction turned inside out, in order; of a target always
    hi: Tensor
    goal_lo: Tensor
    goal_hi: Tensor
    span: Tensor  # in the units of the boxes; the other lengths are relative to it
    width: Tensor
    goal: Tensor
    common: Tensor
    flip: Tensor | None  # None: no prediction is turned inside out
    union: Tensor
    iou: Tensor


def edges(boxes: Tensor, box_format: BoxFormat) -> tuple[Tensor, Tensor]:
    """Lower and upper edges, each ``(2, N)``: x, then y."""
    first, second = boxes[:, :2].t(), boxes[:, 2:].t()
    if box_format == "xyxy":
        return first, second
    if box_format == "xywh":
        return first, first + second
    return first - second / 2, first + second / 2


def overlap(x: Tensor, t: Tensor, box_format: BoxFormat) -> Overlap:
    """Measure predictions ``x`` against targets ``t``, row by row; differentiable."""
    if box_format != "xyxy":  # edges are sums, which lose no digits near the origin
        origin = torch.nn.functional.pad(t[:, :2], (0, 2))
        x, t = x - origin, t - origin
    (lo, hi), (goal_lo, goal_hi) = edges(x, box_format), edges(t, box_format)
    common = torch.minimum(hi, goal_hi) - torch.maximum(lo, goal_lo)
    goal = goal_hi - goal_lo
    goal_lo, goal_hi = torch.minimum(goal_lo, goal_hi), torch.maximum(goal_lo, goal_hi)
    flip = torch.relu(lo - hi)
    span = torch.maximum(hi + flip, goal_hi) - torch.minimum(lo - flip, goal_lo)
    span = torch.where(flip > 0, span.detach(), span)  # there, the only pull is to turn back
    some = span > 0
    unit = torch.where(some, span, 1.0)
    width, goal, common = (
        torch.where(some, length / unit, 1.0)
        for length in (hi - lo + flip, goal.clamp(min=0), common.clamp(min=0))
    )
    both = common[0] * common[1]
    union = width[0] * width[1] + goal[0] * goal[1] - both
    iou = both / torch.where(union > 0, union, 1.0)
    return Overlap(lo, hi, goal_lo, goal_hi, span, width, goal, common, flip / unit, union, iou)


def walked(
    x: Tensor, t: Tensor, work: Work, box_format: BoxFormat
) -> tuple[Overlap, Tensor, Tensor]:
    """:func:`overlap` by hand; where the boxes meet (0 or 1); and 1 / span, 0 where span is 0.

    Masks are numbers: a comparison into a float buffer costs a twentieth of a choice per element.
    """
    rows, goal_rows = _rows(x, work, ""), _rows(t, work, "goal_")
    if box_format != "xyxy":
        rows[:2] -= goal_rows[:2]
        goal_rows[:2] = 0
    lo, hi = _edges(rows, work, "", box_format)
    goal_lo, goal_hi = _edges(goal_rows, work, "goal_", box_format)
    aux = work("aux", lo)
    common = torch.minimum(hi, goal_hi, out=work("common", lo))
    common -= torch.maximum(lo, goal_lo, out=aux)
    meet = torch.ge(common, 0, out=work("meet", lo))
    common.clamp_min_(0)
    width = torch.sub(hi, lo, out=work("width", lo))
    goal = torch.sub(goal_hi, goal_lo, out=work("goal", lo))
    if x.device.type != "cpu" or not bool(goal.amin() >= 0):
        goal.clamp_min_(0)
        goal_lo, goal_hi = torch.minimum(goal_lo, goal_hi), torch.maximum(goal_lo, goal_hi)
    span = torch.maximum(hi, goal_hi, out=work("span", lo))
    span -= torch.minimum(lo, goal_lo, out=aux)
    flip = None
    if x.device.type != "cpu" or not bool(width.amin() >= 0):
        flip = torch.relu(-width)
        width += flip
        span = torch.maximum(hi + flip, goal_hi) - torch.minimum(lo - flip, goal_lo)
    point = torch.eq(span, 0, out=aux)
    unit = torch.add(span, point, out=work("unit", lo))
    for length in (width, goal, common):
        length.add_(point).div_(unit)
    if flip is not None:
        lo, hi, flip = lo - flip, hi + flip, flip / unit
    scale = unit.reciprocal_().sub_(point)
    both = torch.mul(common[0], common[1], out=work("iou", lo[0]))
    union = torch.mul(width[0], width[1], out=work("union", lo[0]))
    union.addcmul_(goal[0], goal[1]).sub_(both)
    iou = both.div_(torch.eq(union, 0, out=aux[0]).add_(union))
    o = Overlap(lo, hi, goal_lo, goal_hi, span, width, goal, common, flip, union, iou)
    return o, meet, scale


@dataclass
class Slopes:
    """A loss's slopes in the measures of an :class:`Overlap`; a penalty adds its own.

    ``area`` and ``common``, ``(N,)``: d loss / d P and d loss / d I. ``spread``, ``(N,)``: the
    slope in the logarithm of an enclosing length, of either axis. The others are ``(2, N)``, in the
    inverse of the boxes' units.
    """

    area: Tensor
    common: Tensor
    spread: Tensor | None = None
    centre: Tensor | None = None
    width: Tensor | None = None
    span: Tensor | None = None


def pull_back(
    o: Overlap,
    meet: Tensor,
    scale: Tensor,
    slopes: Slopes,
    work: Work,
    box_format: BoxFormat,
    out: Tensor,
) -> Tensor:
    """The gradient in the boxes, from the slopes; written to ``out``. Overwrites lengths of ``o``.

    An edge belongs to the intersection or to the enclosing box, half to each at a tie.
    """
    area, common = work("area", o.span), o.goal
    for axis in (0, 1):
        torch.mul(o.width[1 - axis], slopes.area, out=area[axis])
        torch.mul(o.common[1 - axis], slopes.common, out=common[axis])
    area.mul_(scale)
    common.mul_(scale).mul_(meet)
    span = work("by_span", o.span)
    if slopes.spread is not None:
        torch.mul(scale, slopes.spread, out=span)
    else:
        span.zero_()
    if slopes.span is not None:
        span += slopes.span
    if slopes.width is not None:
        area += slopes.width
    if o.flip is not None:
        turned = torch.gt(o.flip, 0).to(scale.dtype)
        area.mul_(1 - turned)
        span.mul_(1 - turned)
    outer = torch.add(common, span, out=work("outer", span)).mul_(0.5).add_(area)
    half = common.sub_(span).mul_(0.5)
    low = torch.sub(o.lo, o.goal_lo, out=o.lo).sign_().mul_(half).add_(outer).neg_()
    high = torch.sub(o.goal_hi, o.hi, out=o.hi).sign_().mul_(half).add_(outer)
    if o.flip is not None:
        low.addcmul_(scale, turned)
        high.addcmul_(scale, turned, value=-1)
    if slopes.centre is not None:
        low.add_(slopes.centre, alpha=0.5)
        high.add_(slopes.centre, alpha=0.5)
    _write(out, low, high, box_format)
    return out


def _rows(boxes: Tensor, work: Work, name: str) -> Tensor:
    """``(4, N)``, copied column by column: transposing in one copy takes three times longer."""
    rows = work(name + "edges", boxes).view(4, -1)
    for row, column in zip(rows, boxes.unbind(1), strict=True):
        row.copy_(column)
    return rows


def _edges(rows: Tensor, work: Work, name: str, box_format: BoxFormat) -> tuple[Tensor, Tensor]:
    """:func:`edges` of rows, in their place."""
    first, second = rows[:2], rows[2:]
    if box_format == "xywh":
        second += first
    elif box_format == "cxcywh":
        half = second.mul_(0.5)
        second = torch.add(first, half, out=work(name + "high", half))
        first -= half
    return first, second


def _write(out: Tensor, low: Tensor, high: Tensor, box_format: BoxFormat) -> None:
    first, second = low, high
    if box_format == "xywh":
        first = low + high
    elif box_format == "cxcywh":
        first, second = low + high, (high - low) / 2
    for column, row in zip(out.unbind(1), (*first, *second), strict=True):
        column.copy_(row)
