"""The divergence of two softmaxes in two parts: the right class against all others, and these.

    b  = (p[y], 1 - p[y])           KL(b_t || b_s)       how sure of the right class
    p^ = softmax without class y    KL(p^_t || p^_s)     what the others are like
    KL(p_t || p_s) = KL(b_t || b_s) + (1 - p_t[y]) KL(p^_t || p^_s)

The first is that of two classes, with log-odds ``z[y] - lse of the others``. How far these are
apart is taken from the logits, with ``p`` and ``q`` of class y, and d = what they are apart,

    log(p / q) = log(1 + (1 - p) expm1(-d))

so both parts have the digits of :mod:`aptt.core.divergence`. Where there is but one other class
the second is exactly 0, as it is where the others are masked by -inf.

Axes: logits ``(N, C)`` or ``(N, C, S)``; y without C.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from aptt.core.divergence import BY_NAME, HERE, Excess, Form, at_least_0, excess_of
from aptt.core.exponential import expm1
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.softmax import exp_of_gaps_, of_class, put_class_, with_class

__all__ = ["DECOUPLED", "Parts"]

_KL = BY_NAME["forward_kl"]
_FAR = 1e4  # log-odds of a class beside which no other is open
_NOTHING = 60.0  # exp(-60) beside 1, to float64's last digit


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
    right: Excess
    """Of class y: what it adds to the first divergence, and ``p_t[y] - p_s[y]``."""
    wrong: Excess
    """Of the others together."""


def _read(kept: Kept, parts: Parts) -> _Read:
    # log-odds of class y; how far they are apart has the digits of the logits' differences
    *sums, mine, theirs, of_x, of_t = kept
    top, peak, e, f, level = sums[:5]
    of_student, of_teacher = (
        ((own - most) / parts.temperature - total.log())
        .masked_fill(closed, _FAR)
        .nan_to_num(nan=torch.nan, neginf=-_FAR)
        for own, most, total, closed in ((mine, top, e, of_x), (theirs, peak, f, of_t))
    )
    none = of_x | of_t
    apart = ((mine - theirs) - (top - peak)) / parts.temperature - level
    apart = torch.where(none, of_student - of_teacher, apart)
    apart = apart.nan_to_num(nan=0.0, posinf=_FAR, neginf=-_FAR)
    near, small = apart.abs() <= 1, apart.clamp(-1, 1)
    found = []
    for sign in (1, -1):
        u_s, u_t = sign * of_student, sign * of_teacher
        q, p, d = u_s.sigmoid(), u_t.sigmoid(), sign * small
        ahead = (torch.sigmoid(-u_t) * expm1(-d)).log1p()  # log(p / q)
        far = logsigmoid(u_t) - logsigmoid(u_s)
        found.append(excess_of(p, q, torch.where(near, ahead, far.clamp(min=-_NOTHING))))
    return _Read(none, tuple(sums), found[0], found[1])


def _result(x: Tensor, kept: Kept, t: Tensor, y: Tensor, *, parts: Parts) -> Tensor:
    read = _read(kept, parts)
    sure = read.right.excess + read.wrong.excess
    like = at_least_0(_KL.value(read.sums, parts.form))
    like = torch.where(read.none, 0.0, like)
    return (parts.target * sure + parts.others * like).squeeze(1)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, y: Tensor, *, parts: Parts
) -> tuple[None, Tensor]:
    # the log-odds of class y go by a[c] / (e T) along each other class
    read, up = _read(kept, parts), by_row(up) / parts.temperature
    of_y = -read.right.more * (up * parts.target)
    (z, _), (others, _) = _others(x, y), _others(t, y)
    by = torch.full_like(of_y, parts.others).mul_(up).masked_fill_(read.none, 0.0)
    dx = _KL.slope(z, others, read.sums, by, parts.form)
    top, _, e, *_ = read.sums
    closed = kept[-2]
    by = (-of_y / e).masked_fill(closed, 0.0)
    dx = exp_of_gaps_((z - top) / parts.temperature).mul_(by).add_(dx)
    return None, put_class_(dx, y, of_y.masked_fill(closed, 0.0))


DECOUPLED = Formula(_result, _step, _stats)
"""The formula of student logits, with sides: teacher logits, and the right classes."""
