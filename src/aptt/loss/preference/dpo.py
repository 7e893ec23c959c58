"""Direct preference optimization and its kin: a function of how far the chosen answer leads.

    u = beta * h - margin,    h = (s_w - ref_w) - (s_l - ref_l)

    sigmoid    (1 - e) softplus(-u) + e softplus(u)
    robust     [(1 - e) softplus(-u) - e softplus(u)] / (1 - 2 e)
    hinge      max(0, 1 - u)
    ipo        (h - (1/2 + margin) / beta)**2

Axes: scores of any equal shape, one for each pair.
From: sigmoid, Rafailov et al. 2023, arXiv:2305.18290, eq. 7, with the label smoothing e of
Mitchell's note on cDPO, 2023, eq. 3; robust, Chowdhury et al. 2024, arXiv:2403.00409; hinge, Zhao
et al. 2023, arXiv:2305.10425; ipo, Azar et al. 2023, arXiv:2310.12036, eq. 17.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_choice,
    check_flags,
    check_number,
    check_positive,
)
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.preference.leads import Kind, lead, rewards
from aptt.loss.preference.scores import First, Given, Pairs, Scores, pairs_of

__all__ = ["DPOLoss", "dpo_loss", "dpo_terms"]


def dpo_loss(
    chosen: First,
    rejected: Given,
    *,
    reference_chosen: Given | None = None,
    reference_rejected: Given | None = None,
    pair_margin: Numbers | None = None,
    weight: Numbers | None = None,
    kind: Kind = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    per_token: bool | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Direct preference optimization, from the scores of chosen and rejected answers.

        softplus(-(beta * h - margin)),    h = (s_w - ref_w) - (s_l - ref_l)

    Args:
        chosen: the scores of the answers that were preferred: :class:`Scores`, as
            :func:`sequence_scores` gives them, or a tensor of any shape and floating dtype.
        rejected: those of the others, pair by pair.
        reference_chosen: what the reference model scores them; None: 0, for a loss without a
            reference, or where it was subtracted token by token, which keeps more digits.
        reference_rejected: likewise.
        pair_margin: how far each pair should lead, added to ``margin``.
        weight: one number for each pair; multiplies and is counted, and 0 removes the pair.
        kind: ``"sigmoid"``, ``"robust"``, ``"hinge"`` or ``"ipo"``.
        beta: how far the policy may go: it multiplies h. Of ipo, the regularisation tau.
        label_smoothing: the share of labels that are taken to be wrong; of sigmoid and robust.
        margin: how far every pair should lead.
        per_token: divide scores by their tokens; None: of ipo alone, as its authors do. Numbers
            that are no :class:`Scores` are taken as they are, if none of the four are Scores.
        reduction: over the pairs: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss: a scalar, or one value for each pair with ``"none"``; float32 for half types.
        log 2 where policy and reference agree. Of robust it is unbounded below, by definition.

    Raises:
        ValueError: shapes that differ, one reference without the other, numbers beside Scores that
            are divided by their tokens, an option out of range, a smoothing that the kind does not
            know.
        TypeError: scores that are not of a floating dtype.

    A pair with an empty answer is removed. The gradient goes to the scores, and to references,
    margins and weights that ask for it; take a reference under ``torch.no_grad()``.

    Use when:
        There are pairs of answers of which one was preferred. ``beta=1`` on the two rewards of a
        reward model is its pairwise loss (Bradley and Terry); ``per_token=True, beta=5`` the
        length-normalised form of Tulu 3.

    Elsewhere:
        TRL ``DPOTrainer``, torchtune ``DPOLoss``, Liger ``LigerFusedLinearDPOLoss``.

    Differs from:
        TRL, OpenRLHF: pairs are counted over micro-batches and ranks by ``reduction``, not averaged
            twice; an empty answer is removed rather than 0 / 0.
        OpenRLHF: ipo averages over tokens.

    Example:
        >>> import torch
        >>> chosen, rejected = torch.tensor([-10.0]), torch.tensor([-12.0])
        >>> round(dpo_loss(chosen, rejected).item(), 4)
        0.5981
    """
    _check_options(kind, beta, label_smoothing, margin, per_token, reduction)
    pairs = _pairs(chosen, rejected, reference_chosen, reference_rejected, weight, kind, per_token)
    options = (kind, beta, label_smoothing, margin)
    return lead(pairs, pair_margin, *options, reduction)


