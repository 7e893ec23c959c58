"""What assigners ask of anchors and boxes, of some images at a time."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["first", "images_at_once", "inside", "pairwise_iou"]

_PAIRS_AT_ONCE = (2**13, 2**22)  # on the CPU, and where each image would cost its launches


def images_at_once(goals: Tensor, boxes: Tensor) -> int:
    """How many images' pairs of target and prediction are held together."""
    pairs = _PAIRS_AT_ONCE[boxes.device.type != "cpu"]
    return max(pairs // (goals.shape[1] * boxes.shape[1]), 1)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie strictly within a box."""
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)


def first(mask: Tensor, room: Tensor | int, axis: int) -> Tensor:
    """At most ``room`` of a mask along an axis, those that come first."""
    return mask & (mask.cumsum(axis, dtype=torch.int32) <= room)


def pairwise_iou(goals: Tensor, boxes: Tensor) -> Tensor:
    """``(B, M, A)``: intersection over union of each target with each prediction."""
    low, high = goals[..., :2].unsqueeze(2), goals[..., 2:].unsqueeze(2)
    lo, hi = boxes[..., :2].unsqueeze(1), boxes[..., 2:].unsqueeze(1)
    common = (torch.minimum(high, hi) - torch.maximum(low, lo)).clamp(min=0).prod(-1)
    of_goal, of_box = (high - low).clamp(min=0).prod(-1), (hi - lo).clamp(min=0).prod(-1)
    union = of_goal + of_box - common
    return common / torch.where(union == 0, 1.0, union)  # NaN where areas overflow: no candidate
