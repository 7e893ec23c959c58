"""How far soft predictions overlap their targets: sums for each sample and class, in one walk.

    common = sum of w * min(p, t)      prediction = sum of w * p      truth = sum of w * t

over the pixels, with p a softmax or a sigmoid, t in [0, 1] and pixel weights w. For hard targets
``min(p, t)`` is the product ``p t``; for soft ones it is the only one of the two that is largest
at p = t (Wang et al. 2023, arXiv:2302.05666, eq. 10, in a form that does not cancel).

With ``gamma`` a fourth sum, of what each pixel costs by itself, comes from the same walk:

    cost = sum of w * (1 - q)**gamma * -log q      q: probability of the right answer

which is cross-entropy (of soft targets too) at gamma 0, and focal above. A softmax counts it at the
class that is right, a sigmoid at its own.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``; weights ``(N, S)`` or
``(N, C, S)``, where 0 removes the pixel. Sums ``(N, C, 3)``, or ``(N, C, 4)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aptt.core.logistic import focal, nll, softplus, softplus_into
from aptt.core.softmax import margin, on_class_axis, shifted
from aptt.core.streaming import Formula, Work, evaluate, exp_

__all__ = ["overlap_sums"]


def overlap_sums(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, gamma: float | None = None
) -> Tensor:
    """The sums, streamed; differentiable in ``x``. Above 0, ``gamma`` wants hard targets."""
    formula = _DENSE if t.ndim == x.ndim else _INDEXED
    return evaluate(formula, x, t, w, gather="samples", softmax=softmax, gamma=gamma)


def _removed(x: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Logits that are finite wherever the weight is 0, and the weights against them."""
    if w is not None:
        w = w if w.ndim == x.ndim else w.unsqueeze(1)
        x = x.masked_fill(w == 0, 0.0)
    return x, w


def _indexed(
    x: Tensor, y: Tensor, w: Tensor | None, *, softmax: bool, gamma: float | None
) -> Tensor:
    x, w = _removed(x, w)
    classes = on_class_axis(torch.arange(x.shape[1], device=x.device), x)
    t = (classes == y.unsqueeze(1)).to(x.dtype)
    cost = None if gamma is None else t * focal(margin(x, y), gamma).unsqueeze(1)
    return _summed(torch.softmax(x, 1), t, w, cost)


def _dense(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, gamma: float | None) -> Tensor:
    x, w = _removed(x, w)
    t = t.to(x.dtype)
    if w is not None:
        t = t.masked_fill(w == 0, 0.0)
    cost = None
    if gamma is not None and softmax:
        cost = t * torch.where(t > 0, -torch.log_softmax(x, 1), 0.0)
    elif gamma:
        cost = focal((2 * t - 1) * x, gamma)
    elif gamma is not None:
        cost = nll(x, t)
    return _summed(torch.softmax(x, 1) if softmax else torch.sigmoid(x), t, w, cost)


def _summed(p: Tensor, t: Tensor, w: Tensor | None, cost: Tensor | None) -> Tensor:
    parts = (torch.minimum(p, t), p, t.expand_as(p), *(() if cost is None else (cost,)))
    sums = torch.stack(parts, dim=-1)
    return (sums if w is None else sums * w.unsqueeze(-1)).sum(2)


def _lift(miss: Tensor, cost: Tensor, gamma: float) -> Tensor:
    """Minus d cost / d margin over ``miss``, which is 1 - q."""
    if gamma == 0:
        return torch.ones_like(miss)
    tiny = torch.finfo(miss.dtype).tiny
    return miss**gamma * (1 + gamma * (1 - miss) * (cost / miss.clamp_min(tiny)))


# By hand. A mask is looked at only where that costs no host sync.


