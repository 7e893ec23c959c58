"""Pairs of rotated boxes, and of cuboids that are turned about z: areas and volumes.

Losses of both are the same in either order, so the shorter of the two is cut by the longer one: the
corners that decide are near the middle then, where a coordinate has digits to spare.

A cuboid is a rotated box times a segment, so that its volumes are areas times lengths, relative to
what z encloses of both, by :mod:`aptt.core.boxes`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.boxes import overlap
from aptt.core.polygons import Meeting, meeting

__all__ = ["turned"]


def turned(x: Tensor, t: Tensor) -> tuple[Meeting, Tensor | None]:
    """Measure the shorter of prediction and target against the longer one, row by row.

    Both are ``(N, 5)``: centre, width, height, angle; or ``(N, 7)``: centre, three sizes, angle. Of
    cuboids also, how far predictions are upside down.
    """
    last = x.shape[1] - 1
    wide = slice(2, 4) if last == 4 else slice(3, 5)
    longer = (x[:, wide].amax(1) > t[:, wide].amax(1)) if len(x) else x[:, 0] > 0
    other = longer.unsqueeze(1)
    a, b = torch.where(other, t, x), torch.where(other, x, t)
    if last == 4:
        return meeting(a, b), None
    base = meeting(*(torch.cat((k[:, :2], k[:, 3:5], k[:, 6:]), 1) for k in (a, b)))
    own, goal = (torch.stack((k[:, 2], k[:, 5]), 1) for k in (x, t))
    z = overlap(own, goal, "cxcywh")
    apart = z.common[0] <= 0  # of NaN, neither
    heights = torch.stack((z.width[0], z.goal[0]))
    outs = torch.where(apart, heights, torch.stack((z.out[0], z.off[0])))
    heights, outs = (torch.where(longer, k.flip(0), k) for k in (heights, outs))
    above = torch.where(apart, 1 - heights[1], outs[0])
    return Meeting(
        goal=base.goal * heights[1],
        inside=base.inside * z.common[0],
        outside=torch.addcmul(base.outside * heights[0], base.inside, outs[0]),
        missing=torch.addcmul(base.missing * heights[1], base.inside, outs[1]),
        beyond=torch.addcmul(base.beyond, base.goal, above),
    ), -z.flip[0] / z.unit[0]
