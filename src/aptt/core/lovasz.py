"""The Lovasz extension of the Jaccard loss: errors in falling order, each at what it adds.

    loss = sum over k of e[k] * (J[k] - J[k - 1])      e falling, J[k] = 1 - I[k] / U[k]

where J[k] is the Jaccard loss of a prediction that errs in the first k pixels. The steps are formed
without the difference, exact for any number of pixels:

    J[k] - J[k - 1] = w / U[k]   (foreground)      w I[k] / (U[k - 1] U[k])   (background)

The plain form sorts all classes together. The other walks class by class, keeps one slope for each
logit, and orders the errors, which are not negative, by their bits: integers sort faster.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)`` of 0 and 1; weights
``(N, S)``, ``(N, 1, S)`` or ``(N, C, S)``, where 0 removes the pixel. Results ``(C,)``, ``(N, C)``.
From: Berman et al. 2018, arXiv:1705.08790, eq. 8 and 9, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aptt.core.softmax import on_class_axis
from aptt.core.streaming import Formula, Work, _blocks, _Run, batched, exp_, streams, widen

__all__ = ["lovasz_sums"]

_CHUNK = 2**17  # of the sorted pixels: what is summed along them fits the cache


def lovasz_sums(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool, absent: bool
) -> Tensor:
    """The loss of each class, over the batch or in each sample; differentiable in ``x``.

    ``absent`` is whether classes without foreground matter; their loss may be left at 0 if not.
    """
    if w is not None:
        w = w if w.ndim == x.ndim else w.unsqueeze(1)
    if not streams(x, (t, w)):
        return _plain(x, t, w, softmax=softmax, batch=batch)
    learns = torch.is_grad_enabled() and x.requires_grad
    values: Tensor = _Sorted.apply(x, t, w, softmax, batch, absent, learns)
    return values


def _plain(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, batch: bool) -> Tensor:
    x = widen(x)
    if t.ndim < x.ndim:
        t = on_class_axis(torch.arange(x.shape[1], device=x.device), x) == t.unsqueeze(1)
    h = (t != 0).to(x.dtype)
    w = torch.ones_like(x[:, :1]) if w is None else w
    x, h = x.masked_fill(w == 0, 0.0), h.masked_fill(w == 0, 0.0)
    e = _errors(torch.softmax(x, 1) if softmax else x, h, softmax=softmax)
    lists = [a.expand_as(x) for a in (e, h, w)]
    if batch:
        lists = [a.transpose(0, 1).flatten(1) for a in lists]
    order = lists[0].sort(dim=-1, descending=True, stable=True)[1]
    e, h, w = (a.gather(-1, order) for a in lists)
    total = (h * w).to(_widest(x)).sum(-1, keepdim=True)
    steps, _, _ = _steps(h, w, total, torch.zeros_like(total), torch.zeros_like(total))
    return (e * steps).sum(-1).to(x.dtype)


def _widest(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _errors(z: Tensor, h: Tensor, *, softmax: bool) -> Tensor:
    """By how much each pixel errs: ``|h - p|``, or the hinge of the logit. Never negative."""
    return torch.where(h > 0, 1 - z, z) if softmax else torch.relu(1 - z * (2 * h - 1))


def _steps(
    h: Tensor, w: Tensor, total: Tensor, hit: Tensor, false: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each error adds, in falling order; and the foreground and background up to here.

    ``total`` is all foreground, ``hit`` and ``false`` are what came before these pixels. Without
    any foreground the first error takes all.
    """
    w, tiny = w.to(total.dtype), torch.finfo(total.dtype).tiny
    mine, others = h * w, (1 - h) * w
    left = total - (hit + mine.cumsum(-1))
    union = total + (false + others.cumsum(-1))
    before = union - others
    across = torch.where(before > 0, left / before.clamp_min(tiny), 1)
    steps = (mine + others * across) / union.clamp_min(tiny)
    return steps, hit + mine.sum(-1, keepdim=True), false + others.sum(-1, keepdim=True)


def _falling(e: Tensor) -> tuple[Tensor, Tensor]:
    """Errors from the largest to the smallest, the first of equals first; and where they were."""
    if e.device.type != "cpu":
        return e.sort(descending=True, stable=True)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[e.dtype]
    largest = torch.tensor(torch.inf, dtype=e.dtype).view(bits)
    keys, order = torch.sub(largest, e.view(bits)).sort(stable=True)
    return torch.sub(largest, keys, out=keys).view(e.dtype), order


