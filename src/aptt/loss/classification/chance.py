"""What losses of the probability of the right class share: two formulas, and the way to them.

MIXED    log * nll + linear * (1 - p)        nll = -log p,    p = softmax(z)[y]
POWER    (1 - p**q) / q
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.axes import align_classes
from aptt.core.checks import (
    Numbers,
    as_tensor,
    as_weight,
    check_floating,
    check_index,
    taken_classes,
)
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_shapes
from aptt.core.softmax import Against, against, exp_of_gaps_, fading, put_class_

__all__ = ["MIXED", "POWER", "reduced_rows"]


def reduced_rows(
    formula: Formula,
    term: str,
    logits: Tensor,
    target: Numbers,
    weight: Numbers | None,
    ignore_index: int | None,
    class_dim: int | None,
    reduction: Reduction,
    **options: Any,
) -> Tensor:
    """Hold a call to its shapes, evaluate its formula and reduce it."""
    check_reduction(reduction)
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    check_floating(logits=logits)
    x, y, soft, shape = align_classes(logits, target, class_dim)
    if soft:
        raise TypeError(f"target: got {y.dtype}, wanted class indices")
    y, w = taken_classes(y, x.shape[1], ignore_index)
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        check_shapes(target=(as_tensor("target", target, logits), "*N"), weight=(weight, "*N"))
        some = weight.reshape(y.shape)
        w = some if w is None else torch.where(w, some, 0)
    loss = reduce(
        formula,
        x,
        y,
        weight=w,
        count=lambda: count_of(y, w),
        reduction=reduction,
        term=term,
        **options,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _stats(x: Tensor, y: Tensor, **_: float) -> Kept:
    return against(x, y)


def _mixed_result(
    x: Tensor, kept: Kept, y: Tensor, *, log: float, linear: float, less: bool
) -> Tensor:
    wrong = Against(*kept)
    if not less:
        return (log * wrong.nll + linear * fading(wrong)).squeeze(1)
    value = -linear * _above(wrong)
    if log + linear:  # 0 times the nll of a masked class is NaN
        value = (log + linear) * wrong.nll + value
    return value.squeeze(1)


def _mixed_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    log: float,
    linear: float,
    less: bool,
) -> tuple[None, Tensor]:
    # d (1 - p) = p d nll
    wrong = Against(*kept)
    share = (log + linear) - linear * wrong.miss
    if not less:
        share = log + linear * (1 + wrong.odds).reciprocal()
    return None, _along(x, y, kept, share * by_row(up))


def _above(wrong: Against) -> Tensor:
    """``nll - (1 - p)``, of which nothing cancels: the sum of ``(1 - p)**k / k`` from k = 2 on."""
    miss = fading(wrong)
    few = miss.clamp(max=_FEW)
    series = torch.full_like(few, 1 / _TERMS)
    for k in range(_TERMS - 1, 1, -1):
        series = series * few + 1 / k
    return torch.where(miss < _FEW, few.square() * series, wrong.nll - miss)


_FEW, _TERMS = 0.05, 13  # 0.05**12 is float64's last digit


def _power_result(x: Tensor, kept: Kept, y: Tensor, *, q: float) -> Tensor:
    cost = -q * Against(*kept).nll.squeeze(1)
    value = -expm1(cost) / q
    if torch.is_grad_enabled():  # whose slope is expm1 + 1, without a digit where that is small
        again = (1 - cost.exp()) / q
        value = again + (value - again).detach()
    return value


def _power_step(
    x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, q: float
) -> tuple[None, Tensor]:
    # d (1 - p**q) / q = p**q d nll
    return None, _along(x, y, kept, (-q * Against(*kept).nll).exp() * by_row(up))


def _along(x: Tensor, y: Tensor, kept: Kept, slope: Tensor) -> Tensor:
    """The gradient of the logits, given that of the nll."""
    wrong = Against(*kept)
    dz = exp_of_gaps_(x - wrong.top).mul_(slope * wrong.share)
    return put_class_(dz, y, -slope * wrong.miss)


MIXED = Formula(_mixed_result, _mixed_step, _stats, block=2**19)
POWER = Formula(_power_result, _power_step, _stats, block=2**19)
