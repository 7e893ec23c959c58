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
    "nll",
    "power",
    "sign",
    "softplus",
    "softplus_slope",
]

_LINEAR = 40  # softplus(x) is x from here on, to float64's last digit


def finite(x: Tensor) -> Tensor:
    """``x``, with the largest number for infinity: 0 times it is 0 then."""
    largest = torch.finfo(x.dtype).max
    return x.clamp(-largest, largest)


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


def answer(x: Tensor, t: Tensor) -> Answer:
    """Of finite logits, with one exponential and one logarithm; differentiable."""
    # softplus(x) = max(x, 0) - log(1 - doubt), and softplus(-x) = max(-x, 0) - log(1 - doubt)
    likely = x.clamp(0, 1).ceil_()
    turn, left = sign(likely), likely - t
    doubt = (turn * x).sigmoid_()
    cost = (left * x).sub_(torch.log1p(-doubt))
    return Answer(likely, left, doubt, cost, turn * doubt)


def nll(x: Tensor, t: Tensor) -> Tensor:
    """The cross-entropy against a target from 0 to 1."""
    return answer(finite(x), t).nll
