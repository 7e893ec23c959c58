"""Rotated boxes as Gaussians, and the Bhattacharyya distance of a pair.

A box (cx, cy, w, h, angle) has the covariance of a uniform density on it, R diag(w**2, h**2) R'
/ 12. With a = w h, the turn between the boxes, and the gap between the centres seen along the axes
of each box, (u, v):

    det      = a1**2 + a2**2 + b**2 + c**2 + s        of 12 times the sum of both covariances
    distance = 3 sum ((h u)**2 + (w v)**2) / det
               + log(1 + ((a1 - a2)**2 + (b - c)**2 + s) / (4 a1 a2)) / 2

    b, c     = h1 w2, w1 h2 if both boxes lie alike (both wide or both tall), else w1 w2, h1 h2
    s        = |(w1**2 - h1**2) (w2**2 - h2**2)| sin(turn)**2, of cos where they do not lie alike

No term is negative, and what is squared is summed of the sides' differences, so nothing cancels:
equal boxes are exactly 0 apart, and boxes nearly equal as far apart as they are. It is the usual
formula, with its determinants multiplied out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.box_pairs import along, in_unit, longer, unit_of

__all__ = ["bhattacharyya", "slant"]


def bhattacharyya(x: Tensor, t: Tensor) -> Tensor:
    """The distance of each row of ``x`` from that of ``t``, both ``(N, 5)``; differentiable."""
    gap, own, goal = x[:, :2] - t[:, :2], x[:, 2:4], t[:, 2:4]
    unit = unit_of(gap, own, goal)
    gap, (w, h), (goal_w, goal_h) = gap / unit, *(in_unit(v, unit).unbind(1) for v in (own, goal))
    seen = _seen(gap, x[:, 4], w, h) + _seen(gap, t[:, 4], goal_w, goal_h)
    wide, goal_wide = (w - h) * (w + h), (goal_w - goal_h) * (goal_w + goal_h)
    both, turn = wide * goal_wide, x[:, 4] - t[:, 4]
    alike = both >= 0  # where one is a square, no side of an absolute value has a slope of 0
    turned = torch.where(alike, turn.sin(), turn.cos()).square() * torch.where(alike, both, -both)
    # side against side, the longer against the longer; what is taken off is their difference
    goal = torch.where(alike.unsqueeze(1), goal, goal.flip(1))
    sides, goals = in_unit(own, unit), in_unit(goal, unit)
    less_w, less_h = longer(own, goal, sides, goals, unit).unbind(1)
    (w, h), (goal_w, goal_h) = sides.unbind(1), goals.unbind(1)
    area, goal_area = w * h, goal_w * goal_h
    sums = area.square() + goal_area.square() + (w * goal_h).square() + (h * goal_w).square()
    of_area, of_shape = less_w * h + goal_w * less_h, w * less_h - h * less_w
    shape = of_area.square() + of_shape.square() + turned
    return 3 * seen / (sums + turned) + torch.log1p(shape / (4 * area * goal_area)) / 2


def slant(x: Tensor, t: Tensor) -> Tensor:
    """How far the axes are from parallel, 0 to 1; less for longer targets, nothing for lines."""
    w, h = t[:, 2:4].clamp(min=0).unbind(1)
    unit = torch.maximum(w, h).detach()
    unit = torch.where(unit > 0, unit, 1)
    w, h = w / unit, h / unit
    size = w.square() + h.square()
    square = 2 * w * h / torch.where(size > 0, size, 1)
    return (2 * (x[:, 4] - t[:, 4])).sin().square() * square.square()


def _seen(gap: Tensor, angle: Tensor, w: Tensor, h: Tensor) -> Tensor:
    """The gap along the axes of a box, each times the other side, squared and added up.

    A square is the same however it is turned, and so is the square within a box.
    """
    u, v = along(gap, angle)
    more, wide = (w - h) * (w + h), w >= h
    beyond = torch.where(wide, more, -more) * torch.where(wide, v, u).square()
    return torch.where(wide, h, w).square() * gap.square().sum(1) + beyond
