"""Which target each prediction answers for: by matches that are given, or by an assigner's."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import check_range
from aptt.core.targets import IGNORED, index_of, matched
from aptt.loss.detection.classes import labels_at, log_odds
from aptt.loss.detection.rows import needed
from aptt.loss.matching import Assignment, HungarianMatcher
from aptt.loss.matching.assignment import checked

__all__ = ["Answers", "answers_of", "assigned_by"]


class Answers(NamedTuple):
    """What each prediction is asked; all ``(B, A)``, and more axes."""

    rows: Tensor  # whether it counts, if it is background too
    positive: Tensor  # whether it has a target
    goals: Tensor
    labels: Tensor
    scores: Tensor  # of its match, 0 where there is none


def assigned_by(
    assigner: Callable[..., Assignment],
    logits: Tensor,
    corners: Tensor,
    places: Tensor | None,
    targets: tuple[Tensor, Tensor, Tensor],
    counts: Tensor | None,
    strides: Tensor | None,
    no_object: float | None,
) -> tuple[Tensor, Tensor]:
    """The matches and scores of an assigner, which are constants."""
    if places is None and getattr(assigner, "needs_anchors", True):
        needed("anchors", places)
    with torch.no_grad():
        if no_object is not None and not _by_softmax(assigner):
            logits = log_odds(logits)
        found = assigner(logits, corners, places, *targets, counts, strides=strides)
    matches, scores = checked("assigner", found)
    return matches, scores.detach()


def answers_of(
    logits: Tensor,
    boxes: Tensor,
    targets: tuple[Tensor, Tensor, Tensor],
    counts: Tensor | None,
    matches: Tensor,
    scores: Tensor | None,
    *,
    hard: bool,
) -> Answers:
    """The target of each match, and its score, or 1 if that is ``hard``."""
    goals, labels, mask = targets
    matches, scores = matched(matches, scores, logits, mask)
    scores = scores.to(torch.promote_types(scores.dtype, boxes.dtype))
    rows = matches != IGNORED if counts is None else (matches != IGNORED) & counts
    positive = (matches >= 0) & rows
    if not hard:
        check_range(scores, 0, 1, keep=positive, name="match_scores")
    index = index_of(matches, mask)
    return Answers(
        rows,
        positive,
        goals.gather(1, index.unsqueeze(-1).expand(-1, -1, goals.shape[-1])),
        labels_at(labels, index),
        torch.where(positive, torch.ones_like(scores) if hard else scores, 0.0),
    )


def _by_softmax(assigner: object) -> bool:
    """Whether an assigner asks for the logits of a softmax themselves."""
    return isinstance(assigner, HungarianMatcher) and assigner.class_cost != "focal"
