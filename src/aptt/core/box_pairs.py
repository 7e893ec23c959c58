"""A prediction and a target, both rotated boxes, in a unit of their own: so nothing leaves a range.

No side is shorter in it than ``LEAST``, but keeps its slope. How sides differ is taken of them as
they came, so that boxes nearly equal keep their digits.

Axes: the gap of the centres and the sides of either ``(N, 2)``; the unit ``(N, 1)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["along", "in_unit", "longer", "unit_of"]

_LEAST = 1e-3  # of a side, relative to the unit: shorter ones count as that long


def unit_of(gap: Tensor, own: Tensor, goal: Tensor) -> Tensor:
    """The longest length of a pair, a constant; 1 where there is none."""
    lengths = torch.cat((gap.abs(), own, goal), 1).detach()
    unit = lengths.amax(1, keepdim=True) if len(lengths) else lengths[:, :1]
    return torch.where(unit > 0, unit, 1)


def in_unit(sides: Tensor, unit: Tensor) -> Tensor:
    """Sides in the unit; of those too short, the least with their own slope."""
    sides = sides / unit
    return torch.where(sides < _LEAST, _LEAST + (sides - sides.detach()), sides)


def longer(own: Tensor, goal: Tensor, sides: Tensor, goals: Tensor, unit: Tensor) -> Tensor:
    """By how much the first are longer in the unit, in which they are ``sides`` and ``goals``."""
    short = torch.minimum(own, goal) < _LEAST * unit
    return torch.where(short, sides - goals, (own - goal) / unit)


def along(gap: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The gap along the axes of a box that is turned by ``angle``."""
    cos, sin = angle.cos(), angle.sin()
    x, y = gap.unbind(1)
    return x * cos + y * sin, y * cos - x * sin
