"""The softmax seen from the right class: what speaks against it, and how much.

    top    the largest logit of the other classes      rest   the sum of exp(z - top) over them
    gap    top - z[y]                                  lift   exp(gap)

    odds = rest * lift = (1 - p[y]) / p[y]      nll  = log(1 + odds)
    miss = 1 - p[y] = odds / (1 + odds)         p[c] = exp(z[c] - top) * lift / (1 + odds),  c != y

Formed so, all of them are exact however confident the row is, and at any logit: nothing is a
difference of two numbers that are nearly equal. The class axis is axis 1, and is kept.

Where no class is the right one, the softmax is seen from the largest logit, by :func:`leading`:

    e = exp(z - top)      rest = sum of e over the other classes
    log p = z - top - log(1 + rest)      1 - p = (rest + (1 - e)) / (1 + rest)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.logistic import held

__all__ = [
    "Against",
    "Leading",
    "against",
    "exp_of_gaps",
    "exp_of_gaps_",
    "fading",
    "gaps",
    "largest",
    "leading",
    "of_class",
    "on_class_axis",
    "others",
    "put_class_",
    "with_class",
]

_FAR = 40.0  # a lift of exp(40) leaves nothing of p[y], to float64's last digit


class Against(NamedTuple):
    """What speaks against the right class, one number a row each."""

    top: Tensor
    rest: Tensor
    gap: Tensor
    lift: Tensor
    """``exp(gap)``, at most ``exp(40)``."""

    @classmethod
    def of(cls, top: Tensor, rest: Tensor, mine: Tensor) -> Against:
        """From the logit of class y."""
        gap = top - mine
        return cls(top, rest, gap, gap.clamp(max=_FAR).exp())

    @property
    def odds(self) -> Tensor:
        """``(1 - p[y]) / p[y]``, at most ``rest * exp(40)``."""
        return self.rest * self.lift

    @property
    def nll(self) -> Tensor:
        """``-log p[y]``; infinite where class y is masked by -inf."""
        return self.odds.log1p() + torch.relu(self.gap - _FAR)

    @property
    def share(self) -> Tensor:
        """What ``exp(z[c] - top)`` is multiplied by to make it ``p[c]``, c another class than y."""
        return self.lift / (1 + self.odds)

    @property
    def miss(self) -> Tensor:
        """``1 - p[y]``."""
        return self.rest * self.share


def fading(wrong: Against) -> Tensor:
    """``wrong.miss``, to be multiplied by what may be large, such as ``nll``.

    Autograd of the exact form cancels there; of a sigmoid of the log-odds it does not.
    """
    if not torch.is_grad_enabled():
        return wrong.miss
    some = wrong.rest.clamp(min=torch.finfo(wrong.rest.dtype).tiny)
    slope = torch.sigmoid(held(wrong.gap + some.log()))
    return slope + (wrong.miss - slope).detach()


def against(z: Tensor, y: Tensor) -> Against:
    """The statistics of each row; differentiable."""
    others = with_class(z, y, -torch.inf)
    top = largest(others)
    return Against.of(top, exp_of_gaps_(others - top).sum(1, keepdim=True), of_class(z, y))


class Leading(NamedTuple):
    """What there is beside the largest logit of each row."""

    at: Tensor
    """The class that has it, without the class axis: one of them at a tie."""
    top: Tensor
    gap: Tensor
    """``z - top``."""
    e: Tensor
    """``exp(gap)``."""
    rest: Tensor
    """The sum of the others' ``e``."""

    @property
    def level(self) -> Tensor:
        """``lse - top``, which is ``-log p`` of the largest."""
        return self.rest.log1p()

    @property
    def share(self) -> Tensor:
        """What ``e`` is multiplied by to make it p."""
        return (1 + self.rest).reciprocal()


def leading(z: Tensor) -> Leading:
    """The statistics of each row that has no right class; differentiable."""
    if torch.compiler.is_compiling() and not torch.is_grad_enabled():
        return _leading_by_value(z)
    top, at = z.max(1, keepdim=True)
    at = at.squeeze(1)
    gap, none = gaps(z, top, at), (top - top).detach()  # 0, or NaN
    e = exp_of_gaps(gap)
    return Leading(at, top, gap, e, with_class(e, at, none).sum(1, keepdim=True))


def _leading_by_value(z: Tensor) -> Leading:
    """By comparing values: an argmax takes a compiled loop three times as long as a maximum.

    The class is in the graph all the same, and a compiler drops it where nothing reads it.
    """
    top = z.amax(1, keepdim=True)
    gap = z - top
    e, first = exp_of_gaps(gap), gap == 0
    rest = torch.where(first, 0.0, e).sum(1, keepdim=True)
    tied = first.to(z.dtype).sum(1, keepdim=True) - 1
    return Leading(z.argmax(1), top, gap, e, rest + tied)


def gaps(z: Tensor, top: Tensor, at: Tensor) -> Tensor:
    """``z - top``, of which the largest is 0 and all that leads to it goes by way of the others."""
    return with_class(z - top, at, 0.0) if torch.is_grad_enabled() else z - top


def others(values: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over all classes but one of each row, and the number at that one.

    Over all but class c it is then ``sum + (one - values[c])``: exact at the one, too.
    """
    return with_class(values, at, 0.0).sum(1, keepdim=True), of_class(values, at)


def largest(z: Tensor) -> Tensor:
    """The largest logit of each row, a constant; the least number where all are masked."""
    z, least = z.detach(), torch.finfo(z.dtype).min
    if torch.compiler.is_compiling():  # a step of its own would keep two loops over a row apart
        return z.clamp(min=least).amax(1, keepdim=True)
    return z.amax(1, keepdim=True).clamp(min=least)


def exp_of_gaps(gap: Tensor) -> Tensor:
    """``exp(gap)`` of gaps to a largest logit.

    By ``exp2``: as fast where results underflow, where ``exp`` on a CPU takes 60 times as long. The
    rounding of ``gap / log(2)`` is relative to the gap, and shows only in numbers that are small
    beside the largest.
    """
    return gap.mul(1 / math.log(2)).exp2_()


def exp_of_gaps_(gap: Tensor) -> Tensor:
    """:func:`exp_of_gaps` over the memory of the gaps, which nobody may read again."""
    return gap.mul_(1 / math.log(2)).exp2_()


def of_class(z: Tensor, y: Tensor) -> Tensor:
    """The number at class y of each row."""
    return z.gather(1, y.unsqueeze(1))


def with_class(z: Tensor, y: Tensor, value: Tensor | float) -> Tensor:
    """A copy of ``z`` with ``value`` at class y of each row."""
    if torch.compiler.is_compiling():  # which fuses a choice, and not a scatter
        return _chosen(z, y, value)
    return z.scatter(1, y.unsqueeze(1), value)


def put_class_(z: Tensor, y: Tensor, value: Tensor) -> Tensor:
    """:func:`with_class` over the memory of ``z``."""
    if torch.compiler.is_compiling():
        return _chosen(z, y, value)
    return z.scatter_(1, y.unsqueeze(1), value)


def _chosen(z: Tensor, y: Tensor, value: Tensor | float) -> Tensor:
    # of 32 bits, which a compiled loop compares as many at once as it has numbers
    classes = torch.arange(z.shape[1], dtype=torch.int32, device=z.device)
    return torch.where(on_class_axis(classes, z) == y.int().unsqueeze(1), value, z)


def on_class_axis(values: Tensor, z: Tensor) -> Tensor:
    """One number per class, shaped to multiply ``z``."""
    return values.view(-1, *[1] * (z.ndim - 2))
