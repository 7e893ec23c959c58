"""Ranks as a ladder of yes-or-no questions: is the rank above level k?

K ranks have K - 1 levels, and a logit each. CORAL and CORN share this: the formula of a row, and
how logits are read back.

    cost   = sum_k w[k] softplus(y > k ? -z[k] : z[k])      CORN: over the levels k <= y alone

Axes: logits ``(N, K - 1, ...)`` or ``(..., K - 1)``; target the same without that axis.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.axes import class_axis, indexed_axis, split_axis, without_axis
from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_choice,
    check_floating,
    check_index,
    taken_classes,
)
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.logistic import sign, softplus, times
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_shapes, check_vector
from aptt.core.softmax import on_class_axis

__all__ = ["LADDER", "ordinal_decode", "ordinal_probabilities", "reduced_levels"]

Kind = Literal["coral", "corn"]


def ordinal_probabilities(
    logits: Tensor, *, kind: Kind = "coral", class_dim: int | None = None
) -> Tensor:
    """The probability that the rank is above each level, from the logits of CORAL or CORN.

        coral:   P(y > k) = sigmoid(z[k])
        corn:    P(y > k) = product over j <= k of sigmoid(z[j])

    Args:
        logits: ``(N, K - 1, ...)`` or ``(..., K - 1)``, any floating dtype.
        kind: the loss that they were trained with. CORN's are conditional, and their product never
            rises with k; CORAL's fall with k where the head shares its weight between levels.
        class_dim: the axis of the levels, where there are over two axes.

    Returns:
        The shape of the logits; float32 for half types. Differentiable. The probability of rank k
        is the difference of two neighbours, with 1 before the first and 0 after the last.

    Raises:
        ValueError: an axis that is none, or is left open; an unknown kind.

    Example:
        >>> import torch
        >>> above = ordinal_probabilities(torch.tensor([[2.0, 0.0, -2.0]]), kind="corn")
        >>> [round(p, 4) for p in above[0].tolist()]
        [0.8808, 0.4404, 0.0525]
    """
    check_choice("kind", kind, ("coral", "corn"))
    check_index(class_dim=class_dim)
    check_floating(logits=logits)
    axis = class_axis(logits, class_dim)
    p = torch.sigmoid(widen(logits))
    return p if kind == "coral" else p.cumprod(axis)


def ordinal_decode(logits: Tensor, *, kind: Kind = "coral", class_dim: int | None = None) -> Tensor:
    """The rank that the logits of CORAL or CORN predict: how many levels it is likely above.

        rank = number of k with P(y > k) > 1/2

    Args:
        logits: ``(N, K - 1, ...)`` or ``(..., K - 1)``, any floating dtype.
        kind: the loss that they were trained with.
        class_dim: the axis of the levels, where there are over two axes.

    Returns:
        Ranks from 0 to K - 1, int64, in the shape of the logits without the axis of the levels.

    Raises:
        ValueError: an axis that is none, or is left open; an unknown kind.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.5, -2.0], [0.1, 0.1, 3.0]])
        >>> ordinal_decode(logits).tolist(), ordinal_decode(logits, kind="corn").tolist()
        ([2, 3], [2, 1])
    """
    above = ordinal_probabilities(logits, kind=kind, class_dim=class_dim) > 0.5
    return above.sum(class_axis(logits, class_dim))


def reduced_levels(
    term: str,
    logits: Tensor,
    target: Numbers,
    weight: Numbers | None,
    level_weight: Numbers | None,
    ignore_index: int | None,
    class_dim: int | None,
    reduction: Reduction,
    *,
    nested: bool,
) -> Tensor:
    """Hold a call to its shapes, evaluate and reduce it.

    ``nested``: a level is asked about only where the rank has passed those before, and it is the
    questions that are counted; else every level is, and ranks are counted.
    """
    check_levels(ignore_index, class_dim, reduction)
    check_floating(logits=logits)
    target = as_tensor("target", target, logits)
    axis = indexed_axis(logits, target, class_dim, names=("logits", "target"))
    rows = axis == logits.ndim - 1 or logits.stride(axis) == 1
    x = split_axis(logits, axis, rows=rows)
    y, w = taken_classes(target, x.shape[1] + 1, ignore_index)
    y = y.reshape(*x.shape[:1], *x.shape[2:])
    if w is not None:
        w = w.reshape(y.shape)
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        check_shapes(target=(target, "*N"), weight=(weight, "*N"))
        some = weight.reshape(y.shape)
        w = some if w is None else torch.where(w, some, 0)
    if level_weight is not None:
        level_weight = on_class_axis(check_vector("level_weight", level_weight, x, each="level"), x)

    def questions() -> Tensor:
        asked = y.clamp(max=x.shape[1] - 1) + 1
        return asked.sum() if w is None else (torch.where(w != 0, asked, 0) * w).sum()

    loss = reduce(
        LADDER,
        x,
        y,
        weight=w,
        count=questions if nested else lambda: count_of(y, w),
        reduction=reduction,
        term=term,
        level_weight=level_weight,
        nested=nested,
    )
    return loss.reshape(without_axis(logits, axis)) if reduction == "none" else loss


def check_levels(ignore_index: int | None, class_dim: int | None, reduction: Reduction) -> None:
    """Hold the options that both losses share to their ranges."""
    check_reduction(reduction)
    check_index(ignore_index=ignore_index, class_dim=class_dim)


def _asked(x: Tensor, y: Tensor, *, nested: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Each logit as far as it is wrong, which way that is, and where it is asked for at all."""
    level = on_class_axis(torch.arange(x.shape[1], device=x.device), x)
    y = y.unsqueeze(1)
    turn = sign((y > level).to(x.dtype))
    asked = y >= (level if nested else 0)
    return turn * torch.where(asked, x, 0.0), turn, asked


def _result(
    x: Tensor, kept: Kept, y: Tensor, *, level_weight: Tensor | None, nested: bool
) -> Tensor:
    wrong, _, asked = _asked(x, y, nested=nested)
    cost = torch.where(asked, softplus(wrong), 0.0)
    return (cost if level_weight is None else times(level_weight, cost)).sum(1)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    level_weight: Tensor | None,
    nested: bool,
) -> tuple[Tensor, Tensor]:
    # d softplus(turn z) = turn sigmoid(turn z)
    wrong, turn, asked = _asked(x, y, nested=nested)
    cost = torch.where(asked, softplus(wrong), 0.0)
    slope = turn.mul_(torch.sigmoid(wrong)).mul_(asked)
    if level_weight is not None:
        cost, slope = times(level_weight, cost), slope.mul_(level_weight)
    return cost.sum(1), slope.mul_(by_row(up))


LADDER = Formula(_result, _step, ahead=True, block=2**17)
"""Of rows: levels on the class axis, and the rank of each row."""
