"""Of class indices and a softmax: in blocks or compiled, and all pixels at once.

Axes: logits ``(N, C, S)``, target ``(N, S)``; weights ``(N, 1, S)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core import pixels
from aptt.core.formula import Formula, Kept
from aptt.core.marks import (
    Pixels,
    by_class,
    cleared,
    in_memory,
    mark,
    measure,
    of_class,
    pull,
    weighed,
)
from aptt.core.overlap.cost import Ask, faded, lift_of, prices_of
from aptt.core.precision import widest
from aptt.core.softmax import Against, fading

__all__ = ["AT_ONCE", "INDICES"]


def _indices_stats(x: Tensor, y: Tensor, w: Tensor | None, *, ask: Ask) -> Kept:
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
        each.append(weighed(faded(cost, fading(wrong), ask.gamma), w))
        kept.append(cost)
    share, *each = in_memory(*each)
    truth, *each = (by_class(values, at, x, widest(x)) for values in (w, *each))
    return (torch.stack((truth, (others * share).sum(2), *each), -1).to(x.dtype), *kept)


def as_measured(x: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: Ask) -> Tensor:
    return kept[0]


def _indices_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: Ask
) -> tuple[None, Tensor]:
    at = mark(y, w, x)
    x = cleared(x, w, at) if ask.removes else x
    seen, (on_false, on_missed, on_cost) = Pixels(*kept[1:4]), prices_of(up, x, ask)
    missed, lift = of_class(on_missed.expand_as(x), at), None
    if ask.gamma is not None:
        lift = of_class(on_cost.expand_as(x), at)
        lift = lift * lift_of(seen.rest * seen.share, kept[4], ask.gamma) if ask.gamma else lift
    return None, pull(x, at, seen, w, false=on_false, missed=missed, lift=lift)


INDICES = Formula(as_measured, _indices_step, _indices_stats, block=2**19)


# ------------------------------------------------------------------ the same, all of them at once


def _at_once_stats(x: Tensor, y: Tensor, w: Tensor | None, *, ask: Ask) -> Kept:
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
        each.append(faded(cost, pixels.fading(miss, cost), ask.gamma))
        kept += [miss, cost] if ask.gamma else []
    of_class = pixels.by_class(others, at)
    truth = of_class(w) if w is not None and w.is_floating_point() else pixels.counts(y, w, x)
    sums = [truth, false, *(of_class(pixels.times(values, by)) for values in each)]
    return (torch.stack(sums, -1), *kept)


def _at_once_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, w: Tensor | None, *, ask: Ask
) -> tuple[None, Tensor]:
    at, by = y.unsqueeze(1), _weights(w, x, ask)
    on_false, on_missed, on_cost = prices_of(up, x, ask)
    _, p = pixels.seen(x, kept[1] if ask.removes else None)
    own = on_missed.expand_as(x).gather(1, at)
    if ask.gamma is None:
        own = -own
    else:  # p[y] may be too small to hold what the cost pulls at
        lift = on_cost.expand_as(x).gather(1, at)
        if ask.gamma:
            miss, nll = kept[-2:]
            lift = lift * lift_of(miss, nll, ask.gamma)
        own = torch.addcmul(lift, own, p.gather(1, at))
        p = pixels.put(p, at, -1.0)
    if by is None:
        prices = on_false.expand_as(p).contiguous()
    else:
        prices, own = on_false * by, own * by
    return None, pixels.pull(p, at, pixels.put(prices, at, own))


AT_ONCE = Formula(as_measured, _at_once_step, _at_once_stats)


def _weights(w: Tensor | None, x: Tensor, ask: Ask) -> Tensor | None:
    """By what to multiply; a mask that has removed what it removes weighs nothing."""
    if w is None or (w.dtype == torch.bool and ask.removes):
        return None
    return w.to(x.dtype)
