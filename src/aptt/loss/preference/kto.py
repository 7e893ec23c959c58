"""KTO: answers that are good or bad, each by itself, against what the policy usually gains.

    r    = score - reference,    z0 = max(0, mean of r over mismatched prompts and answers)
    loss = desirable_weight (1 - sigmoid(beta (r - z0)))      of a desirable answer
           undesirable_weight (1 - sigmoid(beta (z0 - r)))    of another

z0 is a constant: no gradient goes through it.

Axes: scores of any shape, one for each answer.
From: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_weight,
    check_choice,
    check_floating,
    check_number,
    check_positive,
    check_tensors,
)
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import softplus
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.loss.preference.scores import First, Given, Scores, check_alike, scores_of

__all__ = ["KTOLoss", "Pool", "kto_loss"]

Pool = Literal["batch"] | Callable[[Tensor], Tensor]


def kto_loss(
    score: First,
    desirable: Numbers,
    *,
    reference_score: Given | None = None,
    mismatched: Given | None = None,
    weight: Numbers | None = None,
    baseline: float | None = None,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """KTO: from answers that are good or bad, without pairs.

        desirable:      desirable_weight (1 - sigmoid(beta (r - z0))),    r = score - reference
        undesirable:    undesirable_weight (1 - sigmoid(beta (z0 - r)))

    Args:
        score: what the policy scores each answer: :class:`Scores`, as :func:`sequence_scores` gives
            them, or a tensor of any shape and floating dtype.
        desirable: the same shape; True for good answers.
        reference_score: what the reference model scores them; None: 0, where it was subtracted
            before.
        mismatched: what answers to other prompts score above the reference: any shape. z0 is the
            mean, at least 0, without a gradient.
        weight: one number for each answer; multiplies and is counted, and 0 removes it.
        baseline: z0 itself, in place of ``mismatched``; 0 leaves it out.
        beta: how far the policy may go.
        desirable_weight: multiplies what good answers cost, and is not counted. The paper keeps
            ``desirable_weight * n_good`` at 1 to 4/3 of the bad ones' product.
        undesirable_weight: multiplies what bad answers cost.
        pool: ``"batch"`` for the z0 of this batch, or a callable that sums sums over ranks, such as
            ``aptt.parallel.world_sum``.
        reduction: over the answers: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, between 0 and the larger weight: a scalar, or one value for each answer with
        ``"none"``; float32 for half types. Half of the weight where policy and reference agree.

    Raises:
        ValueError: shapes that differ, neither or both of ``mismatched`` and ``baseline``, an
            option out of range.
        TypeError: ``desirable`` that does not answer yes or no.

    An empty answer is removed; a batch of one kind alone is the sum over that kind. The gradient
    goes to the scores, and to references and weights that ask for it. z0 is a statistic of the
    batch: micro-batches have each their own, ranks share it by ``pool``.

    Use when:
        Answers are marked good or bad one by one, or of very unequal number.

    Elsewhere:
        TRL ``KTOTrainer``, Liger ``LigerFusedLinearKTOLoss``.

    Differs from:
        TRL: z0 over ranks is the mean over all, not the mean of their means.
        Liger: its sums of rewards broadcast for chunks of more than one answer.

    Example:
        >>> import torch
        >>> score, good = torch.tensor([1.0, -1.0]), torch.tensor([True, False])
        >>> values = kto_loss(score, good, baseline=0.5, reduction="none")
        >>> [round(v, 4) for v in values.tolist()]
        [0.4875, 0.4626]
    """
    _check_options(beta, desirable_weight, undesirable_weight, pool, reduction)
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
    x, w = r.reshape(-1), None if w is None else w.reshape(-1)
    value = reduce(
        _KTO,
        x,
        good.reshape(-1),
        weight=w,
        count=lambda: count_of(x, w),
        reduction=reduction,
        term="preference",
        beta=beta,
        baseline=_baseline(mismatched, baseline, r, pool),
        good=float(desirable_weight),
        bad=float(undesirable_weight),
    )
    return value.reshape(r.shape) if reduction == "none" else value


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
        check_number("baseline", baseline)
        return float(baseline)
    gains, tokens = scores_of("mismatched", mismatched, r)
    check_tensors(score=r, mismatched=gains)
    gains = gains.detach().to(r.dtype)
    wide = torch.float32 if r.device.type == "mps" else torch.float64
    if tokens is None:
        count = gains.new_full((), gains.numel(), dtype=wide)
    else:
        gains, count = torch.where(tokens > 0, gains, 0.0), (tokens > 0).sum().to(wide)
    both = torch.stack((gains.sum(dtype=wide), count))
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


_KTO = Formula(_value, _step, ahead=True)


def _check_options(
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    pool: Pool,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    check_positive("beta", beta)
    check_number("desirable_weight", desirable_weight)
    check_number("undesirable_weight", undesirable_weight)
    if not callable(pool):
        check_choice("pool", pool, ("batch",), also="a callable that sums over ranks")


class KTOLoss(LossModule):
    """Module form of :func:`kto_loss`; same options, same defaults."""

    def __init__(
        self,
        baseline: float | None = None,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(beta, desirable_weight, undesirable_weight, pool, reduction)
        super().__init__(
            baseline=baseline,
            beta=beta,
            desirable_weight=desirable_weight,
            undesirable_weight=undesirable_weight,
            pool=pool,
            reduction=reduction,
        )

    def forward(
        self,
        score: First,
        desirable: Numbers,
        *,
        reference_score: Given | None = None,
        mismatched: Given | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``score``, of answers that are ``desirable`` or not."""
        return kto_loss(
            score,
            desirable,
            reference_score=reference_score,
            mismatched=mismatched,
            weight=weight,
            **self.options(),
        )
