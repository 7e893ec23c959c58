"""The divergence of two softmaxes in two parts: the right class against all others, and these.

    b  = (p[y], 1 - p[y])           KL(b_t || b_s)       how sure of the right class
    p^ = softmax without class y    KL(p^_t || p^_s)     what the others are like
    KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t[y]) KL(p^_t || p^_s)

The first is that of two classes, whose logits are ``z[y]`` and the log-sum-exp of the others; so
both have the digits of :mod:`aptt.core.divergence`, and ``1 - p[y]`` is no difference. Where there
is but one other class the second is exactly 0, as it is where the others are masked by -inf.

Axes: logits ``(N, C)`` or ``(N, C, S)``; y without C.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.divergence import BY_NAME, HERE, Form
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.softmax import exp_of_gaps, of_class, put_class_, with_class

__all__ = ["DECOUPLED", "Parts"]

_KL = BY_NAME["forward_kl"]
_OF_TWO = Form(temperature=1.0, beta=0.5, soft=1.0)


class Parts(NamedTuple):
    """What the two parts weigh."""

    temperature: float
    target: float
    """T**2 included, as in the next."""
    others: float

    @property
    def form(self) -> Form:
        """As the divergence is asked."""
        return Form(self.temperature, 0.5, 1.0)


def _stats(x: Tensor, t: Tensor, y: Tensor, *, parts: Parts) -> Kept:
    (u, of_x), (v, of_t) = _others(x, y), _others(t, y)
    return (*_KL.sums(u, v, parts.form, HERE), of_class(x, y), of_class(t, y), of_x, of_t)


def _others(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The other classes, all of them at 0 where none is open; and where that is."""
    u = with_class(z, y, -torch.inf)
    closed = u.detach().amax(1, keepdim=True) == -torch.inf
    return u.masked_fill(closed, 0.0), closed


class _Read(NamedTuple):
    """The numbers of a row."""

    none: Tensor
    """Where either has no other class open."""
    sums: Kept
    """Of the others."""
    two: tuple[Tensor, Tensor]
    """The logits of student and teacher of class y, and of the others together."""


def _read(kept: Kept, parts: Parts) -> _Read:
    *sums, mine, theirs, of_x, of_t = kept
    top, peak, e, f = sums[:4]
    two = [
        torch.cat(((own - most) / parts.temperature, e.log().masked_fill(closed, -torch.inf)), 1)
        for own, most, e, closed in ((mine, top, e, of_x), (theirs, peak, f, of_t))
    ]
    return _Read(of_x | of_t, tuple(sums), (two[0], two[1]))


def _at_least_0(value: Tensor) -> Tensor:
    return value + torch.relu(-value.detach())  # rounding led below 0: the gradient stays


def _result(x: Tensor, kept: Kept, t: Tensor, y: Tensor, *, parts: Parts) -> Tensor:
    read = _read(kept, parts)
    sure = _at_least_0(_KL.value(_KL.sums(*read.two, _OF_TWO, HERE), _OF_TWO))
    like = _at_least_0(_KL.value(read.sums, parts.form))
    like = torch.where(read.none, 0.0, like)
    return (parts.target * sure + parts.others * like).squeeze(1)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, y: Tensor, *, parts: Parts
) -> tuple[None, Tensor]:
    # the second of the two logits is top / T + log e: by a[c] / (e T) along each other class
    read, up = _read(kept, parts), by_row(up) / parts.temperature
    sums = _KL.sums(*read.two, _OF_TWO, HERE)
    of_y, of_rest = _KL.slope(*read.two, sums, up * parts.target, _OF_TWO).split(1, 1)
    (z, _), (others, _) = _others(x, y), _others(t, y)
    by = torch.full_like(of_y, parts.others).mul_(up).masked_fill_(read.none, 0.0)
    dx = _KL.slope(z, others, read.sums, by, parts.form)
    top, _, e, *_ = read.sums
    dx = exp_of_gaps((z - top) / parts.temperature).mul_(of_rest / e).add_(dx)
    return None, put_class_(dx, y, of_y)


DECOUPLED = Formula(_result, _step, _stats)
"""The formula of student logits, with sides: teacher logits, and the right classes."""
