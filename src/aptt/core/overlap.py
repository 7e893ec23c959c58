"""How far soft predictions miss their targets: sums for each sample and class, in one walk.

    truth = sum of w * t      false = sum of w * relu(p - t)      missed = sum of w * relu(t - p)

over the pixels, with p a softmax or a sigmoid, t in [0, 1] and pixel weights w. What both have in
common is ``truth - missed = sum of w * min(p, t)``. For hard targets that is the product ``p t``;
for soft ones it is the only one of the two that is largest at p = t (Wang et al. 2023,
arXiv:2302.05666, eq. 10). The errors are summed, and not the overlap, so that nothing is a
difference of two nearly equal numbers however confident the pixels are. One more sum may come from
the same walk:

    common = sum of w * min(p, t)                  exact however little it is, for a logarithm
    cost   = sum of w * (1 - q)**gamma * -log q    q: probability of the right answer

The cost is cross-entropy (of soft targets too) at gamma 0, and focal above. A softmax counts it at
the class that is right, a sigmoid at its own.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``; weights ``(N, S)`` or
``(N, C, S)``, where 0 removes the pixel. Sums ``(N, C, 3)``, or ``(N, C, 4)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core import pixels
from aptt.core.chances import of_sigmoid, of_softmax
from aptt.core.engine import at_once, evaluate
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import nll, power, sign, softplus
from aptt.core.marks import (
    Pixels,
    by_class,
    cleared,
    in_memory,
    mark,
    measure,
    of_class,
    pull,
    removes,
    weighed,
)
from aptt.core.ordinary import is_readable
from aptt.core.precision import widest
from aptt.core.softmax import Against, fading, on_class_axis, others

__all__ = ["overlap_sums"]


class _Ask(NamedTuple):
    softmax: bool
    gamma: float | None
    common: bool
    removes: bool
    """Whether something may be infinite or NaN where a weight is 0."""


def overlap_sums(
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    *,
    softmax: bool,
    gamma: float | None = None,
    common: bool = False,
) -> Tensor:
    """Truth, false, missed, and then common or cost if it is asked for; differentiable in ``x``.

    Above 0, ``gamma`` wants hard targets.
    """
    if softmax and t.ndim == x.ndim and not t.requires_grad and _is_hard(t):
        t = _indices(t)
    if t.ndim < x.ndim:
        formula = _AT_ONCE if at_once(x) else _INDICES
    elif softmax or not (gamma or _is_hard(t)):
        formula = _SHARES
    else:
        formula = _LABELS
    if w is not None and w.ndim < x.ndim:
        w = w.unsqueeze(1)
    ask = _Ask(softmax, gamma, common, removes(x, t, w))
    return evaluate(formula, x, t, w, gather="samples", ask=ask)


def _is_hard(t: Tensor) -> bool:
    """Whether a target from 0 to 1 is 0 or 1, as far as looking costs no host sync."""
    if not t.is_floating_point():
        return True
    parts = t.reshape(-1).split(2**17) if is_readable(t) else ()  # that stay in the cache
    return bool(parts) and all(
        bool(torch.addcmul(part, part, part, value=-1).sum() == 0) for part in parts
    )


def _indices(t: Tensor) -> Tensor:
    """The classes of a hard target; itself where a pixel has none or several."""
    if bool((t.sum(1) != 1).any()):
        return t
    return (t * on_class_axis(torch.arange(t.shape[1], dtype=t.dtype), t)).sum(1).long()


# ------------------------------------------------------------------- class indices, of a softmax


def _indices_stats(x: Tensor, y: Tensor, w: Tensor | None, *, ask: _Ask) -> Kept:
    """The sums, and what the gradient needs: three numbers a pixel, or four."""
    at = mark(y, w, x)
    x = cleared(x, w, at) if ask.removes else x
    seen, others = measure(x, at)
    share = seen.share
    miss = seen.rest * share
    kept, each = [*seen], [weighed(share, w), weighed(miss, w)]
    if ask.common:
        each.append(weighed(seen.mine * share, w))
    if ask.gamma is not None:
        wrong = Against.of(seen.top, seen.rest, of_class(x, at))
        cost = wrong.nll
        each.append(weighed(_faded(cost, fading(wrong), ask.gamma), w))
        kept.append(cost)
    share, *each = in_memory(*each)
    truth, *each = (by_class(values, at, x, widest(x)) for values in (w, *each))
    return (torch.stack((truth, (others * share).sum(2), *each), -1).to(x.dtype), *kept)


def _sums(x: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: _Ask) -> Tensor:
    return kept[0]


def _indices_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: _Ask
) -> tuple[None, Tensor]:
    at = mark(y, w, x)
    x = cleared(x, w, at) if ask.removes else x
    seen, (false, missed, cost) = Pixels(*kept[1:4]), _prices(up, x, ask)
    missed, lift = of_class(missed.expand_as(x), at), None
    if ask.gamma is not None:
        lift = of_class(cost.expand_as(x), at)
        lift = lift * _lift(seen.rest * seen.share, kept[4], ask.gamma) if ask.gamma else lift
    return None, pull(x, at, seen, w, false=false, missed=missed, lift=lift)


_INDICES = Formula(_sums, _indices_step, _indices_stats, block=2**19)


# ------------------------------------------------------------------ the same, all of them at once


def _at_once_stats(x: Tensor, y: Tensor, w: Tensor | None, *, ask: _Ask) -> Kept:
    """The sums, and what the gradient needs: what is removed, two numbers a pixel if it fades."""
    at, by = y.unsqueeze(1), _weights(w, x, ask)
    gone = pixels.removed(w) if ask.removes else None
    x, p = pixels.seen(x, gone)
    right = p.gather(1, at) if ask.common else None
    others = pixels.put(p, at, 0.0)
    miss, false = others.sum(1, keepdim=True), pixels.times(others, by).sum(2)
    if right is not None and torch.is_grad_enabled():  # autograd of a sure one cancels
        right = torch.where(right > 0.5, 1 - miss, right)
    each, kept = [miss], [] if gone is None else [gone]
    if right is not None:
        each.append(right)
    if ask.gamma is not None:
        cost = pixels.left(pixels.nll(x, at, miss), gone)
        each.append(_faded(cost, pixels.fading(miss, cost), ask.gamma))
        kept += [miss, cost] if ask.gamma else []
    of_class = pixels.by_class(others, at)
    truth = of_class(w) if w is not None and w.is_floating_point() else pixels.counts(y, w, x)
    sums = [truth, false, *(of_class(pixels.times(values, by)) for values in each)]
    return (torch.stack(sums, -1), *kept)


def _at_once_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: _Ask
) -> tuple[None, Tensor]:
    at, by, (false, missed, cost) = y.unsqueeze(1), _weights(w, x, ask), _prices(up, x, ask)
    _, p = pixels.seen(x, kept[1] if ask.removes else None)
    own = missed.expand_as(x).gather(1, at)
    if ask.gamma is None:
        own = -own
    else:  # p[y] may be too small to hold what the cost pulls at
        lift = cost.expand_as(x).gather(1, at)
        if ask.gamma:
            miss, nll = kept[-2:]
            lift = lift * _lift(miss, nll, ask.gamma)
        own = torch.addcmul(lift, own, p.gather(1, at))
        p = pixels.put(p, at, -1.0)
    if by is None:
        prices = false.expand_as(p).contiguous()
    else:
        prices, own = false * by, own * by
    return None, pixels.pull(p, at, pixels.put(prices, at, own))


_AT_ONCE = Formula(_sums, _at_once_step, _at_once_stats)


# ----------------------------------------------------------------- labels of 0 and 1, of a sigmoid


def _labels_result(x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: _Ask) -> Tensor:
    x, t = _dense(x, t, w, ask)
    wrong = sign(t) * x
    miss = torch.sigmoid(wrong)
    missed = t * miss
    sums = [t, miss - missed, missed]
    if ask.common:
        sums.append(t * torch.sigmoid(-wrong))
    if ask.gamma is not None:
        sums.append(_faded(softplus(wrong), miss, ask.gamma))
    return _totals(sums, w, ask)


def _labels_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: _Ask
) -> tuple[None, Tensor]:
    # d p / d x = p (1 - p), by the smaller of the two. The cost adds lift (1 - q), the way it errs.
    x, t = _dense(x, t, w, ask)
    by_false, by_missed, by_cost = _prices(up, x, ask)
    price = torch.addcmul(by_false, t, by_false + by_missed, value=-1)
    dx = torch.ops.aten.sigmoid_backward(price, x.abs().neg_().sigmoid_())
    if ask.gamma is not None:
        way = sign(t)
        wrong = way * x
        miss = torch.sigmoid(wrong)
        lift = _lift(miss, softplus(wrong), ask.gamma) * by_cost if ask.gamma else by_cost
        dx = dx.addcmul_(way.mul_(miss), lift)
    return None, dx if w is None else dx.mul_(w.to(dx.dtype))


_LABELS = Formula(_labels_result, _labels_step)


# ------------------------------------------------------------- soft targets, of either of the two


def _shares_result(x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: _Ask) -> Tensor:
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
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, ask: _Ask
) -> tuple[None, Tensor]:
    # The price u of p[c] is that of false where p > t, minus that of missed where p < t.
    # Through a sigmoid, d loss / d x = u p (1 - p), and the cost adds p - t. Through a softmax,
    # d loss / d z[c] = p[c] (u[c] (1 - p[c]) - sum of p u over the others), and the cost adds
    # p[c] (sum of t over the others) - t[c] (1 - p[c]).
    x, t = _dense(x, t, w, ask)
    by_false, by_missed, by_cost = _prices(up, x, ask)
    yes, no, lead = of_softmax(x) if ask.softmax else of_sigmoid(x)
    error = torch.lerp(yes, -no, t)
    side = error.sign()
    u = torch.relu(side).mul_(by_false).sub_(torch.relu(-side).mul_(by_missed))
    dx = u.mul_(yes)
    if lead is None:
        dx = dx.mul_(no)
        if ask.gamma is not None:
            dx = dx.addcmul_(error, by_cost)
    else:
        below, above = others(dx, lead.at)
        beside = below + (above - dx)
        dx = dx.mul_(no).addcmul_(yes, beside, value=-1)
        if ask.gamma is not None:
            asked = t * by_cost
            below, above = others(asked, lead.at)
            dx = dx.addcmul_(yes, below + (above - asked)).addcmul_(asked, no, value=-1)
    return None, dx if w is None else dx.mul_(w.to(dx.dtype))


_SHARES = Formula(_shares_result, _shares_step)


# -------------------------------------------------------------------------------- what they share


def _dense(x: Tensor, t: Tensor, w: Tensor | None, ask: _Ask) -> tuple[Tensor, Tensor]:
    """Logits and target in one dtype, finite where the weight is 0."""
    t = t.to(x.dtype)
    return (cleared(x, w), cleared(t, w)) if ask.removes else (x, t)


def _weights(w: Tensor | None, x: Tensor, ask: _Ask) -> Tensor | None:
    """By what to multiply; a mask that has removed what it removes weighs nothing."""
    if w is None or (w.dtype == torch.bool and ask.removes):
        return None
    return w.to(x.dtype)


def _totals(values: list[Tensor], w: Tensor | None, ask: _Ask) -> Tensor:
    """Each of them summed over the pixels."""
    w = None if w is None else w.to(values[-1].dtype)
    return torch.stack([weighed(each, w).sum(2) for each in values], -1)


def _prices(up: Tensor, x: Tensor, ask: _Ask) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of what is false, of what is missed, and of the cost: ``(N, C, 1)`` each."""
    _, false, missed, *more = up.to(x.dtype).unsqueeze(2).unbind(-1)
    if ask.common:  # which grows as that which is missed falls
        missed = missed - more[0]
    return false, missed, more[0] if more else missed


def _faded(nll: Tensor, miss: Tensor, gamma: float) -> Tensor:
    """The cost of each pixel; ``miss`` is 1 - q."""
    return power(miss, gamma) * nll if gamma else nll


def _lift(miss: Tensor, nll: Tensor, gamma: float) -> Tensor:
    """Minus its slope by the log-odds of q, over ``miss``; 1 at gamma 0."""
    tiny = torch.finfo(miss.dtype).tiny
    return power(miss, gamma) * (1 + gamma * (1 - miss) * (nll / miss.clamp(min=tiny)))
