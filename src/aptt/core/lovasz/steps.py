"""What each error adds, in falling order: of all classes at once, or class by class.

Axes: logits and steps ``(N, C, S)``; what is sorted together lies on the last axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.lovasz.errors import errors_of, hinge, levels, softmax_errors
from aptt.core.marks import cleared
from aptt.core.precision import widen, widest
from aptt.core.softmax import exp_of_gaps_, on_class_axis

__all__ = ["listed", "steps_at_once", "steps_by_class", "steps_of", "steps_together"]

_CHUNK = 2**17  # of the sorted pixels: what is summed along them fits the cache


def steps_at_once(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """What each error adds, where it stands; of all classes at once.

    Sums along the order are of integers, the same in any order of addition: weights are counted in
    parts of the largest so small that all of them still fit. What is removed errs by 0, and so
    comes last, where nothing depends on it.
    """
    x = widen(x)
    if softmax:
        e = softmax_errors(x, t, w)
        h = on_class_axis(torch.arange(x.shape[1], device=x.device), x) == t.unsqueeze(1)
    else:
        h = t != 0
        e = cleared(hinge(x, h.to(x.dtype)), w)
    h = h if w is None else h & (w != 0)
    falling, order = _falling(listed(e, batch))
    h, n = listed(h, batch).gather(-1, order), order.shape[-1]
    if w is None or w.dtype == torch.bool:
        size: Tensor | int = 1
        whole = torch.int32 if n < 2**31 else torch.int64
        hits, seen = h.cumsum(-1, dtype=whole), torch.arange(1, n + 1, dtype=whole, device=x.device)
    else:
        parts = w * (2.0 ** (62 - n.bit_length()) / w.amax().clamp(min=torch.finfo(w.dtype).tiny))
        size = listed(parts.round().long().clamp(min=1).expand_as(e), batch).gather(-1, order)
        hits, seen = torch.where(h, size, 0).cumsum(-1), size.cumsum(-1)
    total = hits[..., -1:]
    left = total.clamp(min=1) - hits  # a class without foreground is to be finite, if nothing else
    union = left + seen
    steps = torch.where(h, 1.0, left.to(x.dtype) / (union - size))
    steps = (steps * size if isinstance(size, Tensor) else steps).div_(union)
    if absent:  # its first error takes all
        steps = torch.where(total == 0, seen == size, steps)
    if not softmax:  # where nothing is wrong nothing is pulled
        steps = steps.mul_(falling > 0)
    steps = torch.empty_like(steps).scatter_(-1, order, steps)
    return _placed(steps, e) if batch else steps


def steps_together(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool) -> Tensor:
    """What each error adds, where it stands; of all classes at once, for a compiler."""
    e, h = errors_of(x, t, w, softmax=softmax)
    order, steps = steps_of(e, h, w, batch=batch)
    steps = torch.empty_like(steps, dtype=e.dtype).scatter(-1, order, steps.to(e.dtype))
    steps = _placed(steps, e) if batch else steps
    return torch.where(e > 0, steps, 0.0)  # where nothing is wrong nothing is pulled


def steps_by_class(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """The same, class by class. One without foreground has steps of 0, unless ``absent``."""
    samples, classes = x.shape[:2]
    dtype = widen(x[:0]).dtype
    steps = x.new_empty(x.shape, dtype=dtype)
    level = levels(x, t) if softmax else None
    for some in [slice(None)] if batch else [slice(n, n + 1) for n in range(samples)]:
        for c in range(classes):
            h = t[some] == c if softmax else t[some, c] != 0
            by = None if w is None else w[some, c if w.shape[1] > 1 else 0]
            z = x[some, c].to(dtype)
            if level is None:
                e = hinge(z, h.to(dtype))
            else:
                top, share, miss = (a[some] for a in level)
                e = torch.lerp(exp_of_gaps_(z - top).mul_(share), miss, h.to(dtype))
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
    falling, order = _falling(e)
    total = (h if w is None else torch.where(h, w, 0.0)).sum(dtype=widest(e)).unsqueeze(0)
    out, hit, false = torch.empty_like(e), torch.zeros_like(total), torch.zeros_like(total)
    for some, at in zip(falling.split(_CHUNK), order.split(_CHUNK), strict=True):
        by = None if w is None else w.gather(0, at)
        steps, hit, false = _steps(h.gather(0, at), by, total, hit, false)
        out.scatter_(0, at, steps.to(e.dtype).mul_(some > 0))
    return out


def steps_of(e: Tensor, h: Tensor, w: Tensor | None, *, batch: bool) -> tuple[Tensor, Tensor]:
    """The errors' falling order, and what each of them adds, in it."""
    order = _falling(listed(e, batch))[1]
    by = None  # of a mask: what it removes errs by 0, and comes last
    if w is not None and w.is_floating_point():
        by = listed(w.expand_as(e), batch).gather(-1, order)
    h = listed(h, batch).gather(-1, order)
    total = (h if by is None else torch.where(h, by, 0.0)).sum(-1, keepdim=True, dtype=widest(e))
    return order, _steps(h, by, total, torch.zeros_like(total), torch.zeros_like(total))[0]


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


def _falling(e: Tensor) -> tuple[Tensor, Tensor]:
    """Errors from the largest to the smallest, the first of equals first; and where they were."""
    if e.device.type != "cpu":
        return e.sort(descending=True, stable=True)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[e.dtype]
    largest = e.new_full((), torch.inf).view(bits)
    keys, order = torch.sub(largest, e.contiguous().view(bits)).sort(stable=True)
    return torch.sub(largest, keys).view(e.dtype), order


def listed(a: Tensor, batch: bool) -> Tensor:
    """The pixels that are sorted together, on the last axis."""
    return a.transpose(0, 1).flatten(1) if batch else a


def _placed(a: Tensor, like: Tensor) -> Tensor:
    """The pixels that were :func:`listed`, where they were."""
    return a.view(like.shape[1], like.shape[0], like.shape[2]).transpose(0, 1)
