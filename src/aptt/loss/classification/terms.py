"""What cross-entropy adds up, and what is watched beside it: for the log of a training run.

cross_entropy    the loss without its z-loss
z_loss           w[y] * lse**2, before its factor
lse              logsumexp(z), by the same weights, without a gradient
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.axes import split_axis
from aptt.core.checks import Numbers
from aptt.core.engine import evaluate
from aptt.core.precision import wide, widest
from aptt.core.reduction import Count, Reduction, normalize
from aptt.core.vocabulary import checked_form
from aptt.loss.classification.indices import INDICES_AND_LSE
from aptt.loss.classification.prepared import mass_of, prepared
from aptt.loss.classification.shares import SHARES_AND_LSE

__all__ = ["cross_entropy_terms", "gathered"]


def cross_entropy_terms(
    logits: Tensor,
    target: Numbers,
    *,
    sample_weight: Numbers | None = None,
    weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    logit_adjustment: Numbers | None = None,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`cross_entropy`, its z-loss before its factor, and the log-sum-exp.

    Takes what :func:`cross_entropy` does, but for ``z_loss``, and reads the logits as often.

    Returns:
        ``"cross_entropy"``, the loss without its z-loss; ``"z_loss"``, ``w[y] * lse**2``, which the
        loss adds ``z_loss`` times; ``"lse"``, the log-sum-exp of the logits, of which a mean far
        from 0 is the drift that a z-loss is for, without a gradient. All are reduced alike; with
        ``"none"`` each has one value per position.

    Example:
        >>> import torch
        >>> terms = cross_entropy_terms(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'cross_entropy': 0.2395, 'z_loss': 5.0156, 'lse': 2.2395}
    """
    form = checked_form(label_smoothing, 0.0, softcap, reduction)
    given = prepared(
        logits, target, sample_weight, weight, ignore_index, logit_adjustment, class_dim
    )
    x, y, rows = given.logits, given.target, given.rows
    if x.ndim == 3:  # as rows, for which the values are columns
        x, y = split_axis(x, 1, rows=True), split_axis(y, 1, rows=True) if given.soft else y
    values = evaluate(
        SHARES_AND_LSE if given.soft else INDICES_AND_LSE,
        x,
        y if given.soft else y.reshape(-1),
        gather="values",
        weight=None if rows is None else (rows != 0).reshape(-1, 1),
        class_weight=given.class_weight,
        adjustment=given.adjustment,
        form=form,
    )
    y = given.target
    mass = mass_of(y, given.class_weight, soft=given.soft, dtype=wide(x.dtype))
    return gathered(values, mass, rows, given.counted(), given.shape, reduction)


def gathered(
    values: Tensor,
    mass: Tensor,
    rows: Tensor | None,
    count: Count,
    shape: tuple[int, ...],
    reduction: Reduction,
) -> dict[str, Tensor]:
    """The terms from the loss and the log-sum-exp of each position, ``(n, 2)``."""
    loss, lse = values.unbind(1)
    mass, one = mass.reshape(-1), None
    if rows is not None:
        one = rows.reshape(-1).to(values.dtype)
        loss, mass = loss * one, torch.where(one != 0, mass, 0.0) * one
    squares, seen = mass * lse.square(), mass.detach() * lse.detach()
    names = ("cross_entropy", "z_loss", "lse")
    if reduction == "none":
        return {n: t.reshape(shape) for n, t in zip(names, (loss, squares, seen), strict=True)}
    low = seen.sum(dtype=widest(seen)).to(seen.dtype)  # of either sign, and so they cancel
    return {
        name: normalize(total, count, reduction, term="cross_entropy")
        for name, total in zip(names, (loss.sum(), squares.sum(), low), strict=True)
    }
