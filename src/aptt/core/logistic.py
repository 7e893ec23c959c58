"""Cross-entropy of a yes-or-no question, from its logit: the parts that its losses share.

    p = sigmoid(x)        softplus(x) = log(1 + exp(x)) = -log(1 - p)

    a hard answer         wrong = x where it is no, -x where it is yes
                          nll = softplus(wrong)        miss = sigmoid(wrong)
    a soft one, t         nll = -(t log p + (1 - t) log(1 - p))        its slope is p - t

Nothing here is a difference of two numbers that are nearly equal, however sure the answer is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Answer",
    "add_product_",
    "answer",
    "finite",
    "held",
    "infinite_",
    "nll",
    "power",
    "sign",
    "softplus",
    "softplus_slope",
    "times",
]

_LINEAR = 40  # softplus(x) is x from here on, to float64's last digit
_CERTAIN = 800.0  # and sigmoid(x) is 0 or 1, to float64's last exponent


def finite(x: Tensor) -> Tensor:
    """``x``, with the largest number for infinity: 0 times it is 0 then."""
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)


def held(x: Tensor) -> Tensor:
    """``x`` as far as its sigmoid changes, whose slope is 0 from there on.

    Autograd would multiply that 0 by what else is infinite there.
    """
    return x.clamp(-_CERTAIN, _CERTAIN)


def times(share: Tensor, cost: Tensor) -> Tensor:
    """``share * cost``, and 0 where the share is 0, though the cost be infinite; NaN stays NaN."""
    if torch.is_grad_enabled():
        return share * torch.where(share == 0, finite(cost), cost)
    return infinite_(share * finite(cost))  # in a tenth of the time that a choice takes


def infinite_(v: Tensor) -> Tensor:
    """Infinity where a share of the largest number stands for it; over the memory of ``v``.

    All that is less than the largest number times 2**-60 is exactly itself.
    """
    return v.mul_(2.0**60).mul_(2.0**-60)


def softplus(x: Tensor) -> Tensor:
    """Exact to the last digit of float64; torch's default is linear from 20 on."""
    return F.softplus(x, threshold=_LINEAR)


def softplus_slope(x: Tensor, up: Tensor) -> Tensor:
    """``up * sigmoid(x)``, in one operator."""
    return torch.ops.aten.softplus_backward(up, x, 1, _LINEAR)


def add_product_(a: Tensor, b: Tensor, c: Tensor, factor: Tensor | float) -> Tensor:
    """``a + factor * b * c``, over the memory of ``a``."""
    if isinstance(factor, Tensor) or torch.compiler.is_compiling():  # any number in one graph
        return a.addcmul_(b * factor, c)
    return a.addcmul_(b, c, value=factor)


def power(chance: Tensor, exponent: float) -> Tensor:
    """``chance**exponent`` of numbers from 0 to 1, with a gradient that is finite at 0."""
    if exponent in (1, 2, 4):  # the published exponents
        for _ in range(int(exponent) // 2):
            chance = chance.square()
        return chance
    some = chance.clamp(min=torch.finfo(chance.dtype).tiny)
    if torch.compiler.is_compiling():  # a tensor may be any number in one graph
        return some ** (some.new_zeros(()) + exponent)
    return some**exponent


def sign(yes: Tensor) -> Tensor:
    """1 where it is 0, -1 where it is 1: which way a logit is wrong."""
    return torch.rsub(yes, 1, alpha=2)


class Answer(NamedTuple):
    """What a logit says, and how it compares with a target from 0 to 1."""

    likely: Tensor
    """The likelier answer: 0 or 1, a constant."""
    left: Tensor
    """It less the target."""
    doubt: Tensor
    """The chance of the other answer, at most 1/2."""
    nll: Tensor
    """Without autograd the largest number stands for infinity, and :func:`infinite_` undoes it."""
    away: Tensor
    """What leads from the likelier answer to p."""

    @property
    def yes(self) -> Tensor:
        """The chance of yes, p."""
        return self.likely + self.away

    @property
    def error(self) -> Tensor:
        """``p - t``, the slope of ``nll``."""
        return self.left + self.away


def answer(x: Tensor, t: Tensor, missing: Tensor | None = None) -> Answer:
    """Of any logits, with one exponential and one logarithm; differentiable.

    ``missing`` is 1 - t, for whoever has its digits where t is near 1.
    """
    # softplus(x) = max(x, 0) - log(1 - doubt), and softplus(-x) = max(-x, 0) - log(1 - doubt)
    likely = x.clamp(0, 1).ceil_()
    turn = sign(likely)
    left = likely - t if missing is None else torch.where(likely > 0, missing, -t)
    if torch.is_grad_enabled():
        doubt, cost = (turn * held(x)).sigmoid_(), times(left, x)
    else:
        x = finite(x)
        doubt, cost = (turn * x).sigmoid_(), left * x
    cost = cost.sub_(torch.log1p(-doubt))
    return Answer(likely, left, doubt, cost, turn * doubt)


def nll(x: Tensor, t: Tensor) -> Tensor:
    """The cross-entropy against a target from 0 to 1."""
    cost = answer(x, t).nll
    return cost if torch.is_grad_enabled() else infinite_(cost)
