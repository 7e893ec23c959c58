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

from aptt.core.checks import check_number, check_whole
from aptt.core.module import Shown
from aptt.core.targets import TermLoss
from aptt.loss.detection.candidates import (
    at_labels,
    centre,
    check_overlap,
    first,
    inside,
    pairwise_overlap,
    settled,
)
from aptt.loss.detection.scenes import Scene, by_image
from aptt.loss.matching import Assignment

__all__ = ["TaskAlignedAssigner"]


@dataclass(frozen=True, repr=False)
class TaskAlignedAssigner(Shown):
    """Give each target the predictions that classify and locate it best.

        t     = p**alpha * u**beta
        score = t / max t * max u

    A candidate for a target is a prediction whose anchor point lies strictly inside its box, or, if
    there is none, the one point that is closest to its centre. Of the candidates that overlap the
    target, the ``topk`` with the largest t are chosen; one that is chosen by several targets goes
    to that with which it has the largest IoU. Ties go to the prediction, or the target, that comes
    first. Of a target with several classes log p is the mean over them; with none p is 1.

    There is no host sync. The pairs of target and prediction take some 50 bytes each: of one image
    at a time, or of several that have no more than 8192 together (4 million on an accelerator). t
    is compared by its logarithm, so that it does not underflow in early training.

    Args:
        topk: how many predictions a target is given at most; all candidates if there are fewer.
        alpha: power of the probability.
        beta: power of the IoU.
        overlap: what stands for IoU: a loss of boxes, such as ``ciou_loss``, of which 1 minus its
            value is taken, where that is above 0. None: IoU; of rotated boxes ProbIoU
            (``rotated_iou_loss`` is exact, and slower).

    Use when:
        A dense detector, with points and no priors; with ``topk=1`` beside it, one without NMS.

    Elsewhere:
        ultralytics and mmdetection ``TaskAlignedAssigner``.

    Differs from:
        ultralytics: a target smaller than the grid is given the closest point, where boxes are
            enlarged to a stride there; the overlap is IoU, and CIoU, as there, with
            ``overlap=ciou_loss``; ``topk`` may exceed the number of predictions; coordinates may be
            negative.
        mmdetection: its defaults are ``topk=13, alpha=1``; batches are not taken apart here.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    overlap: TermLoss | None = None

    def __post_init__(self) -> None:
        check_whole("topk", self.topk)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        check_overlap(self.overlap)

    @torch.no_grad()
    def __call__(
        self,
        class_logits: Tensor,
        pred_boxes: Tensor,
        anchors: Tensor | None,
        target_boxes: Tensor,
        target_labels: Tensor,
        target_mask: Tensor,
        anchor_mask: Tensor | None = None,
        *,
        strides: Tensor | None = None,
    ) -> Assignment:
        """Assign.

        Args:
            class_logits: ``(B, A, C)``.
            pred_boxes: ``(B, A, 4)``, the predicted corners, or ``(B, A, 5)``, rotated boxes.
            anchors: ``(A, 2)`` or ``(B, A, 2)``: a point for each prediction; or prior boxes, of
                which the centre is taken.
            target_boxes: ``(B, M, 4)`` corners, or ``(B, M, 5)``.
            target_labels: ``(B, M)`` class indices, or ``(B, M, C)``, how far each class is the
                target's; anything in padding.
            target_mask: ``(B, M)``: which of the targets there are.
            anchor_mask: ``(B, A)``: which of the predictions may be chosen.
            strides: not looked at.
        """
        given = class_logits, pred_boxes, anchors, target_boxes, target_labels, target_mask
        return by_image(self._assign, *given, anchor_mask, None)

    def _assign(self, s: Scene) -> Assignment:
        """The assignment of some images, of which every pair of target and prediction is held."""
        near = _candidates(s.points, s.goals, s.pairs)
        iou = pairwise_overlap(s.goals, s.boxes, self.overlap, near)
        t = torch.zeros_like(iou)
        if self.alpha:
            chance = at_labels(s.logits, s.labels, F.logsigmoid)
            if s.labels.ndim == 3:
                many = s.labels.sum(-1, keepdim=True)
                chance = torch.where(many > 0, chance / torch.where(many > 0, many, 1.0), 0.0)
            t = t + self.alpha * chance
        if self.beta:
            t = t + self.beta * iou.log()
        near = near & (iou > 0) & (t > -torch.inf)  # both are false for NaN
        t = t.masked_fill(~near, -torch.inf)

        least = t.topk(min(self.topk, t.shape[-1])).values[..., -1:]
        above = t > least
        room = self.topk - above.sum(-1, keepdim=True)
        chosen = above | first((t == least) & near, room, 2)
        chosen, matches = settled(chosen, iou)

        index = matches.clamp(min=0)
        best_t = t.masked_fill(~chosen, -torch.inf).amax(-1)
        best_u = iou.masked_fill(~chosen, 0.0).amax(-1)
        mine = t.gather(1, index.unsqueeze(1)).squeeze(1) - best_t.gather(1, index)
        scores = torch.where(matches >= 0, mine.exp() * best_u.gather(1, index), 0.0)
        return Assignment(matches, scores)


def _candidates(points: Tensor, goals: Tensor, may: Tensor) -> Tensor:
    """``(B, M, A)``: the points inside each target, or else the one that is closest."""
    points = points.unsqueeze(1)
    within = inside(points, goals.unsqueeze(2)) & may
    away = (points - centre(goals).unsqueeze(2)).square().sum(-1)
    away = away.masked_fill(~may, torch.inf)
    closest = first((away == away.amin(-1, keepdim=True)) & may, 1, 2)
    return within | (closest & ~within.any(-1, keepdim=True))
