"""The assigner of YOLOX: as many of the cheapest predictions as overlap the target in sum.

    cost   sum over classes of BCE(p, y)  +  iou_gain * -log(IoU + 1e-8)
    k      the sum of the largest IoUs, rounded down, at least 1

From: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430, SimOTA; k as in Ge et
al., "OTA: Optimal Transport Assignment for Object Detection", CVPR 2021, arXiv:2103.14259, dynamic
k estimation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.checks import check_number, check_whole
from aptt.core.logistic import softplus
from aptt.core.module import Shown
from aptt.core.targets import TermLoss
from aptt.loss.detection.candidates import (
    at_labels,
    centre,
    check_overlap,
    inside,
    pairwise_overlap,
    rank,
    settled,
)
from aptt.loss.detection.rows import needed
from aptt.loss.detection.scenes import Scene, by_image
from aptt.loss.matching import Assignment

__all__ = ["SimOTAAssigner"]

_APART = 1e-8  # in the definition: what boxes that do not overlap cost
_WHOLE = 1e-5  # what rounding may take from a sum of ten


@dataclass(frozen=True, repr=False)
class SimOTAAssigner(Shown):
    """Give each target as many of the cheapest predictions as its IoUs are in sum.

        cost = sum over classes of BCE(p, y) + iou_gain * -log(IoU + 1e-8)
        k    = the sum of the ``topk`` largest IoUs, rounded down, at least 1

    Predictions may be chosen whose anchor point lies strictly inside of any target, or less than
    ``radius`` strides from its centre along both axes. Those for which both hold of the target
    itself come before all others. One that is chosen by several targets goes to that which it costs
    least, so that a target may end with none. Ties go to what comes first. The score is the IoU. It
    asks for ``strides``. There is no host sync.

    Args:
        topk: how many IoUs are added up.
        radius: in strides.
        iou_gain: factor of the IoU's cost.
        overlap: as in :class:`TaskAlignedAssigner`.

    Use when:
        A detector without priors, whose targets should get as many predictions as fit them.

    Elsewhere:
        mmdetection ``SimOTAAssigner``; YOLOX ``get_assignments``.

    Differs from:
        YOLOX: classes have no separate objectness; 1e5 is not added to the cost of what comes after
            the others, but it does; a prediction that several targets chose goes to one of them,
            where there it goes to whichever target it costs least; a sum that rounding leaves below
            a whole number counts as whole; numbers that are not finite are never chosen.

    Example:
        >>> import torch
        >>> points, logits = torch.tensor([[4.0, 4.0], [12.0, 4.0]]), torch.zeros(1, 2, 1)
        >>> target = torch.tensor([[[0.0, 0.0, 9.0, 8.0]]])
        >>> given = target, torch.tensor([[0]]), torch.tensor([[True]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 9.0, 8.0], [0.0, 0.0, 4.5, 8.0]]])
        >>> SimOTAAssigner()(logits, boxes, points, *given, strides=torch.tensor([8.0, 8.0]))
        Assignment(matches=tensor([[ 0, -1]]), scores=tensor([[1., 0.]]))
    """

    topk: int = 10
    radius: float = 2.5
    iou_gain: float = 3.0
    overlap: TermLoss | None = None

    def __post_init__(self) -> None:
        check_whole("topk", self.topk)
        check_number("radius", self.radius)
        check_number("iou_gain", self.iou_gain)
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
        """Assign; the arguments are those of :class:`TaskAlignedAssigner`, with these.

        Args:
            class_logits: ``(B, A, C)``.
            pred_boxes: ``(B, A, 4)`` corners, or ``(B, A, 5)``.
            anchors: ``(A, 2)`` or ``(B, A, 2)``; or prior boxes, of which the centre is taken.
            target_boxes: ``(B, M, 4)`` corners, or ``(B, M, 5)``.
            target_labels: ``(B, M)``, or ``(B, M, C)``, by which the cross-entropy is of them all.
            target_mask: ``(B, M)``.
            anchor_mask: ``(B, A)``.
            strides: ``(A,)`` or ``(B, A)``, the unit of ``radius``.
        """
        needed("strides", strides)
        given = class_logits, pred_boxes, anchors, target_boxes, target_labels, target_mask
        return by_image(self._assign, *given, anchor_mask, strides)

    def _assign(self, s: Scene) -> Assignment:
        points, pairs = s.points.unsqueeze(1), s.pairs
        within = inside(points, s.goals.unsqueeze(2))
        away = (points - centre(s.goals).unsqueeze(2)).abs().amax(-1)
        close = away < self.radius * s.strides.unsqueeze(1)
        may = pairs & (pairs & (within | close)).any(1, keepdim=True)
        u = pairwise_overlap(s.goals, s.boxes, self.overlap, may)
        cost = softplus(s.logits).sum(-1).unsqueeze(1) - at_labels(s.logits, s.labels, _itself)
        cost = cost - self.iou_gain * (u + _APART).log()
        may = may & cost.isfinite() & u.isfinite()
        u = torch.where(may, u, 0.0)

        largest = u.topk(min(self.topk, u.shape[-1])).values.sum(-1, keepdim=True)
        k = (largest + _WHOLE).floor().clamp(min=1)
        proper = may & within & close
        after = torch.where(proper, 0, torch.where(may, 1, 2))
        chosen = may & (rank(cost, after) < k)
        best = chosen & proper
        chosen = torch.where(best.any(1, keepdim=True), best, chosen)
        _, matches = settled(chosen, -cost)
        score = u.gather(1, matches.clamp(min=0).unsqueeze(1)).squeeze(1)
        return Assignment(matches, torch.where(matches >= 0, score, 0.0))


def _itself(x: Tensor) -> Tensor:
    return x
