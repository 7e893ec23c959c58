"""What is known of a row of pairs: of its negatives, of its positives too, or of each by itself.

Axes: a chunk of scores s, and which of them are positive and which negative, ``(n, M)``;
statistics and their upstream gradients ``(K, n)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.logistic import softplus
from aptt.core.softmax import exp_of_gaps, exp_of_gaps_, largest

__all__ = ["KNOWN", "NEGATIVES", "POSITIVES", "QUESTIONS", "PairFormula"]


@dataclass(frozen=True)
class PairFormula:
    """What is known of a row of pairs, as pure functions of a chunk."""

    rows: Callable[[Tensor, Tensor, Tensor], Tensor]
    """``rows(s, positive, negative)``: ``(K, n)``, differentiable in s."""
    slope: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    """``slope(s, positive, negative, stats, up)``: the gradient of s."""
    count: int
    """K."""
    many: bool = True
    """Whether pairs of equal ids are positive."""


def _largest(s: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
    """The others as -inf, and the largest of each row as a constant."""
    only = s.masked_fill(~some, -torch.inf)
    return only, largest(only).squeeze(1)


def _negatives(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    only, top = _largest(s, negative)
    return torch.stack((top, exp_of_gaps_(only - top.unsqueeze(1)).sum(1)))


def _negatives_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    gap = (s - stats[0].unsqueeze(1)).masked_fill_(~negative, -torch.inf)
    return exp_of_gaps(gap).mul_(up[1].unsqueeze(1))


def _positives(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    against = _negatives(s, positive, negative)
    only, top = _largest(s, positive)
    gap = only - top.unsqueeze(1)
    found, count = exp_of_gaps(gap).sum(1), positive.sum(1).to(s.dtype)
    mean = torch.where(positive, gap, 0.0).sum(1) / count.clamp(min=1)
    # of one positive it is 0, and has no slope to cancel
    spread = torch.where(count > 1, torch.where(count > 1, found, 1.0).log() - mean, 0.0)
    return torch.cat((against, torch.stack((top, found, spread, count))))


def _positives_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    # of the spread, softmax - 1 / count: of one positive exactly 0
    ds = _negatives_slope(s, positive, negative, stats, up)
    gap = (s - stats[2].unsqueeze(1)).masked_fill_(~positive, -torch.inf)
    raised, found, count = exp_of_gaps(gap), stats[3], stats[5].clamp(min=1)
    share = raised / torch.where(found > 0, found, 1.0).unsqueeze(1)
    share.sub_(positive / count.unsqueeze(1))
    return ds.addcmul_(raised, up[3].unsqueeze(1)).addcmul_(share, up[4].unsqueeze(1))


def _questions(s: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    wrong = softplus(torch.where(positive, -s, s))
    return torch.where(positive | negative, wrong, 0.0).sum(1).unsqueeze(0)


def _questions_slope(
    s: Tensor, positive: Tensor, negative: Tensor, stats: Tensor, up: Tensor
) -> Tensor:
    ds = torch.where(positive, -torch.sigmoid(-s), torch.sigmoid(s))
    return ds.masked_fill_(~(positive | negative), 0.0).mul_(up[0].unsqueeze(1))


NEGATIVES = PairFormula(_negatives, _negatives_slope, 2, many=False)
"""The largest negative s, and the sum of ``exp(s - largest)`` over them."""
POSITIVES = PairFormula(_positives, _positives_slope, 6)
"""These two; the same of the positives; ``log sum exp - mean`` of them; how many they are."""
QUESTIONS = PairFormula(_questions, _questions_slope, 1)
"""The sum of ``softplus(-s)`` over the positives and of ``softplus(s)`` over the negatives."""
KNOWN = {"negatives": NEGATIVES, "positives": POSITIVES, "questions": QUESTIONS}
