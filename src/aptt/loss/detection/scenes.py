"""The images that an assigner is asked about, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import check_floating
from aptt.core.precision import widen
from aptt.core.shapes import check_shapes
from aptt.core.targets import held
from aptt.loss.detection.candidates import centre
from aptt.loss.detection.rows import check_anchors, check_rows, check_strides, needed
from aptt.loss.matching import Assignment

__all__ = ["Scene", "by_image", "priors_of"]

_PAIRS_AT_ONCE = (2**13, 2**22)  # on the CPU, and where each image would cost its launches


class Scene(NamedTuple):
    """Some images: what is predicted, where from, what there is, and who may be chosen."""

    logits: Tensor  # (B, A, C)
    boxes: Tensor  # (B, A, 4), or 5
    points: Tensor  # (B, A, 2)
    priors: Tensor  # (B, A, 4), 5, or 2 where there are none
    strides: Tensor  # (B, A), or (B, 0)
    goals: Tensor  # (B, M, 4), or 5
    labels: Tensor  # (B, M), or (B, M, C)
    mask: Tensor  # (B, M)
    may: Tensor  # (B, A)

    @property
    def pairs(self) -> Tensor:
        """Which targets there are for which predictions."""
        return self.mask.unsqueeze(-1) & self.may.unsqueeze(1)


def by_image(
    of: Callable[[Scene], Assignment],
    class_logits: Tensor,
    pred_boxes: Tensor,
    anchors: Tensor | None,
    target_boxes: Tensor,
    target_labels: Tensor,
    target_mask: Tensor,
    anchor_mask: Tensor | None,
    strides: Tensor | None,
) -> Assignment:
    """The assignment, by one of so many images that their pairs do not add up."""
    check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
    numbers = 5 if pred_boxes.shape[-1:] == (5,) else 4
    check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, f"B A {numbers}"))
    anchors = needed("anchors", anchors)
    check_rows(class_logits, anchors=anchors, strides=strides, anchor_mask=anchor_mask)
    logits, boxes, priors = (widen(t.detach()) for t in (class_logits, pred_boxes, anchors))
    targets = target_boxes.detach(), target_labels.detach(), target_mask
    goals, labels, mask = held(*targets, logits, numbers=numbers, several=True)
    images, many = boxes.shape[:2]
    if not many:
        none = boxes.new_zeros(images, many)
        return Assignment(none.long(), none)
    priors, goals = priors.expand(images, -1, -1), goals.to(boxes.dtype)
    unit = boxes.new_zeros(images, 0)
    if strides is not None:
        unit = strides.detach().to(boxes.dtype).expand(images, -1)
    may = torch.ones_like(boxes[..., 0], dtype=torch.bool)
    if anchor_mask is not None:
        may = anchor_mask != 0
    check_anchors(priors, may)
    if strides is not None:
        check_strides(unit, may)
    points = priors if priors.shape[-1] == 2 else centre(priors)
    whole = Scene(logits, boxes, points, priors, unit, goals, labels, mask, may)
    step = images_at_once(goals, boxes)
    found = [of(Scene(*some)) for some in zip(*(t.split(step) for t in whole), strict=True)]
    return Assignment(*(torch.cat(each) for each in zip(*found, strict=True)))


def priors_of(s: Scene, scale: float | None) -> Tensor:
    """Prior boxes as targets are written; of points, squares of so many strides."""
    priors, numbers = s.priors, s.goals.shape[-1]
    if priors.shape[-1] == 2:
        if scale is None:
            raise ValueError(f"anchors: got {tuple(priors.shape)}, wanted prior boxes of 4 numbers")
        half = (s.strides * (scale / 2)).unsqueeze(-1)
        priors = torch.cat((priors - half, priors + half), -1)
    if priors.shape[-1] == numbers:
        return priors
    if numbers == 4:
        raise ValueError(f"anchors: got {tuple(priors.shape)}, wanted prior boxes of 4 numbers")
    size = priors[..., 2:] - priors[..., :2]
    return torch.cat((centre(priors), size, torch.zeros_like(size[..., :1])), -1)


def images_at_once(goals: Tensor, boxes: Tensor) -> int:
    """How many images' pairs of target and prediction are held together."""
    pairs = _PAIRS_AT_ONCE[boxes.device.type != "cpu"]
    return max(pairs // (goals.shape[1] * boxes.shape[1]), 1)
