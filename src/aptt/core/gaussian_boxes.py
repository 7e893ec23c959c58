"""Rotated boxes as Gaussians, and how far one diverges from the other.

The Gaussian of a box has its centre, and half its sides for standard deviations along its axes. Of
two boxes with sides (w, h) and (W, H), (u, v) the gap along the axes of the first:

    KL(2, 1) = 2 (u**2 / w**2 + v**2 / h**2) + f(W / w) + f(H / h) + s / (2 w**2 h**2)
    f(k)     = (k**2 - 1) / 2 - log(k)
    s        = (w**2 - h**2) (W**2 - H**2) sin(turn)**2

where both are wide, or both tall; else W and H change places, and the sine a cosine. So no term is
negative, and nothing cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["divergence"]

_LEAST = 1e-3  # of a side, relative to the pair's longest length: shorter ones count as that long


def divergence(x: Tensor, t: Tensor) -> Tensor:
    """KL(t, x) of each row, both ``(N, 5)``: of the Gaussian of ``t`` from that of ``x``."""
    gap, own, goal = x[:, :2] - t[:, :2], x[:, 2:4], t[:, 2:4]
    unit = torch.cat((gap.abs(), own, goal), 1).detach()
    unit = unit.amax(1, keepdim=True).clamp(min=0) if len(unit) else unit[:, :1]
    unit = torch.where(unit > 0, unit, 1)
    sides, turn = _sides(own, unit), x[:, 4] - t[:, 4]
    wide, goal_wide = (_wide(v) for v in (sides, _sides(goal, unit)))
    alike = wide * goal_wide >= 0
    goal = torch.where(alike.unsqueeze(1), goal, goal.flip(1))
    goals = _sides(goal, unit)
    short = torch.minimum(own, goal) < _LEAST * unit
    more = torch.where(short, goals - sides, (goal - own) / unit) / sides  # W / w - 1
    both = wide * goal_wide  # of a square it is 0, with a slope
    turned = torch.where(alike, both * turn.sin().square(), -both * turn.cos().square())
    cos, sin = x[:, 4].cos(), x[:, 4].sin()
    across, up = (gap / unit).unbind(1)
    seen = torch.stack((across * cos + up * sin, up * cos - across * sin), 1) / sides
    wider = more.double()  # where it is little, its square is what is left
    of_sides = more.square() / 2 + (wider - wider.log1p()).to(more.dtype)
    area = sides.prod(1)
    return (2 * seen.square() + of_sides).sum(1) + turned / area / area / 2


def _wide(sides: Tensor) -> Tensor:
    w, h = sides.unbind(1)
    return (w - h) * (w + h)


def _sides(sides: Tensor, unit: Tensor) -> Tensor:
    """Both in the unit; of those too short, the least with their own slope."""
    sides = sides / unit
    return torch.where(sides < _LEAST, _LEAST + (sides - sides.detach()), sides)
