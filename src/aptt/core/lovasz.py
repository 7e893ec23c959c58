"""The Lovasz extension of the Jaccard loss: errors in falling order, each at what it adds.

    loss = sum over k of e[k] * (J[k] - J[k - 1])      e falling, J[k] = 1 - I[k] / U[k]

where J[k] is the Jaccard loss of a prediction that errs in the first k pixels. The steps are formed
without the difference, exact for any number of pixels:

    J[k] - J[k - 1] = w / U[k]   (foreground)      w I[k] / (U[k - 1] U[k])   (background)

The order does not change where the loss has a gradient, so the steps are constants there: they are
found first, one for each logit, and what is left is a sum of errors at fixed prices. Errors are not
negative, and ordered by their bits: integers sort faster. In blocks, on a CPU, that is done class
by class; elsewhere of all classes at once.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices of a softmax, or ``(N, C, S)`` of 0 and
1; weights ``(N, S)``, ``(N, 1, S)`` or ``(N, C, S)``, where 0 removes the pixel. Results ``(C,)``,
``(N, C)``. From: Berman et al. 2018, arXiv:1705.08790, eq. 8 and 9, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core import pixels
from aptt.core.engine import against_step, at_once, evaluate, obstacle
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import sign
from aptt.core.marks import Pixels, by_class, cleared, mark, measure, of_class, pull, removes
from aptt.core.precision import widen, widest
from aptt.core.softmax import exp_of_gaps, on_class_axis

__all__ = ["lovasz_sums"]

_CHUNK = 2**17  # of the sorted pixels: what is summed along them fits the cache


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
            steps = _steps_at_once(x.detach(), t, w, softmax=softmax, batch=batch, absent=absent)
        elif compiled:
            steps = _steps_together(x.detach(), t, w, softmax=softmax, batch=batch)
        else:
            steps = _steps_by_class(x, t, w, softmax=softmax, batch=batch, absent=absent)
    formula = (_SOFTMAX_AT_ONCE if together else _SOFTMAX) if softmax else _HINGE
    sums = evaluate(formula, x, t, steps, w, gather="samples", clears=clears)
    return (sums.sum(0) if batch else sums).to(steps.dtype)


def _plain(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool) -> Tensor:
    """The definition, differentiable in the weights too: all classes together."""
    e, h = _errors(x, t, w, softmax=softmax)
    order, steps = _steps_of(e.detach(), h, w, batch=batch)
    return (_listed(e, batch).gather(-1, order) * steps).sum(-1).to(e.dtype)


# --------------------------------------------------------------------------- errors at their steps


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
    return (_softmax_errors(x, y, w) * steps).sum(2)


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
    return (_hinge(x, t.to(x.dtype)) * steps).sum(2)


def _hinge_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, steps: Tensor, w: Tensor | None, *, clears: bool
) -> tuple[None, Tensor]:
    t = cleared(t, w) if clears else t
    return None, sign(t.to(x.dtype)) * steps * up.to(x.dtype).unsqueeze(2)


_HINGE = Formula(_hinge_result, _hinge_step)


def _hinge(x: Tensor, h: Tensor) -> Tensor:
    return torch.relu(1 + sign(h) * x)


# --------------------------------------------------------------------------------------- the steps


def _errors(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool) -> tuple[Tensor, Tensor]:
    """By how much each pixel errs, ``|h - p|`` or the hinge of its logit; and h, as a mask."""
    x = cleared(widen(x), w)
    if softmax:
        at = mark(t, None, x)
        seen, others = measure(x, at)
        h = on_class_axis(torch.arange(x.shape[1], device=x.device), x) == t.unsqueeze(1)
        e = torch.where(h, seen.rest * seen.share, others * seen.share)
    else:
        h = t != 0
        e = _hinge(x, h.to(x.dtype))
    return cleared(e, w), h if w is None else h & (w != 0)


def _softmax_errors(x: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
    """``|h - p|``, and 0 where the weight is."""
    at = y.unsqueeze(1)
    _, p = pixels.seen(x, pixels.removed(w))
    others = pixels.put(p, at, 0.0)
    return pixels.put(others, at, others.sum(1, keepdim=True))


def _steps_at_once(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """What each error adds, where it stands; of all classes at once.

    Sums along the order are of integers, the same in any order of addition: weights are counted in
    parts of the largest so small that all of them still fit. What is removed errs by 0, and so
    comes last, where nothing depends on it.
    """
    x = widen(x)
    if softmax:
        e = _softmax_errors(x, t, w)
        h = on_class_axis(torch.arange(x.shape[1], device=x.device), x) == t.unsqueeze(1)
    else:
        h = t != 0
        e = cleared(_hinge(x, h.to(x.dtype)), w)
    h = h if w is None else h & (w != 0)
    errors, order = _falling(_listed(e, batch))
    h, n = _listed(h, batch).gather(-1, order), order.shape[-1]
    if w is None or w.dtype == torch.bool:
        size: Tensor | int = 1
        whole = torch.int32 if n < 2**31 else torch.int64
        hits, seen = h.cumsum(-1, dtype=whole), torch.arange(1, n + 1, dtype=whole, device=x.device)
    else:
        parts = w * (2.0 ** (62 - n.bit_length()) / w.amax().clamp(min=torch.finfo(w.dtype).tiny))
        size = _listed(parts.round().long().clamp(min=1).expand_as(e), batch).gather(-1, order)
        hits, seen = torch.where(h, size, 0).cumsum(-1), size.cumsum(-1)
    total = hits[..., -1:]
    left = total.clamp(min=1) - hits  # a class without foreground is to be finite, if nothing else
    union = left + seen
    steps = torch.where(h, 1.0, left.to(x.dtype) / (union - size))
    steps = (steps * size if isinstance(size, Tensor) else steps).div_(union)
    if absent:  # its first error takes all
        steps = torch.where(total == 0, seen == size, steps)
    if not softmax:  # where nothing is wrong nothing is pulled
        steps = steps.mul_(errors > 0)
    steps = torch.empty_like(steps).scatter_(-1, order, steps)
    return _placed(steps, e) if batch else steps


def _placed(a: Tensor, like: Tensor) -> Tensor:
    """The pixels that were :func:`_listed`, where they were."""
    return a.view(like.shape[1], like.shape[0], like.shape[2]).transpose(0, 1)


def _steps_of(e: Tensor, h: Tensor, w: Tensor | None, *, batch: bool) -> tuple[Tensor, Tensor]:
    """The errors' falling order, and what each of them adds, in it."""
    order = _falling(_listed(e, batch))[1]
    by = None  # of a mask: what it removes errs by 0, and comes last
    if w is not None and w.is_floating_point():
        by = _listed(w.expand_as(e), batch).gather(-1, order)
    h = _listed(h, batch).gather(-1, order)
    total = (h if by is None else torch.where(h, by, 0.0)).sum(-1, keepdim=True, dtype=widest(e))
    return order, _steps(h, by, total, torch.zeros_like(total), torch.zeros_like(total))[0]


