"""What assigners ask of anchors, boxes and classes: which lie where, and how far they agree.

Axes: B images of M targets and A predictions give ``(B, M, A)``, a number for each pair.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from aptt.core.module import reduced
from aptt.core.ordinary import is_readable
from aptt.core.pairwise import products
from aptt.core.targets import BACKGROUND, TermLoss, called, called_so, check_parts
from aptt.loss.bbox import probiou_loss

__all__ = [
    "at_labels",
    "centre",
    "check_overlap",
    "first",
    "inside",
    "pairwise_iou",
    "pairwise_overlap",
    "rank",
    "settled",
]


def centre(boxes: Tensor) -> Tensor:
    """The middle of boxes, which are corners, or rotated."""
    if boxes.shape[-1] == 5:
        return boxes[..., :2]
    return boxes[..., :2] / 2 + boxes[..., 2:] / 2


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie strictly within a box."""
    if boxes.shape[-1] == 4:
        return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)
    x, y = (points - boxes[..., :2]).unbind(-1)
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    along, across = x * cos + y * sin, y * cos - x * sin
    return (along.abs() < boxes[..., 2] / 2) & (across.abs() < boxes[..., 3] / 2)


def first(mask: Tensor, room: Tensor | int, axis: int) -> Tensor:
    """At most ``room`` of a mask along an axis, those that come first."""
    return mask & (mask.cumsum(axis, dtype=torch.int32) <= room)


def rank(values: Tensor, group: Tensor | None = None) -> Tensor:
    """How many of its row come before each: a lower group, or else a lower value, or place."""
    order = values.argsort(dim=-1, stable=True)
    if group is not None:
        again = group.expand_as(order).gather(-1, order).argsort(dim=-1, stable=True)
        order = order.gather(-1, again)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places)


def settled(chosen: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """Of the targets that chose a prediction, the one with the largest ``by``.

    Returns what is left of the choice, and the index of each prediction's target, or -1.
    """
    best = by.masked_fill(~chosen, -torch.inf)
    chosen = first(chosen & (best == best.amax(1, keepdim=True)), 1, 1)
    index = (chosen * torch.arange(chosen.shape[1], device=chosen.device).view(-1, 1)).sum(1)
    return chosen, torch.where(chosen.any(1), index, BACKGROUND)


def at_labels(x: Tensor, labels: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``of`` makes of the logits ``(B, A, C)`` at a target's classes, added up by its labels.

    Where a logit at one of several classes has no number, -inf.
    """
    x = x.transpose(1, 2)
    if labels.ndim == 2:
        return of(x.gather(1, labels.unsqueeze(-1).expand(-1, -1, x.shape[2])))
    x = of(x)
    none = ~x.isfinite()
    total = products(labels.to(x.dtype), x.masked_fill(none, 0.0))
    spoiled = products((labels > 0).to(x.dtype), none.to(x.dtype))
    return total.masked_fill(spoiled > 0, -torch.inf)


def pairwise_iou(goals: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of each target with each prediction, as corners."""
    low, high = goals[..., :2].unsqueeze(2), goals[..., 2:].unsqueeze(2)
    lo, hi = boxes[..., :2].unsqueeze(1), boxes[..., 2:].unsqueeze(1)
    common = (torch.minimum(high, hi) - torch.maximum(low, lo)).clamp(min=0).prod(-1)
    of_goal, of_box = (high - low).clamp(min=0).prod(-1), (hi - lo).clamp(min=0).prod(-1)
    union = of_goal + of_box - common
    return common / torch.where(union == 0, 1.0, union)  # NaN where areas overflow: no candidate


_WANTED = {
    "overlap": "a loss of boxes, such as ciou_loss or CIoULoss(), called with predicted boxes, "
    "target boxes and reduction='none'"
}


def check_overlap(overlap: object) -> None:
    """Refuse what is no loss of boxes."""
    if overlap is not None:
        check_parts(_WANTED, overlap=overlap)


def pairwise_overlap(
    goals: Tensor, boxes: Tensor, overlap: TermLoss | None, near: Tensor
) -> Tensor:
    """From 0 to 1: IoU, or 1 minus a loss of boxes; of the pairs that are ``near`` at least."""
    if overlap is None:
        if goals.shape[-1] == 4:
            return pairwise_iou(goals, boxes)
        overlap = probiou_loss
    size = (*near.shape, boxes.shape[-1])
    b, g = boxes.unsqueeze(1).expand(size), goals.unsqueeze(2).expand(size)
    if not is_readable(near):
        return (1 - _each(overlap, b, g)).clamp(0, 1)
    some = (1 - _each(overlap, b[near], g[near])).clamp(0, 1)
    return torch.zeros_like(near, dtype=some.dtype).masked_scatter(near, some)


def _each(overlap: TermLoss, boxes: Tensor, goals: Tensor) -> Tensor:
    """The value of a loss of boxes for each pair of them."""
    loss: TermLoss = partial(overlap, reduction="none")
    if isinstance(overlap, nn.Module):
        loss = reduced("overlap", overlap, "none")
    values = called("overlap", overlap, _WANTED, partial(loss, boxes, goals))
    if not isinstance(values, Tensor) or values.shape != boxes.shape[:-1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"overlap: {called_so(overlap)} returned {got} for boxes {tuple(boxes.shape)}, wanted "
            f"{tuple(boxes.shape[:-1])}, one value a box"
        )
    return values