def _cleared(x: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if w is not None and x.device.type == "cpu" and bool(w.all()):
        return x, w if w.ndim == x.ndim else w.unsqueeze(1)
    return _removed(x, w)


def _indexed_forward(
    x: Tensor, work: Work, y: Tensor, w: Tensor | None, *, softmax: bool, gamma: float | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    # not torch.softmax, which first copies a block whose classes are apart
    x, w = _cleared(x, w)
    top, mine, rest = shifted(x, y, work)
    share = (rest + mine).reciprocal_()
    others = work("e", x).mul_(share if w is None else share * w)  # all but the right class
    right = mine * share
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # scatter adds one by one
    columns = 3 if gamma is None else 4
    sums = torch.zeros(columns, *x.shape[:2], dtype=wide, device=x.device)
    parts = {0: right, 2: torch.ones_like(share)}
    kept: tuple[Tensor, ...] = (top, share)
    if gamma is not None:
        miss = rest * share
        cost = (top - x.gather(1, y.unsqueeze(1))) + torch.log1p(rest + (mine - 1))
        parts[3] = cost * miss**gamma if gamma else cost
        kept = (top, share, miss)
    for column, part in parts.items():
        part = part if w is None else part * w
        sums[column].scatter_add_(1, y, part.squeeze(1).to(wide))
    sums[1] = others.sum(2) + sums[0]
    return sums.movedim(0, -1), kept


def _indexed_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    y: Tensor,
    w: Tensor | None,
    *,
    softmax: bool,
    gamma: float | None,
) -> None:
    # d / d z[c] = w p[c] (q[c] - sum of p q), q[c] = by_prediction[c] + [c = y] by_common[c];
    # the cost adds w by_cost[y] p[c] lift where c is not y, and takes w by_cost[y] miss lift at y
    x, w = _cleared(x, w)
    top, share, *more = kept
    p = exp_(torch.sub(x, top, out=work("e", x))).mul_(share)
    by_common, by_prediction = up[..., 0].to(x.dtype), up[..., 1:2].to(x.dtype)
    at = y.unsqueeze(1)
    mine = p.gather(1, at)
    extra = mine * by_common.gather(1, y).unsqueeze(1)
    mean = torch.bmm(by_prediction.transpose(1, 2), p).add_(extra)
    if w is not None:
        p.mul_(w)
    if gamma is None:
        torch.sub(by_prediction, mean, out=out).mul_(p)
        out.scatter_add_(1, at, extra if w is None else extra * w)
        return
    (miss,) = more
    lift = up[..., 3].to(x.dtype).gather(1, y).unsqueeze(1)
    if gamma:
        cost = (top - x.gather(1, at)) - share.log()
        lift = lift * _lift(miss, torch.where(miss < 0.5, -torch.log1p(-miss), cost), gamma)
    right = mine * (by_prediction.squeeze(2).gather(1, y).unsqueeze(1) - mean) + extra
    right -= lift * miss
    torch.sub(by_prediction, mean.sub_(lift), out=out).mul_(p)
    out.scatter_(1, at, right if w is None else right * w)


def _dense_forward(
    x: Tensor, work: Work, t: Tensor, w: Tensor | None, *, softmax: bool, gamma: float | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    x, w = _cleared(x, w)
    t = _known(t, w, work, x)
    p = torch.softmax(x, 1, out=work("p", x)) if softmax else torch.sigmoid(x, out=work("p", x))
    parts = [torch.minimum(p, t, out=work("both", x)), p, t]
    if gamma is not None:
        parts.append(_dense_cost(x, t, work, softmax=softmax, gamma=gamma))
    return torch.stack([_total(part, w) for part in parts], dim=-1), ()


def _total(part: Tensor, w: Tensor | None) -> Tensor:
    return (part if w is None else part * w).sum(2)


def _dense_cost(x: Tensor, t: Tensor, work: Work, *, softmax: bool, gamma: float) -> Tensor:
    cost = work("cost", x)
    if softmax:
        top = x.amax(1, keepdim=True)
        total = exp_(torch.sub(x, top, out=cost)).sum(1, keepdim=True)
        gap = torch.sub(top + total.log(), x, out=cost)
        return gap.masked_fill_(t == 0, 0.0).mul_(t)  # a masked class has an infinite gap
    if gamma:
        m = torch.mul(t, 2).sub_(1).mul_(x)
        cost = softplus_into(cost, -m)
        return cost.mul_(m.neg_().sigmoid_().pow_(gamma))
    # softplus(-|x|), and |x| as far as its sign is wrong: no difference of large numbers
    softplus_into(cost, x.abs().neg_())
    above = x.relu().masked_fill_(t == 1, 0.0)  # infinite logits: not 0 times infinity
    below = (-x).relu_().masked_fill_(t == 0, 0.0)
    return cost.add_(above.addcmul_(above, t, value=-1)).add_(below.mul_(t))


def _dense_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    w: Tensor | None,
    *,
    softmax: bool,
    gamma: float | None,
) -> None:
    x, w = _cleared(x, w)
    t = _known(t, w, work, x)
    p = torch.softmax(x, 1, out=work("p", x)) if softmax else torch.sigmoid(x, out=work("p", x))
    below = torch.sub(t, p, out=work("both", x)).sign_().add_(1)
    q = below.mul_(up[..., :1].to(x.dtype) / 2).add_(up[..., 1:2].to(x.dtype))
    if softmax:
        torch.mul(p, q, out=out)
        out.addcmul_(p, out.sum(1, keepdim=True), value=-1)
    else:
        torch.addcmul(p, p, p, value=-1, out=out).mul_(q)
    if gamma is not None:
        by_cost = up[..., 3:].to(x.dtype)
        if softmax:
            asked = torch.mul(t, by_cost, out=q)
            out.addcmul_(p, asked.sum(1, keepdim=True)).sub_(asked)
        elif gamma:
            sign = torch.mul(t, 2, out=q).sub_(1)
            miss = torch.sigmoid(-sign * x)
            out.sub_(sign.mul_(miss).mul_(_lift(miss, softplus(-(2 * t - 1) * x), gamma)) * by_cost)
        else:
            out.addcmul_(p.sub_(p * t).sub_(torch.sigmoid(-x).mul_(t)), by_cost)
    if w is not None:
        out.mul_(w)


def _known(t: Tensor, w: Tensor | None, work: Work, x: Tensor) -> Tensor:
    """The target in the dtype of the computation, finite wherever the weight is 0."""
    t = t if t.dtype == x.dtype else work("t", x).copy_(t)
    if w is None or (t.device.type == "cpu" and bool(t.isfinite().all())):
        return t
    return t.masked_fill(w == 0, 0.0)


_INDEXED = Formula(_indexed, _indexed_forward, _indexed_backward, block=2**20)
_DENSE = Formula(_dense, _dense_forward, _dense_backward, block=2**20)
