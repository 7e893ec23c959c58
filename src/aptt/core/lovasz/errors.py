"""By how much each pixel errs: ``|h - p|`` of a softmax, or the hinge of its logit; h: its class.

Axes: logits and errors ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core import pixels
from aptt.core.logistic import sign
from aptt.core.marks import cleared, mark, measure
from aptt.core.precision import widen
from aptt.core.softmax import exp_of_gaps_, on_class_axis

__all__ = ["errors_of", "hinge", "levels", "softmax_errors"]


def hinge(x: Tensor, h: Tensor) -> Tensor:
    """``1 + x`` of background and ``1 - x`` of foreground, where it is above 0."""
    return torch.relu(1 + sign(h) * x)


def errors_of(x: Tensor, t: Tensor, w: Tensor | None, *, softmax: bool) -> tuple[Tensor, Tensor]:
    """By how much each pixel errs, ``|h - p|`` or the hinge of its logit; and h, as a mask."""
    x = cleared(widen(x), w)
    if softmax:
        at = mark(t, None, x)
        seen, others = measure(x, at)
        h = on_class_axis(torch.arange(x.shape[1], device=x.device), x) == t.unsqueeze(1)
        e = torch.where(h, seen.rest * seen.share, others * seen.share)
    else:
        h = t != 0
        e = hinge(x, h.to(x.dtype))
    return cleared(e, w), h if w is None else h & (w != 0)


def softmax_errors(x: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
    """``|h - p|``, and 0 where the weight is."""
    at = y.unsqueeze(1)
    _, p = pixels.seen(x, pixels.removed(w))
    others = pixels.put(p, at, 0.0)
    return pixels.put(others, at, others.sum(1, keepdim=True))


def levels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest logit of each pixel, 1 over the sum of ``exp(z - top)``, and ``1 - p[y]``."""
    top = widen(x.amax(1))
    mine = exp_of_gaps_(x.gather(1, y.unsqueeze(1)).squeeze(1).to(top.dtype) - top)
    rest = torch.zeros_like(top)
    for c in range(x.shape[1]):
        rest += exp_of_gaps_(x[:, c].to(top.dtype) - top).mul_(y != c)
    share = (rest + mine).reciprocal_()
    return top, share, rest.mul_(share)
