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

from aptt.core.box_pairs import along, in_unit, longer, unit_of

__all__ = ["divergence"]


def divergence(x: Tensor, t: Tensor) -> Tensor:
    """KL(t, x) of each row, both ``(N, 5)``: of the Gaussian of ``t`` from that of ``x``."""
    gap, own, goal = x[:, :2] - t[:, :2], x[:, 2:4], t[:, 2:4]
    unit, turn = unit_of(gap, own, goal), x[:, 4] - t[:, 4]
    sides = in_unit(own, unit)
    both = _oblong(sides) * _oblong(in_unit(goal, unit))  # of a square it is 0, with a slope
    alike = both >= 0
    goal = torch.where(alike.unsqueeze(1), goal, goal.flip(1))
    ends = in_unit(goal, unit)
    more = longer(goal, own, ends, sides, unit) / sides  # W / w - 1
    turned = torch.where(alike, both * turn.sin().square(), -both * turn.cos().square())
    seen = torch.stack(along(gap / unit, x[:, 4]), 1) / sides
    # of a small one, its square is what is left; of one near -1, by how much it is more than -1
    wider = torch.where(more < -0.5, (ends / sides).double() - 1, more.double())
    of_sides = more.square() / 2 + (wider - wider.log1p()).to(more.dtype)
    area = sides.prod(1)
    return (2 * seen.square() + of_sides).sum(1) + turned / area / area / 2


def _oblong(sides: Tensor) -> Tensor:
    """``w**2 - h**2``: above 0 of what is wide, below 0 of what is tall."""
    w, h = sides.unbind(1)
    return (w - h) * (w + h)
