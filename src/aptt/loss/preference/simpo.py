"""SimPO: preferences by the average log-probability of a token, without a reference model.

    loss = softplus(-(beta (avg_w - avg_l) - margin)),    avg = score / tokens

Axes: scores of any equal shape, one for each pair.
From: Meng et al. 2024, arXiv:2405.14734, eq. 6, whose gamma is ``margin``.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_number, check_positive
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.preference.leads import lead, rewards
from aptt.loss.preference.scores import First, Given, pairs_of

__all__ = ["SimPOLoss", "simpo_loss", "simpo_terms"]


def simpo_loss(
    chosen: First,
    rejected: Given,
    *,
    weight: Numbers | None = None,
    beta: float = 2.0,
    margin: float = 1.0,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """SimPO: preferences by the average log-probability of a token, without a reference.

        softplus(-(beta (avg_w - avg_l) - margin))

    Args:
        chosen: the scores of the answers that were preferred: :class:`Scores`, as
            :func:`sequence_scores` gives them, or a tensor of averages per token, of any shape and
            floating dtype.
        rejected: those of the others, pair by pair.
        weight: one number for each pair; multiplies and is counted, and 0 removes the pair.
        beta: multiplies the difference of averages; 2 to 2.5 in the paper.
        margin: the paper's gamma, itself and not its ratio to beta; 0.5 to 1.4 in the paper.
        label_smoothing: the share of labels that are taken to be wrong.
        reduction: over the pairs: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss: a scalar, or one value for each pair with ``"none"``; float32 for half types.

    Raises:
        ValueError: shapes that differ, an option out of range.
        TypeError: scores that are not of a floating dtype.

    A pair with an empty answer is removed. The gradient goes to the scores, and to weights that ask
    for it.

    Use when:
        There are pairs, and no memory for a reference model.

    Elsewhere:
        TRL ``CPOTrainer(loss_type="simpo")``, torchtune ``SimPOLoss``.

    Differs from:
        The authors' code: it takes gamma / beta; so do configurations that were written for it.
        TRL: its default ``beta`` of 0.1 is DPO's.

    Example:
        >>> import torch
        >>> averages = torch.tensor([-1.0]), torch.tensor([-1.5])
        >>> round(simpo_loss(*averages, beta=2.5, margin=1.375).item(), 4)
        0.7576
    """
    _check_options(beta, margin, label_smoothing, reduction)
    pairs = pairs_of(chosen, rejected, None, None, weight, per_token=True)
    return lead(pairs, None, "sigmoid", beta, label_smoothing, margin, reduction)


def simpo_terms(
    chosen: First,
    rejected: Given,
    *,
    weight: Numbers | None = None,
    beta: float = 2.0,
    margin: float = 1.0,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The loss of :func:`simpo_loss`, and what is watched beside it, without a gradient.

    Takes what :func:`simpo_loss` does, and reduces all alike.

    Returns:
        ``"preference"``, the loss; ``"reward_chosen"`` and ``"reward_rejected"``, beta times the
        averages; ``"accuracy"``, the share of pairs whose chosen answer leads.

    Example:
        >>> import torch
        >>> terms = simpo_terms(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.5]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'preference': 1.41, 'reward_chosen': -3.0, 'reward_rejected': -3.0, 'accuracy': 0.5}
    """
    _check_options(beta, margin, label_smoothing, reduction)
    pairs = pairs_of(chosen, rejected, None, None, weight, per_token=True)
    loss = lead(pairs, None, "sigmoid", beta, label_smoothing, margin, reduction)
    return {"preference": loss} | rewards(pairs, beta, reduction)


def _check_options(
    beta: float, margin: float, label_smoothing: float, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_positive("beta", beta)
    check_number("margin", margin, -1e30, 1e30, wanted="a finite number")
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)


class SimPOLoss(LossModule):
    """Module form of :func:`simpo_loss`; same options, same defaults."""

    terms_function = staticmethod(simpo_terms)

    def __init__(
        self,
        beta: float = 2.0,
        margin: float = 1.0,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(beta, margin, label_smoothing, reduction)
        super().__init__(
            beta=beta, margin=margin, label_smoothing=label_smoothing, reduction=reduction
        )

    def forward(self, chosen: First, rejected: Given, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``chosen`` against ``rejected``."""
        return simpo_loss(chosen, rejected, weight=weight, **self.options())
