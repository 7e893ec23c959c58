"""The assigner of Faster R-CNN and RetinaNet: prior boxes by the IoU with their best target.

    positive      IoU of positive_iou or more
    background    IoU below negative_iou; what lies between does not count
    claim         each target takes the prior that overlaps it most, however little

From: Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, section 3.1.2, with 0.7 and 0.3;
Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002, section 4, with
0.5 and 0.4 and without the claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import check_choice, check_number
from aptt.core.module import Shown
from aptt.core.targets import BACKGROUND, IGNORED, TermLoss
from aptt.loss.detection.candidates import check_overlap, pairwise_overlap, settled
from aptt.loss.detection.scenes import Scene, by_image, priors_of
from aptt.loss.matching import Assignment

__all__ = ["MaxIoUAssigner"]


@dataclass(frozen=True, repr=False)
class MaxIoUAssigner(Shown):
    """Give each prior box the target that it overlaps most, if that is enough.

    Below ``negative_iou`` it is background, and between the two it does not count. Each target
    besides claims the priors that overlap it most, those that do so equally too, unless none
    overlaps it at all. Ties go to the target that comes first. It asks for prior boxes, and looks
    at nothing that is predicted. All scores are 1. There is no host sync.

    Args:
        positive_iou: from which on a prior is positive.
        negative_iou: below which it is background; at most ``positive_iou``.
        claim: which target a claimed prior goes to: ``"own"``, the one that claims it, of several
            the one that it overlaps most; ``"best"``, the one that it overlaps most, whoever claims
            it. None: there are no claims.
        overlap: as in :class:`TaskAlignedAssigner`.

    Use when:
        Each cell has prior boxes of several sizes and shapes: RetinaNet, Faster R-CNN's proposals
        (0.7 and 0.3), SSD.

    Elsewhere:
        mmdetection ``MaxIoUAssigner``; detectron2 and torchvision ``Matcher``.

    Differs from:
        detectron2, torchvision: ``claim`` is ``"best"`` there, which leaves the claiming target
            with none. They and mmdetection, with ``min_pos_iou=0``: a target that no prior overlaps
            claims all those that overlap it by 0.

    Example:
        >>> import torch
        >>> priors = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2], [8, 8, 9, 9]])
        >>> target = torch.tensor([[[0.0, 0.0, 4.0, 2.2]]])
        >>> given = target, torch.tensor([[0]]), torch.tensor([[True]])
        >>> MaxIoUAssigner()(torch.zeros(1, 3, 1), torch.zeros(1, 3, 4), priors, *given).matches
        tensor([[-2,  0, -1]])
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    claim: Literal["own", "best"] | None = "own"
    overlap: TermLoss | None = None

    def __post_init__(self) -> None:
        check_number("positive_iou", self.positive_iou, 0.0, 1.0)
        check_number("negative_iou", self.negative_iou, 0.0, 1.0)
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"negative_iou: got {self.negative_iou}, wanted no more than "
                f"positive_iou={self.positive_iou}"
            )
        if self.claim is not None:
            check_choice("claim", self.claim, ("own", "best"), also="None")
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
            class_logits: ``(B, A, C)``, not looked at.
            pred_boxes: ``(B, A, 4)``, or 5, not looked at.
            anchors: ``(A, 4)`` prior boxes, as corners, or ``(A, 5)``; or with a batch axis.
            target_boxes: ``(B, M, 4)`` corners, or ``(B, M, 5)``.
            target_labels: ``(B, M)``, or ``(B, M, C)``, not looked at.
            target_mask: ``(B, M)``.
            anchor_mask: ``(B, A)``.
            strides: not looked at.
        """
        given = class_logits, pred_boxes, anchors, target_boxes, target_labels, target_mask
        return by_image(self._assign, *given, anchor_mask, None)

    def _assign(self, s: Scene) -> Assignment:
        pairs = s.pairs
        u = pairwise_overlap(s.goals, priors_of(s, None), self.overlap, pairs)
        u = torch.where(pairs & (u > 0), u, 0.0)  # and where it is NaN
        _, best = settled(u > 0, u)
        most = u.amax(1)
        between = (most > 0) & (most >= self.negative_iou) & (most < self.positive_iou)
        positive = (most > 0) & (most >= self.positive_iou)
        matches = torch.where(positive, best, BACKGROUND).masked_fill(between, IGNORED)
        if self.claim is not None:
            claimed = (u == u.amax(-1, keepdim=True)) & (u > 0)
            _, owner = settled(claimed, u)
            owner = torch.where(owner >= 0, best, BACKGROUND) if self.claim == "best" else owner
            matches = torch.where(owner >= 0, owner, matches)
        return Assignment(matches, (matches >= 0).to(u.dtype))
