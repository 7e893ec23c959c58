"""Exponentials of log-ratios that stay within the dtype, with a slope wherever they are held.

Axes: any shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.exponential import expm1

__all__ = ["excess", "power", "top_of"]


def top_of(dtype: torch.dtype) -> float:
    """The largest exponent: a third of what the dtype holds, so that rounding does not leave it."""
    return math.log(torch.finfo(dtype).max) - 1


def _within(exponent: Tensor, top: float | Tensor) -> Tensor:
    """An exponent of at most ``top``, whose slope is 1 above it too."""
    return exponent - (exponent - top).clamp(min=0).detach()


def excess(exponent: Tensor) -> Tensor:
    """``exp(exponent) - 1 - exponent``, with its digits near 0; at most what the dtype holds."""
    wide = exponent if exponent.device.type == "mps" else exponent.double()
    return (expm1(_within(wide, top_of(exponent.dtype))) - wide).to(exponent.dtype)


def power(exponent: Tensor, factor: Tensor) -> Tensor:
    """``exp(exponent)``, at most so large that ``factor`` times it fits the dtype."""
    top = top_of(exponent.dtype) - factor.detach().abs().clamp(min=1).log()
    return _within(exponent, top).exp()
