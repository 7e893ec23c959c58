"""Rotated boxes by their polygons, corner after corner: what is cut off, and the hull.

The prediction is cut by the sides of the target, one after the other (Sutherland and Hodgman 1974);
the hull is that of the eight corners, sorted (Andrew 1979). In float64, of single numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.boxes import counted

__all__ = ["rotated_giou_loss", "rotated_iou_loss"]

_Point = tuple[Tensor, Tensor]


def _corners(box: Tensor) -> list[_Point]:
    cx, cy, w, h, angle = box.unbind()
    cos, sin = angle.cos(), angle.sin()
    return [
        (cx + (a * w * cos - b * h * sin) / 2, cy + (a * w * sin + b * h * cos) / 2)
        for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    ]


def _turn(a: _Point, b: _Point, c: _Point) -> Tensor:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _area(points: list[_Point], like: Tensor) -> Tensor:
    total = like.sum() * 0
    for i in range(2, len(points)):
        total = total + _turn(points[0], points[i - 1], points[i]) / 2
    return total


def _cut(points: list[_Point], a: _Point, b: _Point) -> list[_Point]:
    """What lies to the left of the line from a to b."""
    sides = [_turn(a, b, p) for p in points]
    left = []
    for i, (p, d) in enumerate(zip(points, sides, strict=True)):
        q, before = points[i - 1], sides[i - 1]
        if bool(d > 0) != bool(before > 0):
            share = before / (before - d)
            left.append((q[0] + share * (p[0] - q[0]), q[1] + share * (p[1] - q[1])))
        if bool(d > 0):
            left.append(p)
    return left


def _hull(points: list[_Point]) -> list[_Point]:
    ordered = sorted(points, key=lambda p: (float(p[0]), float(p[1])))
    around: list[_Point] = []
    for run in (ordered, ordered[::-1]):
        half: list[_Point] = []
        for p in run:
            while len(half) > 1 and bool(_turn(half[-2], half[-1], p) <= 0):
                half.pop()
            half.append(p)
        around += half[:-1]
    return around


def _measured(x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """Intersection, both areas and the hull; short sides as the docstring says."""
    gap = x[:2] - t[:2]
    lengths = torch.cat((x[2:4], t[2:4], 1e-3 * gap.abs())).detach()
    unit = lengths.amax()
    unit = torch.where(unit > 0, unit, 1.0)

    def box(b: Tensor, centre: Tensor) -> Tensor:
        sides = b[2:4] / unit
        sides = sides + (1e-3 - sides).clamp(min=0).detach()
        return torch.cat((centre / unit, sides, b[4:]))

    own, goal = box(x, gap), box(t, 0 * t[:2])
    mine, theirs = _corners(own), _corners(goal)
    inside = mine
    for i in range(4):
        inside = _cut(inside, theirs[i - 1], theirs[i])
    return (
        _area(inside, own), own[2] * own[3], goal[2] * goal[3], _area(_hull(mine + theirs), own),
    )  # fmt: skip


def _one(x: Tensor, t: Tensor, hull: bool) -> Tensor:
    if len(x) == 5:
        both, own, goal, whole = _measured(x, t)
        flip = x.sum() * 0
    else:
        keep = [0, 1, 3, 4, 6]
        both, own, goal, whole = _measured(x[keep], t[keep])
        centre, d, depth = x[2] - t[2], x[5], t[5]
        lo, hi = centre - d / 2, centre + d / 2
        turned = bool(d < 0)
        size = torch.where(d < 0, 0 * d, d)
        left, right = (hi.detach(), lo.detach()) if turned else (lo, hi)
        span = torch.maximum(right, depth / 2) - torch.minimum(left, -depth / 2)
        common = torch.minimum(hi, depth / 2) - torch.maximum(lo, -depth / 2)
        common = torch.where(common > 0, common, 0 * common)
        short = size - d
        if float(span) == 0:  # one point for both
            span = size = common = depth = 1 + 0 * span
        both, own, goal, whole = both * common, own * size, goal * depth, whole * span
        flip = short / span
    union = own + goal - both
    loss = 1 - both / (union if float(union) else 1 + union) + flip  # of two sheets, apart
    return loss + (whole - union) / whole if hull else loss


def _loss(a: Any, term: str, hull: bool) -> Tensor:
    w = torch.ones(a.pred_boxes.shape[:-1]).double() if a.weight is None else a.weight.double()
    keep = w != 0
    x, t = a.pred_boxes[keep], a.target_boxes[keep].double()
    values = [_one(p, q, hull) for p, q in zip(x, t, strict=True)]
    loss = torch.stack(values) if values else x.sum(-1)
    return counted(a, loss, w[keep], keep, term)


def rotated_iou_loss(a: Any) -> Tensor:
    return _loss(a, "rotated_iou", hull=False)


def rotated_giou_loss(a: Any) -> Tensor:
    """Rezatofighi et al. 2019 (arXiv:1902.09630), algorithm 1, with the convex hull."""
    return _loss(a, "rotated_giou", hull=True)