def dpo_terms(
    chosen: First,
    rejected: Given,
    *,
    reference_chosen: Given | None = None,
    reference_rejected: Given | None = None,
    pair_margin: Numbers | None = None,
    weight: Numbers | None = None,
    kind: Kind = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    per_token: bool | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The loss of :func:`dpo_loss`, and what is watched beside it, without a gradient.

    Takes what :func:`dpo_loss` does, and reduces all alike: the accuracy over several micro-batches
    and ranks is that of all pairs.

    Returns:
        ``"preference"``, the loss; ``"reward_chosen"`` and ``"reward_rejected"``, beta times what
        the answers score above their references; ``"accuracy"``, the share of pairs whose chosen
        answer leads.

    Example:
        >>> import torch
        >>> terms = dpo_terms(torch.tensor([-10.0, -3.0]), torch.tensor([-12.0, -1.0]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'preference': 0.6981, 'reward_chosen': -0.65, 'reward_rejected': -0.65, 'accuracy': 0.5}
    """
    _check_options(kind, beta, label_smoothing, margin, per_token, reduction)
    pairs = _pairs(chosen, rejected, reference_chosen, reference_rejected, weight, kind, per_token)
    options = (kind, beta, label_smoothing, margin)
    terms = {"preference": lead(pairs, pair_margin, *options, reduction)}
    return terms | rewards(pairs, beta, reduction)


def _pairs(
    chosen: First,
    rejected: Given,
    reference_chosen: Given | None,
    reference_rejected: Given | None,
    weight: Numbers | None,
    kind: Kind,
    per_token: bool | None,
) -> Pairs:
    if per_token and isinstance(chosen, Tensor):
        raise ValueError(
            "per_token: got True for a tensor of scores, wanted Scores, which know their tokens: "
            "sequence_scores gives them; a tensor of averages is taken as it is without it"
        )
    given: dict[str, Given | None] = {"chosen": chosen, "rejected": rejected}
    if reference_chosen is not None or reference_rejected is not None:
        given |= {"reference_chosen": reference_chosen, "reference_rejected": reference_rejected}
    per_token = kind == "ipo" if per_token is None else per_token
    plain = [key for key, value in given.items() if not isinstance(value, Scores)]
    if per_token and 0 < len(plain) < len(given):
        raise ValueError(
            f"{plain[0]}: got numbers beside Scores that are divided by their tokens, wanted "
            "Scores too: an average less a sum says nothing"
        )
    return pairs_of(
        chosen, rejected, reference_chosen, reference_rejected, weight, per_token=per_token
    )


def _check_options(
    kind: Kind,
    beta: float,
    label_smoothing: float,
    margin: float,
    per_token: bool | None,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    if per_token is not None:
        check_flags(per_token=per_token)
    check_choice("kind", kind, ("sigmoid", "robust", "hinge", "ipo"))
    check_positive("beta", beta)
    check_number("margin", margin, -1e30, 1e30, wanted="a finite number")
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    if kind == "robust" and label_smoothing >= 0.5:
        raise ValueError(
            f"label_smoothing: got {label_smoothing}, wanted less than 0.5: of labels half of "
            "which are wrong, the robust loss knows nothing"
        )
    if label_smoothing and kind in ("hinge", "ipo"):
        raise ValueError(
            f"label_smoothing: got {label_smoothing} with kind={kind!r}, wanted 0, or kind "
            "'sigmoid' or 'robust'"
        )


class DPOLoss(LossModule):
    """Module form of :func:`dpo_loss`; same options, same defaults."""

    terms_function = staticmethod(dpo_terms)

    def __init__(
        self,
        kind: Kind = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        margin: float = 0.0,
        per_token: bool | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(kind, beta, label_smoothing, margin, per_token, reduction)
        super().__init__(
            kind=kind,
            beta=beta,
            label_smoothing=label_smoothing,
            margin=margin,
            per_token=per_token,
            reduction=reduction,
        )

    def forward(
        self,
        chosen: First,
        rejected: Given,
        *,
        reference_chosen: Given | None = None,
        reference_rejected: Given | None = None,
        pair_margin: Numbers | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``chosen`` against ``rejected``."""
        return dpo_loss(
            chosen,
            rejected,
            reference_chosen=reference_chosen,
            reference_rejected=reference_rejected,
            pair_margin=pair_margin,
            weight=weight,
            **self.options(),
        )
