"""Squared errors of soft predictions: sums for each sample and class, in one walk.

    truth = sum of w t                 size  = sum of w p
    error = sum of w (p - t)**2        common = sum of w p t

The sum of ``p**2 + t**2`` is the error and twice what is in common. Neither is a difference of
sums: where p and t differ little, nor where they have nearly nothing in common. With t a mask of 0
and 1, p - t is p outside and p - 1 inside, neither of which cancels.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``; weights ``(N, 1, S)``
or ``(N, C, S)``, where 0 removes the pixel. Sums ``(N, C, 4)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.chances import Chances, of_sigmoid, of_softmax
from aptt.core.engine import evaluate
from aptt.core.formula import Formula, Kept
from aptt.core.marks import cleared, removes, weighed
from aptt.core.softmax import on_class_axis, others

__all__ = ["square_sums", "through"]


def square_sums(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool) -> Tensor:
    """Truth, size, error and common; differentiable in ``x``, and in targets and weights."""
    if w is not None and w.ndim < x.ndim:
        w = w.unsqueeze(1)
    bare = removes(x, t, w)
    return evaluate(_SQUARES, x, t, w, gather="samples", softmax=softmax, bare=bare)


def _read(
    x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool, bare: bool
) -> tuple[Chances, Tensor, Tensor]:
    """The chances, the target of each class, and how far they are apart."""
    if t.ndim < x.ndim:
        classes = on_class_axis(torch.arange(x.shape[1], device=x.device), x)
        t = (t.unsqueeze(1) == classes).to(x.dtype)
    else:
        t = t.to(x.dtype)
        t = cleared(t, w) if bare else t
    x = cleared(x, w) if bare else x
    chances = of_softmax(x) if softmax else of_sigmoid(x)
    return chances, t, torch.lerp(chances.yes, -chances.no, t)


def _result(
    x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, softmax: bool, bare: bool
) -> Tensor:
    p, t, error = _read(x, t, w, softmax=softmax, bare=bare)
    w = None if w is None else w.to(x.dtype)
    sums = (t, p.yes, error.square(), p.yes * t)
    return torch.stack([weighed(v, w).sum(2) for v in sums], -1)


def _step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, softmax: bool, bare: bool
) -> tuple[None, Tensor]:
    # The price of p is that of size, of the square by twice the error, and of common by t.
    p, t, error = _read(x, t, w, softmax=softmax, bare=bare)
    _, by_size, by_error, by_common = up.to(x.dtype).unsqueeze(2).unbind(-1)
    price = (2 * by_error * error).addcmul_(t, by_common).add_(by_size)
    dx = through(p, price)
    return None, dx if w is None else dx * w.to(dx.dtype)


def through(p: Chances, price: Tensor) -> Tensor:
    """From prices of p to slopes along the logits.

    Of a sigmoid ``price p (1 - p)``; of a softmax ``p[c] (price[c] (1 - p[c]) - sum of price p over
    the others)``.
    """
    dx = price * p.yes
    if p.lead is None:
        return dx.mul_(p.no)
    below, above = others(dx, p.lead.at)
    beside = below + (above - dx)
    return dx.mul_(p.no).addcmul_(p.yes, beside, value=-1)


_SQUARES = Formula(_result, _step)
