"""The assigner of ATSS: the closest prior boxes of each level that overlap more than most.

    t         mean + standard deviation of the candidates' overlap with the target
    positive  a candidate of overlap t or more, whose centre lies inside of the target

From: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", CVPR 2020, arXiv:1912.02424, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.checks import check_flags, check_positive, check_whole
from aptt.core.module import Shown
from aptt.core.targets import TermLoss
from aptt.loss.detection.candidates import (
    centre,
    check_overlap,
    first,
    inside,
    pairwise_overlap,
    rank,
    settled,
)
from aptt.loss.detection.rows import needed
from aptt.loss.detection.scenes import Scene, by_image, priors_of
from aptt.loss.matching import Assignment

__all__ = ["ATSSAssigner"]


@dataclass(frozen=True, repr=False)
class ATSSAssigner(Shown):
    """Give each target the closest prior boxes that overlap it more than most of them do.

    Candidates are the ``topk`` priors of each level whose centres are closest to the target's. Of
    them those are chosen that overlap it by no less than the mean and the standard deviation of the
    candidates' overlaps together, and whose centre lies strictly inside. One that is chosen by
    several targets goes to that which it overlaps most; ties go to what comes first. It asks for
    ``strides``, and looks at nothing that is predicted: a run of one stride is a level, and all of
    a level that has fewer than ``topk`` are candidates. All scores are 1. There is no host sync.

    Args:
        topk: how many candidates a level has.
        prior_scale: the side of a prior box in strides, where anchors are points.
        claim: whether a target to which this leaves none takes its best candidate: of those inside
            or, if there is none, of all that overlap it.
        overlap: as in :class:`TaskAlignedAssigner`.

    Use when:
        Priors are there, one for each cell, and assignments should stay as they are from the first
        step; ATSS, GFL and VFNet were trained so.

    Elsewhere:
        mmdetection ``ATSSAssigner``.

    Differs from:
        The paper, mmdetection: ``claim``. The mean with the deviation may be above every overlap,
            0.66 for 0.6, 0.5, 0.1, so that a target has no positive there; a single candidate has
            no deviation, and the sum is NaN. mmdetection: a level of fewer than ``topk`` is no
            error.

    Example:
        >>> import torch
        >>> points, logits = torch.tensor([[4.0, 4.0], [12.0, 4.0]]), torch.zeros(1, 2, 1)
        >>> target = torch.tensor([[[0.0, 0.0, 9.0, 8.0]]])
        >>> given = target, torch.tensor([[0]]), torch.tensor([[True]])
        >>> assigner = ATSSAssigner(prior_scale=1.0)
        >>> boxes = torch.zeros(1, 2, 4)
        >>> assigner(logits, boxes, points, *given, strides=torch.tensor([8.0, 8.0])).matches
        tensor([[ 0, -1]])
    """

    topk: int = 9
    prior_scale: float = 8.0
    claim: bool = True
    overlap: TermLoss | None = None

    def __post_init__(self) -> None:
        check_whole("topk", self.topk)
        check_positive("prior_scale", self.prior_scale)
        check_flags(claim=self.claim)
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
            anchors: ``(A, 4)`` prior boxes, as corners, or ``(A, 2)`` points, the middle of squares
                of ``prior_scale`` strides; or with a batch axis.
            target_boxes: ``(B, M, 4)`` corners, or ``(B, M, 5)``.
            target_labels: ``(B, M)``, or ``(B, M, C)``, not looked at.
            target_mask: ``(B, M)``.
            anchor_mask: ``(B, A)``.
            strides: ``(A,)`` or ``(B, A)``: the level of each prior box.
        """
        needed("strides", strides)
        given = class_logits, pred_boxes, anchors, target_boxes, target_labels, target_mask
        return by_image(self._assign, *given, anchor_mask, strides)

    def _assign(self, s: Scene) -> Assignment:
        may = s.pairs
        away = (s.points.unsqueeze(1) - centre(s.goals).unsqueeze(2)).square().sum(-1)
        place = rank(away.masked_fill(~may, torch.inf), _levels(s.strides).unsqueeze(1))
        candidate = may & (place - _starts(s.strides).unsqueeze(1) < self.topk)
        u = pairwise_overlap(s.goals, priors_of(s, self.prior_scale), self.overlap, candidate)
        u = torch.where(candidate & (u > 0), u, 0.0)  # and where it is NaN
        enough = _above_most(u, candidate)
        within = inside(s.points.unsqueeze(1), s.goals.unsqueeze(2))
        chosen = candidate & enough & within & (u > 0)
        if self.claim:
            pool = candidate & (u > 0)
            better = pool & within
            pool = torch.where(better.any(-1, keepdim=True), better, pool)
            best = u.masked_fill(~pool, -1.0)
            best = first(pool & (best == best.amax(-1, keepdim=True)), 1, 2)
            chosen = torch.where(chosen.any(-1, keepdim=True), chosen, best)
        _, matches = settled(chosen, u)
        return Assignment(matches, (matches >= 0).to(u.dtype))


def _levels(strides: Tensor) -> Tensor:
    """The number of each prior's level: a run of one stride."""
    new = strides[:, 1:] != strides[:, :-1]
    return torch.cat((new.new_zeros(len(new), 1), new), 1).cumsum(1)


def _starts(strides: Tensor) -> Tensor:
    """How many priors come before each one's level."""
    new = strides[:, 1:] != strides[:, :-1]
    places = torch.arange(1, strides.shape[1], device=strides.device)
    return torch.cat((new.new_zeros(len(new), 1).long(), new * places), 1).cummax(1).values


def _above_most(u: Tensor, candidate: Tensor) -> Tensor:
    """Which overlaps reach mean and deviation; measured from the largest, so that equals do."""
    top = u.amax(-1, keepdim=True)
    below = torch.where(candidate, u - top, 0.0)
    many = candidate.sum(-1, keepdim=True)
    mean = below.sum(-1, keepdim=True) / many.clamp(min=1)
    apart = torch.where(candidate, below - mean, 0.0).square().sum(-1, keepdim=True)
    return below >= mean + (apart / (many - 1).clamp(min=1)).sqrt()
