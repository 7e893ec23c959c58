"""What the linear cross-entropy adds up, and what is watched beside it, without the logits."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.linear import HeadFormula
from aptt.core.linear.tokens import evaluate, put_back
from aptt.core.reduction import Reduction
from aptt.core.vocabulary import checked_form
from aptt.loss.classification.indices import INDICES_AND_LSE
from aptt.loss.classification.prepared import mass_of
from aptt.loss.classification.shares import SHARES_AND_LSE
from aptt.loss.classification.terms import gathered
from aptt.loss.linear.prepared import prepared

__all__ = ["linear_cross_entropy_terms"]


def linear_cross_entropy_terms(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    *,
    bias: Tensor | None = None,
    sample_weight: Numbers | None = None,
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Numbers | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`linear_cross_entropy`, its z-loss before its factor, and the log-sum-exp.

    Takes what :func:`linear_cross_entropy` does, but for ``z_loss``, and multiplies each chunk out
    as often.

    Returns:
        ``"cross_entropy"``, the loss without its z-loss; ``"z_loss"``, ``w[y] * lse**2``, which the
        loss adds ``z_loss`` times; ``"lse"``, the log-sum-exp of the logits, without a gradient.
        All are reduced alike; with ``"none"`` each has one value a token.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(3), 2 * torch.eye(3)
        >>> terms = linear_cross_entropy_terms(hidden, weight, torch.tensor([0, 1, 2]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'cross_entropy': 0.2395, 'z_loss': 5.0156, 'lse': 2.2395}
    """
    form = checked_form(label_smoothing, 0.0, softcap, reduction)
    given = prepared(
        hidden,
        weight,
        target,
        bias,
        sample_weight,
        class_weight,
        ignore_index,
        logit_adjustment,
        scale,
        chunk,
        drop_ignored,
    )
    rows = given.rows
    values = evaluate(
        _SHARES if given.soft else _INDICES,
        given.tokens,
        given.target,
        gather="values",
        weight=None if rows is None else (rows != 0).to(rows.dtype).unsqueeze(1),
        class_weight=given.class_weight,
        adjustment=given.adjustment,
        form=form,
    )
    mass = mass_of(given.target, given.class_weight, soft=given.soft, dtype=values.dtype)
    count = given.counted(values.dtype)
    terms = gathered(values, mass, rows, count, values.shape[:1], reduction)
    if reduction != "none":
        return terms
    return {name: put_back(t, given.chosen, given.tokens.shape) for name, t in terms.items()}


_INDICES = HeadFormula("cross_entropy and lse", INDICES_AND_LSE, columns=2)
_SHARES = HeadFormula("cross_entropy of shares and lse", SHARES_AND_LSE, columns=2)
