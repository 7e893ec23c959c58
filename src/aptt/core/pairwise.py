"""Every prediction beside every target: distances of boxes that no row pairs yet.

Axes: ``q`` boxes ``(..., q, 4)`` and ``m`` targets ``(..., m, 4)`` give ``(..., q, m)``. A pair
takes a handful of numbers at once, one axis after the other, and never a row of eight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.precision import by_itself

__all__ = ["corners_of", "covered", "pairwise_giou", "pairwise_l1", "products"]


def products(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in their own dtype, whatever autocast says."""
    with by_itself(a):
        return a @ b


def pairwise_l1(boxes: Tensor, goals: Tensor) -> Tensor:
    """The sum of the absolute differences of their four numbers."""
    total = None
    for k in range(4):
        apart = (boxes[..., k].unsqueeze(-1) - goals[..., k].unsqueeze(-2)).abs_()
        total = apart if total is None else total.add_(apart)
    assert total is not None
    return total


def pairwise_giou(boxes: Tensor, goals: Tensor, box_format: BoxFormat) -> Tensor:
    """1 - ``giou_loss`` of every pair, by the measures of :mod:`aptt.core.boxes`.

    So it is 1 for equal boxes, points and lines too, at most 0 for boxes apart, and finite; a
    prediction turned inside out loses how far it is turned besides.
    """
    whole = turned = None
    for axis in (0, 1):
        lo, hi, low, high = _edges(boxes, goals, axis, box_format)
        common = torch.minimum(hi, high) - torch.maximum(lo, low)
        span = torch.maximum(torch.maximum(lo, hi), high) - torch.minimum(
            torch.minimum(lo, hi), low
        )
        point = span == 0  # of both: this axis decides nothing
        unit = span.masked_fill_(point, 1.0)
        measures = [
            (length.clamp(min=0) / unit).masked_fill_(point, 1.0)
            for length in (common, hi - lo, high - low)
        ]
        flip = (lo - hi).clamp(min=0) / unit
        whole = (
            measures if whole is None else [a.mul_(b) for a, b in zip(whole, measures, strict=True)]
        )
        turned = flip if turned is None else turned.add_(flip)
    assert whole is not None
    assert turned is not None
    common, width, goal = whole
    union = width.add_(goal).sub_(common)
    iou = common / union.masked_fill(union == 0, 1.0)
    return iou.add_(union).sub_(1).sub_(turned)


def covered(boxes: Tensor, regions: Tensor, box_format: BoxFormat) -> Tensor:
    """Which share of each box lies in each region; a point or a line by where it is."""
    share = None
    for axis in (0, 1):
        lo, hi, low, high = _edges(boxes, regions, axis, box_format)
        size = (hi - lo).clamp(min=0)
        none = size == 0
        inside = (lo >= low) & (hi <= high) & (low < high)
        met = (torch.minimum(hi, high) - torch.maximum(lo, low)).clamp(min=0)
        part = torch.where(none, inside.to(met.dtype), met / size.masked_fill(none, 1.0))
        share = part if share is None else share * part
    assert share is not None
    return share


def corners_of(boxes: Tensor, box_format: BoxFormat) -> Tensor:
    """Boxes ``(..., 4)`` as their lower and upper corners."""
    if box_format == "xyxy":
        return boxes
    first, size = boxes[..., :2], boxes[..., 2:]
    if box_format == "xywh":
        return torch.cat((first, first + size), -1)
    return torch.cat((first - size / 2, first + size / 2), -1)


def _edges(
    boxes: Tensor, goals: Tensor, axis: int, box_format: BoxFormat
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper edges of both on one axis, against each other."""
    a, b = (boxes[..., k].unsqueeze(-1) for k in (axis, axis + 2))
    g, h = (goals[..., k].unsqueeze(-2) for k in (axis, axis + 2))
    if box_format == "xyxy":
        return a, b, g, h
    a, g = a - g, torch.zeros_like(g)  # edges are sums, which lose no digits near the origin
    if box_format == "xywh":
        return a, a + b, g, h
    return a - b / 2, a + b / 2, -h / 2, h / 2
