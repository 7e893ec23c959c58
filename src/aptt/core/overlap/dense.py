"""Of targets like the logits: labels of 0 and 1 and a sigmoid, or soft ones and either of the two.

Axes: logits and target ``(N, C, S)``; weights ``(N, 1, S)`` or ``(N, C, S)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.chances import of_sigmoid, of_softmax
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import nll, sign, softplus
from aptt.core.marks import cleared, weighed
from aptt.core.overlap.cost import Ask, faded, lift_of, prices_of
from aptt.core.softmax import others

__all__ = ["LABELS", "SHARES"]


def _labels_result(x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: Ask) -> Tensor:
    x, t = _dense(x, t, w, ask)
    wrong = sign(t) * x
    miss = torch.sigmoid(wrong)
    missed = t * miss
    sums = [t, miss - missed, missed]
    if ask.common:
        sums.append(t * torch.sigmoid(-wrong))
    if ask.gamma is not None:
        sums.append(faded(softplus(wrong), miss, ask.gamma))
    return _totals(sums, w, ask)


def _labels_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: Ask
) -> tuple[None, Tensor]:
    # d p / d x = p (1 - p), by the smaller of the two. The cost adds lift (1 - q), the way it errs.
    x, t = _dense(x, t, w, ask)
    on_false, on_missed, on_cost = prices_of(up, x, ask)
    price = torch.addcmul(on_false, t, on_false + on_missed, value=-1)
    dx = torch.ops.aten.sigmoid_backward(price, x.abs().neg_().sigmoid_())
    if ask.gamma is not None:
        way = sign(t)
        wrong = way * x
        miss = torch.sigmoid(wrong)
        lift = lift_of(miss, softplus(wrong), ask.gamma) * on_cost if ask.gamma else on_cost
        dx = dx.addcmul_(way.mul_(miss), lift)
    return None, dx if w is None else dx.mul_(w.to(dx.dtype))


LABELS = Formula(_labels_result, _labels_step)


# ----------------------------------------------------------------------------------- soft targets


def _shares_result(x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: Ask) -> Tensor:
    x, t = _dense(x, t, w, ask)
    p = of_softmax(x) if ask.softmax else of_sigmoid(x)
    error = torch.lerp(p.yes, -p.no, t)  # p - t
    sums = [t, torch.relu(error), torch.relu(-error)]
    if ask.common:
        sums.append(torch.where(error < 0, p.yes, t))
    if ask.gamma is not None:
        sums.append(nll(x, t) if p.nll is None else t * torch.where(t > 0, p.nll, 0.0))
    return _totals(sums, w, ask)


def _shares_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: Ask
) -> tuple[None, Tensor]:
    # The price u of p[c] is that of false where p > t, minus that of missed where p < t.
    # Through a sigmoid, d loss / d x = u p (1 - p), and the cost adds p - t. Through a softmax,
    # d loss / d z[c] = p[c] (u[c] (1 - p[c]) - sum of p u over the others), and the cost adds
    # p[c] (sum of t over the others) - t[c] (1 - p[c]).
    x, t = _dense(x, t, w, ask)
    on_false, on_missed, on_cost = prices_of(up, x, ask)
    yes, no, lead = of_softmax(x) if ask.softmax else of_sigmoid(x)
    error = torch.lerp(yes, -no, t)
    side = error.sign()
    u = torch.relu(side).mul_(on_false).sub_(torch.relu(-side).mul_(on_missed))
    dx = u.mul_(yes)
    if lead is None:
        dx = dx.mul_(no)
        if ask.gamma is not None:
            dx = dx.addcmul_(error, on_cost)
    else:
        below, above = others(dx, lead.at)
        beside = below + (above - dx)
        dx = dx.mul_(no).addcmul_(yes, beside, value=-1)
        if ask.gamma is not None:
            asked = t * on_cost
            below, above = others(asked, lead.at)
            dx = dx.addcmul_(yes, below + (above - asked)).addcmul_(asked, no, value=-1)
    return None, dx if w is None else dx.mul_(w.to(dx.dtype))


SHARES = Formula(_shares_result, _shares_step)


def _dense(x: Tensor, t: Tensor, w: Tensor | None, ask: Ask) -> tuple[Tensor, Tensor]:
    """Logits and target in one dtype, finite where the weight is 0."""
    t = t.to(x.dtype)
    return (cleared(x, w), cleared(t, w)) if ask.removes else (x, t)


def _totals(values: list[Tensor], w: Tensor | None, ask: Ask) -> Tensor:
    """Each of them summed over the pixels."""
    w = None if w is None else w.to(values[-1].dtype)
    return torch.stack([weighed(each, w).sum(2) for each in values], -1)
