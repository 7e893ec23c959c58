"""Rotated boxes, exactly: how much of one lies outside of the other, and the hull of both.

A pair is seen along the target's axes, from its centre and in a unit of its size. Boxes are the
same after half a turn, or a quarter with their sides exchanged, so the prediction is written such
that it is turned by an eighth at most, its corners beside those of the target. There

    x = X + ex,  y = Y + ey       of any point: what lies within the target's range, and beyond it

are its coordinates, and by Green's theorem, round the prediction,

    outside = sum over its sides of  mean(ex) dY - mean(ey) dx
    inside  = sum over its sides of  mean(X) dY

with the means of ex and X over that part of the side where y is within. Of a coordinate that runs
evenly from a to b, the mean excess is ``(ea + eb) / 2 * (eb - ea) / (b - a)``. So no polygon is
made: none of its corners can be lost or doubled, nothing is sorted, and no tolerance decides. The
hull is larger than the target by

    beyond = 1 / 2 sum of  max(0, reach of the prediction - reach of the target) * side

over the eight sides of both, where a reach is how far a box extends at right angles to the side.

Everything is made of how the boxes differ: the gap of their centres, the differences of their
sides, the turn. Equal boxes give exact zeros, and boxes nearly equal keep their digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.box_pairs import along, in_unit, longer, unit_of

__all__ = ["Meeting", "meeting"]

_NEAREST = 1e-3  # the longest side counts as at least so much of the gap
_QUARTER = 1.57080078125  # of a turn, in so few digits that small multiples are exact
_MORE = math.pi / 2 - _QUARTER


class Meeting(NamedTuple):
    """Areas of each pair, ``(N,)``, in a unit of its own."""

    goal: Tensor  # of the target
    inside: Tensor  # of the intersection
    outside: Tensor  # of the prediction without it
    missing: Tensor  # of the target without it
    beyond: Tensor  # of the hull without the target


def meeting(x: Tensor, t: Tensor) -> Meeting:
    """Measure predictions against targets, both ``(N, 5)``, row by row; differentiable."""
    gap, own, goal = x[:, :2] - t[:, :2], x[:, 2:4], t[:, 2:4]
    quarters, turn = _turned(x[:, 4], t[:, 4])
    own = torch.where((quarters.remainder(2) == 1).unsqueeze(1), own.flip(1), own)
    unit = unit_of(gap * _NEAREST, own, goal)
    sides, goals = in_unit(own, unit), in_unit(goal, unit)
    more = longer(own, goal, sides, goals, unit)
    return _measured(*along(gap / unit, t[:, 4]), turn, sides, goals, more)


def _measured(
    gap_x: Tensor, gap_y: Tensor, turn: Tensor, sides: Tensor, goals: Tensor, more: Tensor
) -> Meeting:
    """The same, of sides ``(N, 2)``, of the gap along the target's axes, and of a turn in it."""
    (w, h), (goal_w, goal_h), (more_w, more_h) = (v.unbind(1) for v in (sides, goals, more))
    cos, sin, less = turn.cos(), turn.sin(), 2 * (turn / 2).sin().square()  # 1 - cos
    outside, inside = _parts(gap_x, gap_y, cos, sin, less, sides, goals, more)
    # along the axes of either: the gap, and how much further the prediction reaches
    own_x, own_y = gap_x * cos + gap_y * sin, gap_y * cos - gap_x * sin
    gaps, tilt = torch.stack((gap_x, gap_y, own_x, own_y)), sin.abs()
    further = torch.stack(
        (
            more_w - w * less + h * tilt,
            more_h - h * less + w * tilt,
            more_w + goal_w * less - goal_h * tilt,
            more_h + goal_h * less - goal_w * tilt,
        )
    ).mul(0.5)
    reaches = torch.cat((further[:2] + goals.t(), sides.t() - further[2:]))
    apart = (gaps.abs() >= reaches).any(0)
    beyond = _above_0(further + gaps) + _above_0(further - gaps)
    beyond = (beyond * torch.stack((goal_h, goal_w, h, w))).sum(0) / 2
    area, goal, larger = w * h, goal_w * goal_h, more_w * h + goal_w * more_h
    # the lesser part has the digits, and what is left of the area is the other one
    near = outside < area / 2
    inside = torch.where(near, area - outside, _above_0(torch.where(apart, 0.0, inside)))
    outside = torch.where(near, outside, area - inside)
    missing = torch.where(near, outside - larger, goal - inside)
    return Meeting(goal, inside, outside, missing, beyond)


