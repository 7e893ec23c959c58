"""The assigner of TOOD: a target takes the predictions that classify and locate it best.

    t       = p**alpha * u**beta           p: probability of its class, u: IoU with it
    score   = t / max t * max u            of the topk of the largest t

From: Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, arXiv:2108.07755,
section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.checks import check_floating, check_number, check_whole
from aptt.core.formula import widen
from aptt.core.shapes import check_shapes
from aptt.core.targets import BACKGROUND, held
from aptt.loss.detection.candidates import first, images_at_once, inside, pairwise_iou
from aptt.loss.detection.rows import check_rows
from aptt.loss.matching import Assignment

__all__ = ["TaskAlignedAssigner"]


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """Give each target the predictions that classify and locate it best.

        t     = p**alpha * u**beta
        score = t / max t * max u

    A candidate for a target is a prediction whose anchor point lies strictly inside its box, or, if
    there is none, the one point that is closest to its centre. Of the candidates that overlap the
    target, the ``topk`` with the largest t are chosen; one that is chosen by several targets goes
    to that with which it has the largest IoU. Ties go to the prediction, or the target, that comes
    first. There is no host sync. The pairs of target and prediction take some 50 bytes each: of one
    image at a time, or of several that have no more than 8192 together (4 million on an
    accelerator). t is compared by its logarithm, so that it does not underflow in early training.

    Args:
        topk: how many predictions a target is given at most; all candidates if there are fewer.
        alpha: power of the probability.
        beta: power of the IoU.

    Differs from:
        ultralytics: a target smaller than the grid is given the closest point, where boxes are
            enlarged to a stride there; the overlap is IoU, not CIoU; ``topk`` may exceed the number
            of predictions; coordinates may be negative.
        mmdetection: its defaults are ``topk=13, alpha=1``; batches are not taken apart here.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0

    def __post_init__(self) -> None:
        check_whole("topk", self.topk)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)

    @torch.no_grad()
    def __call__(
        self,
        class_logits: Tensor,
        pred_boxes: Tensor,
        anchors: Tensor,
        target_boxes: Tensor,
        target_labels: Tensor,
        target_mask: Tensor,
        anchor_mask: Tensor | None = None,
    ) -> Assignment:
        """Assign.

        Args:
            class_logits: ``(B, A, C)``.
            pred_boxes: ``(B, A, 4)``, the predicted corners.
            anchors: ``(A, 2)`` or ``(B, A, 2)``: a point for each prediction.
            target_boxes: ``(B, M, 4)`` corners.
            target_labels: ``(B, M)`` class indices; anything in padding.
            target_mask: ``(B, M)``: which of the targets there are.
            anchor_mask: ``(B, A)``: which of the predictions may be chosen.
        """
        check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
        check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, "B A 4"))
        check_rows(class_logits, anchors=anchors, anchor_mask=anchor_mask)
        logits, boxes, points = (widen(t.detach()) for t in (class_logits, pred_boxes, anchors))
        goals, labels, mask = held(target_boxes.detach(), target_labels, target_mask, logits)
        if not boxes.shape[1]:
            none = boxes.new_zeros(boxes.shape[:2])
            return Assignment(none.long(), none)
        points, goals = points.expand(len(boxes), -1, -1), goals.to(boxes.dtype)
        may = torch.ones_like(boxes[..., 0], dtype=torch.bool)
        if anchor_mask is not None:
            may = anchor_mask != 0
        step = images_at_once(goals, boxes)
        parts = (t.split(step) for t in (logits, boxes, points, goals, labels, mask, may))
        found = [self._assign(*some) for some in zip(*parts, strict=True)]
        return Assignment(*(torch.cat(each) for each in zip(*found, strict=True)))

    def _assign(
        self,
        logits: Tensor,
        boxes: Tensor,
        points: Tensor,
        goals: Tensor,
        labels: Tensor,
        mask: Tensor,
        may: Tensor,
    ) -> Assignment:
        """The assignment of some images, of which every pair of target and prediction is held."""
        near = _candidates(points, goals, mask.unsqueeze(-1) & may.unsqueeze(1))
        iou = pairwise_iou(goals, boxes)
        t = torch.zeros_like(iou)
        if self.alpha:
            index = labels.unsqueeze(-1).expand_as(iou)
            t = t + self.alpha * F.logsigmoid(logits.transpose(1, 2).gather(1, index))
        if self.beta:
            t = t + self.beta * iou.log()
        near = near & (iou > 0) & (t > -torch.inf)  # both are false for NaN
        t = t.masked_fill(~near, -torch.inf)

        least = t.topk(min(self.topk, t.shape[-1])).values[..., -1:]
        above = t > least
        room = self.topk - above.sum(-1, keepdim=True)
        chosen = above | first((t == least) & near, room, 2)
        shared = iou.masked_fill(~chosen, -1.0)
        chosen = chosen & first(shared == shared.amax(1, keepdim=True), 1, 1)

        found = chosen.any(1)
        index = (chosen * torch.arange(chosen.shape[1], device=iou.device).view(-1, 1)).sum(1)
        best_t = t.masked_fill(~chosen, -torch.inf).amax(-1)
        best_u = iou.masked_fill(~chosen, 0.0).amax(-1)
        mine = t.gather(1, index.unsqueeze(1)).squeeze(1) - best_t.gather(1, index)
        scores = torch.where(found, mine.exp() * best_u.gather(1, index), 0.0)
        return Assignment(torch.where(found, index, BACKGROUND), scores)


def _candidates(points: Tensor, goals: Tensor, may: Tensor) -> Tensor:
    """``(B, M, A)``: the points inside each target, or else the one that is closest."""
    points = points.expand(len(goals), -1, -1).unsqueeze(1)
    within = inside(points, goals.unsqueeze(2)) & may
    centre = goals[..., :2] / 2 + goals[..., 2:] / 2
    away = (points - centre.unsqueeze(2)).square().sum(-1)
    away = away.masked_fill(~may, torch.inf)
    closest = first((away == away.amin(-1, keepdim=True)) & may, 1, 2)
    return within | (closest & ~within.any(-1, keepdim=True))
