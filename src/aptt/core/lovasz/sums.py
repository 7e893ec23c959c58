"""Errors at fixed prices: the sum of each class, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core import pixels
from aptt.core.engine import against_step, at_once, evaluate, obstacle
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import sign
from aptt.core.lovasz.errors import errors_of, hinge, softmax_errors
from aptt.core.lovasz.steps import (
    listed,
    steps_at_once,
    steps_by_class,
    steps_of,
    steps_together,
)
from aptt.core.marks import Pixels, by_class, cleared, mark, measure, of_class, pull, removes
from aptt.core.precision import widest

__all__ = ["lovasz_sums"]


def lovasz_sums(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """The loss of each class, over the batch or in each sample; differentiable in ``x``.

    ``absent`` is whether classes without foreground matter; their loss may be left at 0 if not.
    """
    if w is not None and w.ndim < x.ndim:
        w = w.unsqueeze(1)
    compiled, together = torch.compiler.is_compiling(), at_once(x)
    if (against_step(x, (w,)) if compiled else obstacle(x, (t, w))) is not None:
        return _plain(x, t, w, softmax=softmax, batch=batch)
    clears = removes(x, t, w)
    with torch.no_grad():
        if together:
            steps = steps_at_once(x.detach(), t, w, softmax=softmax, batch=batch, absent=absent)
        elif compiled:
            steps = steps_together(x.detach(), t, w, softmax=softmax, batch=batch)
        else:
            steps = steps_by_class(x, t, w, softmax=softmax, batch=batch, absent=absent)
    formula = (_SOFTMAX_AT_ONCE if together else _SOFTMAX) if softmax else _HINGE
    sums = evaluate(formula, x, t, steps, w, gather="samples", clears=clears)
    return (sums.sum(0) if batch else sums).to(steps.dtype)


def _plain(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool) -> Tensor:
    """The definition, differentiable in the weights too: all classes together."""
    e, h = errors_of(x, t, w, softmax=softmax)
    order, steps = steps_of(e.detach(), h, w, batch=batch)
    return (listed(e, batch).gather(-1, order) * steps).sum(-1).to(e.dtype)


def _softmax_stats(x: Tensor, y: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool) -> Kept:
    at = mark(y, w, x)
    x = cleared(x, w, at) if clears else x
    seen, others = measure(x, at)
    missed = by_class(seen.rest * seen.share * of_class(steps, at), at, x, widest(x))
    return ((others * seen.share).mul(steps).sum(2) + missed, *seen)


def _softmax_result(
    x: Tensor, kept: Kept, y: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> Tensor:
    return kept[0]


def _softmax_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> tuple[None, Tensor]:
    at = mark(y, w, x)
    x = cleared(x, w, at) if clears else x
    prices = steps * up.to(x.dtype).unsqueeze(2)
    missed = of_class(prices, at)
    return None, pull(x, at, Pixels(*kept[1:]), None, false=prices, missed=missed)


_SOFTMAX = Formula(_softmax_result, _softmax_step, _softmax_stats, block=2**19)


def _softmax_at_once_result(
    x: Tensor, kept: Kept, y: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> Tensor:
    return (softmax_errors(x, y, w) * steps).sum(2)


def _softmax_at_once_step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> tuple[None, Tensor]:
    at, prices = y.unsqueeze(1), steps * up.unsqueeze(2)
    _, p = pixels.seen(x, pixels.removed(w))
    return None, pixels.pull(p, at, pixels.put(prices, at, -prices.gather(1, at)))


_SOFTMAX_AT_ONCE = Formula(_softmax_at_once_result, _softmax_at_once_step)


def _hinge_result(
    x: Tensor, kept: Kept, t: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> Tensor:
    x, t = (cleared(x, w), cleared(t, w)) if clears else (x, t)
    return (hinge(x, t.to(x.dtype)) * steps).sum(2)


def _hinge_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> tuple[None, Tensor]:
    t = cleared(t, w) if clears else t
    return None, sign(t.to(x.dtype)) * steps * up.to(x.dtype).unsqueeze(2)


_HINGE = Formula(_hinge_result, _hinge_step)
