"""``exp(x) - 1`` with its digits near 0, in a compiled graph too.

A graph of inductor takes ``expm1`` of a CPU's vectors, and so an ELU, as the difference
``exp(x) - 1``, which has lost them. Near 0 Lambert's fraction has them all, without the kernel of
a hyperbolic tangent, which takes five times as long as that of an exponential:

    tanh(x / 2) = top / bottom        exp(x) - 1 = 2 top / (bottom - top)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["expm1", "rise", "tanh_of_half"]

_NEAR = {torch.float32: 1.0, torch.float64: 0.25}
"""How far from 0 the fraction is taken: exact to a few roundings, as is the plain form beyond."""


def _fraction(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where ``x`` is near 0; there, ``tanh(x / 2)`` as top and bottom of the fraction."""
    near = x.abs() < _NEAR[x.dtype]
    z = torch.where(near, x, 0.0)
    square = z * z
    top = ((square + 420) * square + 15120) * (z / 2)
    return near, top, (15 * square + 1680) * square + 15120


def expm1(x: Tensor) -> Tensor:
    """``exp(x) - 1``."""
    if not torch.compiler.is_compiling():
        return torch.expm1(x)
    near, top, bottom = _fraction(x)
    return torch.where(near, 2 * top / (bottom - top), x.exp() - 1)


def rise(e: Tensor) -> Tensor:
    """``1 - exp(-e)`` of numbers of at least 0: near 0, and its slope far away, to the last digit.

    Torch has the slope of ``expm1`` from its value, ``exp(-e) = 1 - (1 - exp(-e))``, where nothing
    is left of it from 17 on in float32; that of an ELU it takes from its argument.
    """
    return -expm1(-e) if torch.compiler.is_compiling() else -F.elu(-e)


def tanh_of_half(x: Tensor) -> Tensor:
    """``tanh(x / 2)``; in eager mode by ``expm1``, in half the time of ``tanh`` on a CPU."""
    if not torch.compiler.is_compiling():
        more = x.clamp(max=40.0).expm1()
        return more / (more + 2)
    near, top, bottom = _fraction(x)
    return torch.where(near, top / bottom, 1 - 2 / (x.clamp(max=40.0).exp() + 1))
