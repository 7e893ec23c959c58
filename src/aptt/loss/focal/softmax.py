"""Focal loss of a softmax: of the right class, or of the shares that classes have in it.

    INDICES    alpha[y] * (1 - p[y])**gamma * -log p[y]
    SHARES     sum over c of alpha[c] * t[c] * (1 - p[c])**gamma * -log p[c]

with t the share of each class, or the right class with its share spread by label smoothing.

Axes: logits ``(N, C)`` or ``(N, C, S)``; indices the same without C, shares the same.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.axes import align_classes
from aptt.core.checks import (
    IgnoreIndex,
    Numbers,
    as_weight,
    check_shares,
    check_tensors,
    ignored,
    taken_classes,
)
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.logistic import power, times
from aptt.core.precision import wide
from aptt.core.reduction import Count, count_of
from aptt.core.shapes import check_shapes, check_vector, one_or_each
from aptt.core.softmax import (
    Against,
    against,
    exp_of_gaps,
    exp_of_gaps_,
    fading,
    gaps,
    leading,
    of_class,
    on_class_axis,
    put_class_,
    with_class,
)

__all__ = ["INDICES", "SHARES", "counted", "rows"]

_FAR = 40.0  # an nll of which exp(-nll) is nothing beside 1, to float64's last digit


def rows(
    logits: Tensor,
    target: Tensor,
    alpha: float | Numbers | Literal["auto"] | None,
    weight: Numbers | None,
    ignore_index: IgnoreIndex,
    class_dim: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, float | Tensor | None, tuple[int, ...]]:
    """A call of classes as logits, target, weights and alpha, and the shape of its positions."""
    x, y, soft, shape = align_classes(logits, target, class_dim)
    keep = None
    if not soft:
        y, keep = taken_classes(y, x.shape[1], ignored(ignore_index, indexed=True))
    elif ignored(ignore_index, indexed=False) is not None:
        raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    elif y.requires_grad:  # of the loss and of its count: added up before they are rounded
        y = y.to(wide(x.dtype))
    w = keep
    if weight is not None:
        weight = as_weight("weight", weight, logits)
        if soft:
            check_tensors(logits=logits, weight=weight)
            check_shapes(weight=(weight, " ".join(map(str, shape))))
        else:
            check_shapes(target=(target, "*N"), weight=(weight, "*N"))
        w = weight.reshape(len(x), *x.shape[2:])
        w = w if keep is None else torch.where(keep, w, 0)
    if soft:
        check_shares(y, w)
    if alpha is None or isinstance(alpha, str):
        return x, y, w, None, shape
    alpha = one_or_each("alpha", alpha, logits)
    if isinstance(alpha, Tensor) and alpha.ndim > 0:
        alpha = check_vector("alpha", alpha, x, signed=True)
    return x, y, w, alpha, shape


def counted(y: Tensor, w: Tensor | None, dtype: torch.dtype) -> Count:
    """What the mean divides by: the rows by their weight, and by the mass of soft targets."""
    if not y.is_floating_point():
        return count_of(y, w)
    mass = y.to(dtype).sum(1)
    return mass.sum() if w is None else (torch.where(w != 0, mass, 0.0) * w).sum()


def _of_class(alpha: Tensor | float, y: Tensor) -> Tensor | float:
    """The weight of each row's class."""
    return alpha[y] if isinstance(alpha, Tensor) and alpha.ndim else alpha


def _hard_stats(x: Tensor, y: Tensor, *, alpha: Tensor | float | None, gamma: float) -> Kept:
    return against(x, y)


def _hard_result(
    x: Tensor, kept: Kept, y: Tensor, *, alpha: Tensor | float | None, gamma: float
) -> Tensor:
    wrong = Against(*kept)
    loss = (wrong.nll * power(fading(wrong), gamma)).squeeze(1)
    if alpha is None:
        return loss
    share = _of_class(alpha, y)
    return times(share, loss) if isinstance(share, Tensor) else share * loss