def _steps_together(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool
) -> Tensor:
    """What each error adds, where it stands; of all classes at once, for a compiler."""
    e, h = _errors(x, t, w, softmax=softmax)
    order, steps = _steps_of(e, h, w, batch=batch)
    steps = torch.empty_like(steps, dtype=e.dtype).scatter(-1, order, steps.to(e.dtype))
    steps = _placed(steps, e) if batch else steps
    return torch.where(e > 0, steps, 0.0)  # where nothing is wrong nothing is pulled


def _steps_by_class(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """The same, class by class; where nothing of a class is ``absent``, it may have no steps."""
    samples, classes = x.shape[:2]
    dtype = widen(x[:0]).dtype
    steps = x.new_empty(x.shape, dtype=dtype)
    level = _levels(x, t) if softmax else None
    for some in [slice(None)] if batch else [slice(n, n + 1) for n in range(samples)]:
        for c in range(classes):
            h = t[some] == c if softmax else t[some, c] != 0
            by = None if w is None else w[some, c if w.shape[1] > 1 else 0]
            z = x[some, c].to(dtype)
            if level is None:
                e = _hinge(z, h.to(dtype))
            else:
                top, share, miss = (a[some] for a in level)
                e = torch.lerp(exp_of_gaps(z - top).mul_(share), miss, h.to(dtype))
            if by is not None:
                gone = by == 0
                e, h = e.masked_fill_(gone, 0.0), h & ~gone
            if not absent and not bool(h.any()):
                steps[some, c] = 0.0
            else:
                flat = by.reshape(-1) if by is not None and by.is_floating_point() else None
                steps[some, c] = _steps_of_list(e.reshape(-1), h.reshape(-1), flat).view(h.shape)
    return steps


def _steps_of_list(e: Tensor, h: Tensor, w: Tensor | None) -> Tensor:
    errors, order = _falling(e)
    total = (h if w is None else torch.where(h, w, 0.0)).sum(dtype=widest(e)).unsqueeze(0)
    out, hit, false = torch.empty_like(e), torch.zeros_like(total), torch.zeros_like(total)
    for near, at in zip(errors.split(_CHUNK), order.split(_CHUNK), strict=True):
        by = None if w is None else w.gather(0, at)
        steps, hit, false = _steps(h.gather(0, at), by, total, hit, false)
        out.scatter_(0, at, steps.to(e.dtype).mul_(near > 0))
    return out


def _steps(
    h: Tensor, w: Tensor | None, total: Tensor, hit: Tensor, false: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each error adds, in falling order; and the foreground and background up to here.

    ``total`` is all foreground, ``hit`` and ``false`` are what came before these pixels. Without
    any foreground the first error takes all.
    """
    tiny = torch.finfo(total.dtype).tiny
    if w is None:  # counted in integers, the same in any order of addition
        mine = h.to(total.dtype)
        others, hits = 1 - mine, h.cumsum(-1)
        misses = torch.arange(1, h.shape[-1] + 1, device=h.device) - hits
    else:
        w = w.to(total.dtype)
        mine = torch.where(h, w, 0.0)
        others = w - mine
        hits, misses = mine.cumsum(-1), others.cumsum(-1)
    left, union = (total - hit) - hits, (total + false) + misses
    before = union - others
    across = torch.where(before > 0, left / before.clamp(min=tiny), 1.0)
    steps = (mine + others * across) / union.clamp(min=tiny)
    return steps, hit + mine.sum(-1, keepdim=True), false + others.sum(-1, keepdim=True)


def _levels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit of each pixel, 1 over the sum of ``exp(z - top)``, and ``1 - p[y]``."""
    top = widen(x.amax(1))
    mine = exp_of_gaps(x.gather(1, y.unsqueeze(1)).squeeze(1).to(top.dtype) - top)
    rest = torch.zeros_like(top)
    for c in range(x.shape[1]):
        rest += exp_of_gaps(x[:, c].to(top.dtype) - top).mul_(y != c)
    share = (rest + mine).reciprocal_()
    return top, share, rest.mul_(share)


def _falling(e: Tensor) -> tuple[Tensor, Tensor]:
    """Errors from the largest to the smallest, the first of equals first; and where they were."""
    if e.device.type != "cpu":
        return e.sort(descending=True, stable=True)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[e.dtype]
    largest = e.new_full((), torch.inf).view(bits)
    keys, order = torch.sub(largest, e.contiguous().view(bits)).sort(stable=True)
    return torch.sub(largest, keys).view(e.dtype), order


def _listed(a: Tensor, batch: bool) -> Tensor:
    """The pixels that are sorted together, on the last axis."""
    return a.transpose(0, 1).flatten(1) if batch else a
