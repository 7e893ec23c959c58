"""What the formulas share: what is asked of them, their prices, and the cost of a pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.logistic import power

__all__ = ["Ask", "faded", "lift_of", "prices_of"]


class Ask(NamedTuple):
    """What of the prediction, and which sums."""

    softmax: bool
    gamma: float | None
    common: bool
    removes: bool
    """Whether something may be infinite or NaN where a weight is 0."""


def prices_of(up: Tensor, x: Tensor, ask: Ask) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of what is false, of what is missed, and of the cost: ``(N, C, 1)`` each."""
    _, false, missed, *more = up.to(x.dtype).unsqueeze(2).unbind(-1)
    if ask.common:  # which grows as that which is missed falls
        missed = missed - more[0]
    return false, missed, more[0] if more else missed


def faded(nll: Tensor, miss: Tensor, gamma: float) -> Tensor:
    """The cost of each pixel; ``miss`` is 1 - q."""
    return power(miss, gamma) * nll if gamma else nll


def lift_of(miss: Tensor, nll: Tensor, gamma: float) -> Tensor:
    """Minus its slope by the log-odds of q, over ``miss``; 1 at gamma 0."""
    tiny = torch.finfo(miss.dtype).tiny
    return power(miss, gamma) * (1 + gamma * (1 - miss) * (nll / miss.clamp(min=tiny)))
