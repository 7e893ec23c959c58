"""The chances of yes and of no, p and 1 - p, of a sigmoid or of every class of a softmax.

Neither is a difference of two nearly equal numbers, and so neither loses its digits: no class but
the largest can be near 1, and 1 - p is there the sum of the others.

Axes: logits ``(N, C, S)``, with the classes on axis 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.softmax import exp_of_gaps

__all__ = ["Chances", "apart", "of_sigmoid", "of_softmax"]


class Chances(NamedTuple):
    """What speaks for each class, and against it."""

    yes: Tensor
    no: Tensor
    high: Tensor | None = None
    """1 where a class is the largest of a softmax, else 0."""
    nll: Tensor | None = None
    """``-log p`` of a softmax, if it is asked for."""


def of_sigmoid(x: Tensor) -> Chances:
    """Of independent classes."""
    return Chances(torch.sigmoid(x), torch.sigmoid(-x))


def of_softmax(x: Tensor, *, nll: bool = False) -> Chances:
    """Of classes that exclude each other."""
    gap = x - x.detach().amax(1, keepdim=True)
    e = exp_of_gaps(gap)
    high = e.floor()
    below, above = apart(e, high)
    share = (below + above).reciprocal()
    cost = (below + (above - 1)).log1p() - gap if nll else None
    others = above - e
    if torch.is_grad_enabled():  # so that a single largest gets nothing back of what it takes off
        others = others * (1 - high * (above <= 1))
    return Chances(e * share, (below + others) * share, high, cost)


def apart(values: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over the classes that are not the largest, and over those that are.

    All but one class is then ``below + (above - one)``: exact for the largest, too.
    """
    return (values * (1 - high)).sum(1, keepdim=True), (values * high).sum(1, keepdim=True)