def _hard_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
) -> tuple[None, Tensor]:
    # as above, along minus the log-odds of the class, whose slope is exp(z[c] - top) / rest
    # at the other classes and -1 at its own
    wrong = Against(*kept)
    miss = wrong.miss
    nll = wrong.nll.clamp(max=_FAR)  # beyond, nothing is left of p
    slope = torch.addcmul(miss, (1 + wrong.odds).reciprocal().mul_(gamma), nll)
    slope = slope * power(miss, gamma) * by_row(up)
    if alpha is not None:
        slope = slope * by_row(_of_class(alpha, y))
    rest = wrong.rest.clamp(min=1)  # it is 1 or more, but for a row without other classes
    return None, put_class_(exp_of_gaps_(x - wrong.top).mul_(slope / rest), y, -slope)


def _soft_stats(
    x: Tensor, t: Tensor, *, alpha: Tensor | float | None, gamma: float, smoothing: float | None
) -> Kept:
    lead = leading(x)
    return lead.at, lead.top, lead.rest


def _soft_result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
    smoothing: float | None,
) -> Tensor:
    at, top, rest = kept
    goal = _goal(x, t, alpha, smoothing)
    gap = gaps(x, top, at)
    nll = torch.where((x > -torch.inf) | (goal != 0), rest.log1p() - gap, 0.0)
    _, miss = _chances(exp_of_gaps(gap), rest, at)
    # beyond _FAR nothing fades, and an infinite cost has no part in the slope of what fades
    cost = nll.clamp(max=_FAR) * power(miss, gamma) + torch.relu(nll - _FAR)
    return (goal * cost).sum(1)


def _soft_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
    smoothing: float | None,
) -> tuple[None, Tensor]:
    # Along the log-odds of class c, d (miss**gamma nll) = -miss slope with
    # slope = miss**gamma (1 + gamma p nll / miss), and d log-odds / d z[j] is 1 for j = c, else
    # -p[j] / miss. Of each class but the largest, miss is 1/2 at least; of that one p[j] / miss is
    # e[j] / rest, and miss slope is formed without the quotient.
    at, top, rest = kept
    goal = _goal(x, t, alpha, smoothing)
    gap = x - top
    e = exp_of_gaps(gap)
    p, miss = _chances(e, rest, at)
    again = p * (rest.log1p() - gap).clamp(max=_FAR) * gamma
    goal = goal * power(miss, gamma)
    own = of_class(goal * (miss + again), at)
    slopes = put_class_(goal * (1 + again / miss.clamp(min=0.25)), at, torch.zeros_like(own))
    every = slopes.sum(1, keepdim=True)
    of_at = of_class(p, at) * every - own
    some = rest.clamp(min=torch.finfo(x.dtype).tiny)
    dx = (p * every).sub_(slopes).add_(e * (own / some))
    return None, put_class_(dx, at, of_at).mul_(by_row(up))


def _goal(x: Tensor, t: Tensor, alpha: Tensor | float | None, smoothing: float | None) -> Tensor:
    """The weighted share of each class; smoothing gives none to those that are masked by -inf."""
    if not t.is_floating_point():
        t = with_class(torch.zeros_like(x), t, torch.ones_like(x[:, :1]))
    if smoothing is not None:
        open = (x > -torch.inf).to(x.dtype)
        t = (1 - smoothing) * t + open * (smoothing / open.sum(1, keepdim=True).clamp(min=1))
    if isinstance(alpha, Tensor) and alpha.ndim:
        return t * on_class_axis(alpha, x)
    return t if alpha is None else t * alpha


def _chances(e: Tensor, rest: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """P and 1 - p, of which nothing cancels: only at the largest class p is above 1/2."""
    share = (1 + rest).reciprocal()
    p = e * share
    return p, with_class(1 - p, at, rest * share)


INDICES = Formula(_hard_result, _hard_step, _hard_stats, block=2**19)
SHARES = Formula(_soft_result, _soft_step, _soft_stats, block=2**18)
