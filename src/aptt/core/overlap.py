"""How far soft predictions overlap their targets: three sums for each sample and class.

    common = sum of w * min(p, t)      prediction = sum of w * p      truth = sum of w * t

over the pixels, with p a softmax or a sigmoid, t in [0, 1] and pixel weights w. For hard targets
``min(p, t)`` is the product ``p t``; for soft ones it is the only one of the two that is largest
at p = t (Wang et al. 2023, arXiv:2302.05666, eq. 10, in a form that does not cancel).

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``; weights ``(N, S)`` or
``(N, C, S)``, where 0 removes the pixel. Sums ``(N, C, 3)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aptt.core.softmax import on_class_axis
from aptt.core.streaming import Formula, Work, evaluate, exp_

__all__ = ["overlap_sums"]


def overlap_sums(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool) -> Tensor:
    """The three sums, streamed; differentiable in ``x``."""
    formula = _DENSE if t.ndim == x.ndim else _INDEXED
    return evaluate(formula, x, t, w, gather="samples", softmax=softmax)


def _indexed(x: Tensor, y: Tensor, w: Tensor | None, *, softmax: bool) -> Tensor:
    classes = on_class_axis(torch.arange(x.shape[1], device=x.device), x)
    return _dense(x, (classes == y.unsqueeze(1)).to(x.dtype), w, softmax=softmax)


def _dense(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool) -> Tensor:
    t = t.to(x.dtype)
    if w is not None:
        w = w if w.ndim == x.ndim else w.unsqueeze(1)
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0.0)
    p = torch.softmax(x, 1) if softmax else torch.sigmoid(x)
    sums = torch.stack((torch.minimum(p, t), p, t.expand_as(p)), dim=-1)
    return (sums if w is None else sums * w.unsqueeze(-1)).sum(2)


def _cleared(x: Tensor, w: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """By hand: logits that are finite wherever the weight is 0, and the weights against them."""
    if w is not None:
        w = w if w.ndim == x.ndim else w.unsqueeze(1)
        if x.device.type != "cpu" or not bool(w.all()):
            x = x.masked_fill(w == 0, 0.0)
    return x, w


def _indexed_forward(
    x: Tensor, work: Work, y: Tensor, w: Tensor | None, *, softmax: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    # not torch.softmax, which first copies a block whose classes are apart
    x, w = _cleared(x, w)
    top = x.amax(1, keepdim=True)
    p = exp_(torch.sub(x, top, out=work("p", x)))
    share = p.sum(1, keepdim=True).reciprocal_()
    weight = share if w is None else share * w
    p.mul_(weight)
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # scatter adds one by one
    sums = torch.zeros(3, *x.shape[:2], dtype=wide, device=x.device)
    sums[0].scatter_add_(1, y, p.gather(1, y.unsqueeze(1)).squeeze(1).to(wide))
    sums[1] = p.sum(2)
    ones = torch.ones_like(share) if w is None else w
    sums[2].scatter_add_(1, y, ones.squeeze(1).to(wide))
    return sums.movedim(0, -1), (top, share)


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
) -> None:
    # d loss / d z[c] = w p[c] (q[c] - sum of p q), q[c] = by_prediction[c] + [c = y] by_common[c]
    x, w = _cleared(x, w)
    top, share = kept
    p = exp_(torch.sub(x, top, out=work("p", x))).mul_(share)
    by_common, by_prediction = up[..., 0].to(x.dtype), up[..., 1:2].to(x.dtype)
    at = y.unsqueeze(1)
    extra = p.gather(1, at) * by_common.gather(1, y).unsqueeze(1)
    mean = torch.bmm(by_prediction.transpose(1, 2), p).add_(extra)
    if w is not None:
        p, extra = p.mul_(w), extra * w
    torch.sub(by_prediction, mean, out=out).mul_(p).scatter_add_(1, at, extra)


def _probabilities(
    x: Tensor, w: Tensor | None, *, softmax: bool, out: Tensor
) -> tuple[Tensor, Tensor | None]:
    x, w = _cleared(x, w)
    return (torch.softmax(x, 1, out=out) if softmax else torch.sigmoid(x, out=out)), w


def _dense_forward(
    x: Tensor, work: Work, t: Tensor, w: Tensor | None, *, softmax: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    p, w = _probabilities(x, w, softmax=softmax, out=work("p", x))
    t = _known(t, w, work, x)
    both = torch.minimum(p, t, out=work("both", x))
    if w is not None:
        p, both, t = p.mul_(w), both.mul_(w), t * w
    return torch.stack((both.sum(2), p.sum(2), t.sum(2)), dim=-1), ()


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
) -> None:
    p, w = _probabilities(x, w, softmax=softmax, out=work("p", x))
    below = torch.sub(_known(t, w, work, x), p, out=work("both", x)).sign_().add_(1)
    q = below.mul_(up[..., :1].to(x.dtype) / 2).add_(up[..., 1:2].to(x.dtype))
    if softmax:
        torch.mul(p, q, out=out)
        out.addcmul_(p, out.sum(1, keepdim=True), value=-1)
    else:
        torch.addcmul(p, p, p, value=-1, out=out).mul_(q)
    if w is not None:
        out.mul_(w)


def _known(t: Tensor, w: Tensor | None, work: Work, x: Tensor) -> Tensor:
    """The target in the dtype of the computation, finite wherever the weight is 0."""
    t = t if t.dtype == x.dtype else work("t", x).copy_(t)
    if w is not None and t.is_floating_point() and not bool(t.isfinite().all()):
        t = t.masked_fill(w == 0, 0.0)
    return t


_INDEXED = Formula(_indexed, _indexed_forward, _indexed_backward, block=2**20)
_DENSE = Formula(_dense, _dense_forward, _dense_backward, block=2**20)