class _Sorted(torch.autograd.Function):
    """Class by class forward; the slopes through the softmax backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        t: Tensor,
        w: Tensor | None,
        softmax: bool,
        batch: bool,
        absent: bool,
        learns: bool,
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            values, slopes = _walk(x, t, w, softmax, batch, absent, learns)
        ctx.way = softmax, batch
        ctx.save_for_backward(x, t, w, slopes)
        return values

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        x, t, w, slopes = ctx.saved_tensors
        softmax, batch = ctx.way
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                value = _plain(x, t, w, softmax=softmax, batch=batch)
            (grad,) = torch.autograd.grad(value, x, up, create_graph=again)
        else:
            run = _Run(_SLOPES, "samples", {"softmax": softmax})
            grad = run.walk_back(x, None, (slopes, w), (), up.expand(x.shape[:2]))
        return grad, None, None, None, None, None, None


def _walk(
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    softmax: bool,
    batch: bool,
    absent: bool,
    learns: bool,
) -> tuple[Tensor, Tensor | None]:
    samples, classes = x.shape[:2]
    dtype = widen(x[:0]).dtype
    pools = 1 if batch else samples
    values = torch.zeros(pools, classes, dtype=dtype, device=x.device)
    slopes = torch.empty(x.shape, dtype=dtype, device=x.device) if learns else None
    norms = _norms(x, w) if softmax else None
    for i in range(pools):
        some = slice(None) if batch else slice(i, i + 1)
        for c in range(classes):
            z = widen(x[some, c])
            h = (t[some] == c if t.ndim == 2 else t[some, c] != 0).to(dtype)
            v = None if w is None else w[some, c if w.shape[1] > 1 else 0]
            if v is not None:
                z, h = z.masked_fill(v == 0, 0.0), h.masked_fill(v == 0, 0.0)
            if norms is not None:
                top, share = norms
                e = exp_(z - top[some]).mul_(share[some]).sub_(h).abs_()
            else:
                e = _errors(z, h, softmax=False)
            lists = [a.reshape(-1) for a in (e, h, *(() if v is None else (v,)))]
            if not absent and h.device.type == "cpu" and not bool(h.any()):
                slope = torch.zeros((), dtype=dtype)
            else:
                values[i, c], slope = _sum_of_list(*lists, learns=learns)
            if slopes is not None:
                slopes[some, c] = slope.expand(h.numel()).view_as(h)
    return values[0] if batch else values, slopes


def _sum_of_list(
    e: Tensor, h: Tensor, w: Tensor | None = None, *, learns: bool
) -> tuple[Tensor, Tensor]:
    """The loss of one list of pixels, and its slope by what was predicted for each."""
    wide = _widest(e)
    total = (h if w is None else h * w).sum(dtype=wide).unsqueeze(0)
    kind = h.to(torch.bool)  # small: its gathers stay in the cache
    slope = torch.empty_like(e) if learns else e
    errors, order = _falling(e)
    value, hit, false = torch.zeros(3, 1, dtype=wide, device=e.device).unbind(0)
    for near, at in zip(errors.split(_CHUNK), order.split(_CHUNK), strict=True):
        mine = kind.gather(0, at).to(e.dtype)
        by = torch.ones_like(mine) if w is None else w.gather(0, at)
        steps, hit, false = _steps(mine, by, total, hit, false)
        value = value + (steps * near).sum()
        if learns:
            steps = steps.to(e.dtype).mul_(near > 0)  # where nothing is wrong nothing is pulled
            slope.scatter_(0, at, steps.mul_(1 - 2 * mine))
    return value[0], slope


def _norms(x: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest logit of each pixel, and 1 over the sum of ``exp(z - top)``: ``(N, S)``."""
    work = Work(x.device)
    top, share = (
        torch.empty(x.shape[::2], dtype=widen(x[:0]).dtype, device=x.device) for _ in "ts"
    )
    for block in _blocks(x, 2**19):
        z = widen(block.of(x))
        if w is not None:
            z = z.masked_fill(block.of(w) == 0, 0.0)
        here = z.amax(1, keepdim=True)
        block.of(top).copy_(here.squeeze(1))
        block.of(share).copy_(exp_(torch.sub(z, here, out=work("p", z))).sum(1).reciprocal_())
    return top, share


def _along(x: Tensor, slopes: Tensor, w: Tensor | None, *, softmax: bool) -> Tensor:
    """What the slopes are the gradient of."""
    x = x if w is None else x.masked_fill(w == 0, 0.0)
    return ((torch.softmax(x, 1) if softmax else x) * slopes).sum(2)


def _along_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    slopes: Tensor,
    w: Tensor | None,
    *,
    softmax: bool,
) -> None:
    torch.mul(slopes, up.unsqueeze(2).to(x.dtype), out=out)
    if not softmax:
        return
    if w is not None:
        x = x.masked_fill(w == 0, 0.0)
    p = exp_(torch.sub(x, x.amax(1, keepdim=True), out=work("p", x)))
    p.mul_(p.sum(1, keepdim=True).reciprocal_())
    mean = torch.mul(p, out, out=work("q", x)).sum(1, keepdim=True)
    out.sub_(mean).mul_(p)


_SLOPES = Formula(_along, backward=_along_backward)