def _parts(
    gap_x: Tensor,
    gap_y: Tensor,
    cos: Tensor,
    sin: Tensor,
    less: Tensor,
    sides: Tensor,
    goals: Tensor,
    more: Tensor,
) -> tuple[Tensor, Tensor]:
    """How much of the prediction lies outside of the target, and how much inside."""
    (w, h), (goal_w, goal_h), (more_w, more_h) = (v.unbind(1) for v in (sides, goals, more))
    # how far the corners lie beyond the target's right side, and its left, its upper, its lower:
    # from the upper right corner on, against the clock
    near_x, near_y = (more_w - w * less) / 2, (more_h - h * less) / 2
    far_x, far_y = -(w * cos + goal_w) / 2, -(h * cos + goal_h) / 2
    across, up = h * sin / 2, w * sin / 2
    shift_x, shift_y = gap_x - _ring(across), gap_y + _ring(up).roll(-1, 0)
    right = shift_x + torch.stack((near_x, far_x, far_x, near_x))
    left = torch.stack((far_x, near_x, near_x, far_x)) - shift_x
    above = shift_y + torch.stack((near_y, near_y, far_y, far_y))
    below = torch.stack((far_y, far_y, near_y, near_y)) - shift_y
    run = torch.stack((-w * cos, 2 * across, w * cos, -2 * across))  # of each side, in x
    rise = torch.stack((-2 * up, -h * cos, 2 * up, h * cos))

    y, ey = _within(above, below, goal_h), _beyond(above, below)
    over = _mean(ey, _next(ey), rise) * run
    # where a side comes into the range of y, and where it leaves it
    out = ey * _next(ey) > 0
    came, left_off = (_share(ends.abs(), rise.abs(), out, 0.0) for ends in (ey, _next(ey)))
    first, last = came * run, left_off * run
    from_right, from_left = right + first, left - first
    to_right, to_left = _next(right) - last, _next(left) + last
    ends = _beyond(from_right, from_left), _beyond(to_right, to_left)
    beside, rises = _mean(*ends, run * (1 - came - left_off)), _next(y) - y
    middle = ((from_right - from_left) + (to_right - to_left)) / 4
    return (beside * rises - over).sum(0), ((middle - beside) * rises).sum(0)


def _mean(first: Tensor, last: Tensor, run: Tensor) -> Tensor:
    """What is beyond, on average along a side: of its ends, and of how far it runs."""
    return (first + last) / 2 * _share(last - first, run, first * last > 0, 1.0)


def _share(part: Tensor, whole: Tensor, known: Tensor, value: float) -> Tensor:
    """``part / whole``, from 0 to 1; the value where it is known."""
    known = known | (whole == 0)
    return torch.where(known, value, part / torch.where(known, 1.0, whole)).clamp(0, 1)


def _within(over: Tensor, under: Tensor, length: Tensor) -> Tensor:
    """A coordinate held to a range, from its middle: of how far it lies beyond either end."""
    half = length / 2
    return torch.where(over > under, half + _below_0(over), -half - _below_0(under))


def _beyond(over: Tensor, under: Tensor) -> Tensor:
    """What of it is beyond the range; below 0 on the lower side."""
    return _above_0(over) - _above_0(under)


def _ring(k: Tensor) -> Tensor:
    return torch.stack((k, k, -k, -k))


def _next(corners: Tensor) -> Tensor:
    """Of each corner, the one after it."""
    return corners.roll(-1, 0)


def _turned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """How many quarters of a turn lie between two angles, and what is left, an eighth at most."""
    apart = a - b
    with torch.no_grad():
        quarters = (apart / (math.pi / 2)).round()
        back = apart - a
        lost = (a - (apart - back)) - (b + back)  # by rounding (Knuth)
        less = quarters * _MORE - lost
    return quarters, (apart - quarters * _QUARTER) - less


def _above_0(length: Tensor) -> Tensor:
    """The length, or 0 below it; at 0, half its slope."""
    return torch.maximum(length, length.new_zeros(()))


def _below_0(length: Tensor) -> Tensor:
    return torch.minimum(length, length.new_zeros(()))
