"""ORPO: the likelihood of the chosen answer, and its odds against those of the rejected one.

    loss  = nll + odds_weight * odds
    nll   = -sum of the chosen scores / sum of their tokens
    odds  = softplus(u(a_w) - u(a_l)),    u(a) = log(exp(a) - 1),    a = -score / tokens >= 0

u is minus the log-odds of the probability exp(-a) of a token, on average. Written so, nothing
overflows however large a is, and at a_w = 0, where the chosen answer is certain, value and slope
are the exact ones. A rejected answer that is certain costs infinitely by definition: below
``a_l = 2**-30`` the logarithm goes on along its tangent.

Axes: scores of any equal shape, one for each pair.
From: Hong et al. 2024, arXiv:2403.07691, eq. 4 and 7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_number
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.module import LossModule
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, count_of, normalize, reduce
from aptt.loss.preference.scores import First, Given, Pairs, pairs_of

__all__ = ["ORPOLoss", "orpo_loss", "orpo_terms"]

_CERTAIN = 2.0**-30  # a_l from which on the logarithm is followed along its tangent


def orpo_loss(
    chosen: First,
    rejected: Given,
    *,
    weight: Numbers | None = None,
    odds_weight: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """ORPO: supervised fine-tuning and preferences at once, without a reference model.

        nll + odds_weight * softplus(logit(P_l) - logit(P_w)),    P = exp(score / tokens)

    Args:
        chosen: the scores of the answers that were preferred: :class:`Scores`, as
            :func:`sequence_scores` gives them, or a tensor of average log-probabilities per token,
            each of which counts as one token. Any shape, any floating dtype.
        rejected: those of the others, pair by pair.
        weight: one number for each pair; multiplies and is counted, and 0 removes the pair.
        odds_weight: the part of the odds beside the likelihood; lambda of the paper.
        reduction: ``"mean"``, ``"sum"``, or a callable ``(total, count, *, term)``. The likelihood
            counts tokens, the odds count pairs.

    Returns:
        The loss, a scalar; float32 for half types.

    Raises:
        ValueError: shapes that differ, an option out of range, scores that are no
            log-probabilities (on CPU).
        TypeError: scores that are not of a floating dtype.

    A pair with an empty answer is removed. The gradient goes to the scores, and to weights that ask
    for it. The odds cost at most 21.8 more than where the rejected answer has odds of 1, and their
    slope by its average is at most 2**30, and by the chosen one's e times that; a score above 0,
    which rounding may give, is one of 0.

    Use when:
        One stage is to do for fine-tuning and preferences.

    Elsewhere:
        TRL ``ORPOTrainer``, Liger ``LigerFusedLinearORPOLoss``.

    Differs from:
        TRL: its gradient is NaN where the average is above -3e-8; here it is exact.
        Liger: ``log1p(-exp(.))`` is 19 % off at -5e-8, and NaN at 0.

    Example:
        >>> import torch
        >>> round(orpo_loss(torch.tensor([-1.0]), torch.tensor([-2.0])).item(), 4)
        1.0238
    """
    terms = orpo_terms(chosen, rejected, weight=weight, reduction=_checked(odds_weight, reduction))
    return terms["nll"] + odds_weight * terms["odds"]


def orpo_terms(
    chosen: First,
    rejected: Given,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`orpo_loss` by name, each before its weight.

    Takes what :func:`orpo_loss` does.

    Returns:
        ``"nll"``, the negative log-likelihood of the chosen answers, over tokens, and ``"odds"``,
        over pairs.

    Example:
        >>> import torch
        >>> terms = orpo_terms(torch.tensor([-1.0]), torch.tensor([-2.0]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'nll': 1.0, 'odds': 0.2382}
    """
    check_reduction(reduction, none=False)
    pairs = pairs_of(chosen, rejected, None, None, weight, per_token=True)
    _check_scores(pairs)
    x, w = torch.stack((pairs.chosen, pairs.rejected), 1), pairs.weight
    return {
        "nll": _likelihood(pairs, reduction),
        "odds": reduce(
            _ODDS,
            x,
            weight=w,
            count=lambda: count_of(pairs.chosen, w),
            reduction=reduction,
            term="odds",
        ),
    }


