"""What an answer gains, against what is usually gained, and what that costs: the formula of KTO.

    cost = good sigmoid(-beta (r - z0)) of a desirable answer, bad sigmoid(beta (r - z0)) of another

Axes: one number for each answer, ``(N,)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_weight, check_floating, check_tensors
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import softplus
from aptt.core.precision import widest
from aptt.loss.preference.scores import First, Given, Scores, check_alike, scores_of

__all__ = ["PROSPECT", "Gains", "Pool", "gains_of"]

Pool = Literal["batch"] | Callable[[Tensor], Tensor]


class Gains(NamedTuple):
    """What answers score above their references, one after the other."""

    gains: Tensor
    desirable: Tensor
    weight: Tensor | None
    """0 or False where an answer is empty or removed; None: all count as one."""
    baseline: float | Tensor
    """z0, a constant."""
    shape: torch.Size


def gains_of(
    score: First,
    desirable: Numbers,
    reference_score: Given | None,
    mismatched: Given | None,
    weight: Numbers | None,
    baseline: float | None,
    pool: Pool,
) -> Gains:
    """The tensors of a call, each checked under the name that the caller knows."""
    first = score.score if isinstance(score, Scores) else score
    check_floating(score=first)
    r, tokens = scores_of("score", score, first)
    good = check_alike("desirable", desirable, score=first, answers=True)
    keep = None if tokens is None else tokens > 0
    if reference_score is not None:
        held, tokens = scores_of("reference_score", reference_score, first)
        r = r - check_alike("reference_score", held, score=first).to(r.dtype)
        if tokens is not None:
            keep = tokens > 0 if keep is None else keep & (tokens > 0)
    w = keep
    if weight is not None:
        w = check_alike("weight", as_weight("weight", weight, first), score=first)
        w = w if keep is None else torch.where(keep, w, torch.zeros_like(w))
    z0 = _baseline(mismatched, baseline, r, pool)
    return Gains(r.reshape(-1), good.reshape(-1), None if w is None else w.reshape(-1), z0, r.shape)


def _baseline(
    mismatched: Given | None, baseline: float | None, r: Tensor, pool: Pool
) -> float | Tensor:
    """z0: the mean over all that is pooled, at least 0."""
    if (mismatched is None) == (baseline is None):
        came = "neither of them" if baseline is None else "both"
        raise ValueError(
            f"baseline: got {came}, wanted mismatched, of which it is the mean, or a number for it"
        )
    if mismatched is None:
        assert baseline is not None
        return float(baseline)
    gains, tokens = scores_of("mismatched", mismatched, r)
    check_tensors(score=r, mismatched=gains)
    gains = gains.detach().to(r.dtype)
    dtype = widest(r)
    if tokens is None:
        count = gains.new_full((), gains.numel(), dtype=dtype)
    else:
        gains, count = torch.where(tokens > 0, gains, 0.0), (tokens > 0).sum().to(dtype)
    both = torch.stack((gains.sum(dtype=dtype), count))
    total, count = (pool(both) if callable(pool) else both).unbind()
    return (total / count.clamp(min=1)).clamp(min=0).to(r.dtype)


def _away(x: Tensor, good: Tensor, beta: float, baseline: float | Tensor) -> Tensor:
    """How far an answer is on its wrong side of the baseline."""
    gain = (x - baseline) * beta
    return torch.where(good, -gain, gain)


def _value(
    x: Tensor,
    kept: Kept,
    desirable: Tensor,
    *,
    beta: float,
    baseline: float | Tensor,
    good: float,
    bad: float,
) -> Tensor:
    away = _away(x, desirable, beta, baseline)
    share = torch.exp(-softplus(-away))  # its slope keeps its digits, where that of sigmoid is none
    return torch.where(desirable, good * share, bad * share)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    desirable: Tensor,
    *,
    beta: float,
    baseline: float | Tensor,
    good: float,
    bad: float,
) -> tuple[Tensor, Tensor]:
    away = _away(x, desirable, beta, baseline)
    share = away.sigmoid()
    v = torch.where(desirable, good * share, bad * share)
    slope = v * (-away).sigmoid() * beta
    return v, torch.where(desirable, -slope, slope).mul_(up)


PROSPECT = Formula(_value, _step, ahead=True)
