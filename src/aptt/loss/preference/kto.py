"""KTO: answers that are good or bad, each by itself, against what the policy usually gains.

    r    = score - reference,    z0 = max(0, mean of r over mismatched prompts and answers)
    loss = desirable_weight (1 - sigmoid(beta (r - z0)))      of a desirable answer
           undesirable_weight (1 - sigmoid(beta (z0 - r)))    of another

z0 is a constant: no gradient goes through it.

Axes: scores of any shape, one for each answer.
From: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_number, check_positive
from aptt.core.module import LossModule
from aptt.core.precision import widest
from aptt.core.reduction import Reduction, check_reduction, count_of, normalize, reduce
from aptt.loss.preference.prospect import PROSPECT, Gains, Pool, gains_of
from aptt.loss.preference.scores import First, Given

__all__ = ["KTOLoss", "Pool", "kto_loss", "kto_terms"]


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
    _check_options(baseline, beta, desirable_weight, undesirable_weight, pool, reduction)
    given = gains_of(score, desirable, reference_score, mismatched, weight, baseline, pool)
    return _of(given, beta, desirable_weight, undesirable_weight, reduction)


def _of(
    given: Gains,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    reduction: Reduction,
) -> Tensor:
    x, w = given.gains, given.weight
    value = reduce(
        PROSPECT,
        x,
        given.desirable,
        weight=w,
        count=lambda: count_of(x, w),
        reduction=reduction,
        term="preference",
        beta=beta,
        baseline=given.baseline,
        good=float(desirable_weight),
        bad=float(undesirable_weight),
    )
    return value.reshape(given.shape) if reduction == "none" else value


def kto_terms(
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
) -> dict[str, Tensor]:
    """The loss of :func:`kto_loss`, and what is watched beside it, without a gradient.

    Takes what :func:`kto_loss` does.

    Returns:
        ``"preference"``, the loss; ``"reward_desirable"`` and ``"reward_undesirable"``, beta times
        r, each a mean over the answers of its kind and reduced as the loss is; ``"baseline"``, z0
        as it is, a number of the batch.

    Example:
        >>> import torch
        >>> score, good = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([True, True, False])
        >>> terms = kto_terms(score, good, baseline=0.5)
        >>> [round(term.item(), 4) for term in terms.values()]
        [0.4709, 0.15, -0.1, 0.5]
    """
    _check_options(baseline, beta, desirable_weight, undesirable_weight, pool, reduction)
    given = gains_of(score, desirable, reference_score, mismatched, weight, baseline, pool)
    terms = {"preference": _of(given, beta, desirable_weight, undesirable_weight, reduction)}
    r = beta * given.gains.detach()
    ones = r.new_ones(()) if given.weight is None else given.weight.detach().to(r.dtype)
    for name, kind in (("desirable", given.desirable), ("undesirable", ~given.desirable)):
        share = torch.where(kind, ones, 0.0)
        seen = torch.where(share != 0, r, 0.0) * share
        name = f"reward_{name}"
        if reduction == "none":
            terms[name] = seen.reshape(given.shape)
            continue
        total = seen.sum(dtype=widest(seen)).to(seen.dtype)  # rewards of either sign cancel
        terms[name] = normalize(total, share.sum(), reduction, term=name)
    return terms | {"baseline": r.new_zeros(()) + given.baseline}


def _check_options(
    baseline: float | None,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    pool: Pool,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    if baseline is not None:
        check_number("baseline", baseline)
    check_positive("beta", beta)
    check_number("desirable_weight", desirable_weight)
    check_number("undesirable_weight", undesirable_weight)
    if not callable(pool):
        check_choice("pool", pool, ("batch",), also="a callable that sums over ranks")


class KTOLoss(LossModule):
    """Module form of :func:`kto_loss`; same options, same defaults."""

    terms_function = staticmethod(kto_terms)

    def __init__(
        self,
        baseline: float | None = None,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        pool: Pool = "batch",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(baseline, beta, desirable_weight, undesirable_weight, pool, reduction)
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