def _likelihood(pairs: Pairs, reduction: Reduction) -> Tensor:
    """The chosen scores over their tokens; an average is of one token where they are unknown."""
    x, w, tokens = pairs.chosen, pairs.weight, pairs.tokens
    count = count_of(x, w)
    if tokens is not None:
        tokens = tokens.to(x.dtype)
        x = x * tokens
        assert w is not None  # an empty answer has one of 0
        w = w.to(x.dtype)
        count = torch.where(w != 0, w * tokens, 0.0).sum()
    if w is not None:
        x = torch.where(w != 0, x, 0.0) * w.to(x.dtype)
    return normalize(-x.sum(), count, reduction, term="nll")


def _terms(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Which average is less likely and how they compare; how uncertain each is: 1 - exp(-a)."""
    chosen, rejected = (-x).clamp(min=0).unbind(1)
    held, certain = rejected.clamp(min=_CERTAIN), rejected < _CERTAIN
    gap = chosen - held + torch.where(certain, 1 - rejected / _CERTAIN, 0.0)
    return chosen > held, gap, -expm1(-chosen), -expm1(-held), certain


def _odds(x: Tensor, kept: Kept) -> Tensor:
    # exp(u(a_w) - u(a_l)) = exp(gap) m_w / m_l with m = 1 - exp(-a). Its log1p, from whichever side
    # it is small on: where a_w > a_l, m_w is not 0.
    behind, gap, right, wrong, _ = _terms(x)
    some = torch.where(behind, right, 1.0)
    low = (torch.where(behind, 0.0, gap).exp() * (right / wrong)).log1p()
    high = (torch.where(behind, -gap, 0.0).exp() * (wrong / some)).log1p() + (some / wrong).log()
    return torch.where(behind, high + gap, low)


def _odds_step(x: Tensor, up: Tensor | float, kept: Kept) -> tuple[Tensor, Tensor]:
    # dL/da_w = 1 / (m_w + exp(a_l - a_w) m_l),    dL/da_l = -sigmoid(u(a_w) - u(a_l)) / m_l
    _, gap, right, wrong, certain = _terms(x)
    by_chosen = (right + (-gap).exp() * wrong).reciprocal()
    by_rejected = right * by_chosen / torch.where(certain, _CERTAIN, wrong)
    dx = torch.stack((-by_chosen, by_rejected), 1)
    return _odds(x, kept), dx.mul_(x <= 0).mul_(by_row(up))


_ODDS = Formula(_odds, _odds_step, ahead=True)
"""Of rows ``(N, 2)``, the averages of the chosen and of the rejected answer."""


def _check_scores(pairs: Pairs) -> None:
    """Refuse what is clearly no log-probability, where looking costs no host sync."""
    for name, x in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        x = x.detach()
        if not is_readable(x) or not x.amax() > 0.5:
            continue
        wrong = x > 0.5
        if pairs.weight is not None and is_readable(pairs.weight):
            wrong &= pairs.weight != 0
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: got {x[wrong][0].item():g} a token, wanted log-probabilities, at most 0"
            )


def _checked(odds_weight: float, reduction: Reduction) -> Reduction:
    check_reduction(reduction, none=False)
    check_number("odds_weight", odds_weight)
    return reduction


class ORPOLoss(LossModule):
    """Module form of :func:`orpo_loss`; same options, same defaults."""

    terms_function = staticmethod(orpo_terms)

    def __init__(self, odds_weight: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__(odds_weight=odds_weight, reduction=_checked(odds_weight, reduction))

    def forward(self, chosen: First, rejected: Given, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``chosen`` against ``rejected``."""
        return orpo_loss(chosen, rejected, weight=weight, **self.options())
