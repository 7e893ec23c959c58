"""The chances of yes and of no, p and 1 - p, of a sigmoid or of every class of a softmax.

Neither is a difference of two nearly equal numbers, and so neither loses its digits: no class but
the largest can be near 1, and 1 - p is there the sum of the others.

Axes: logits ``(N, C, S)``, with the classes on axis 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.softmax import Leading, leading

__all__ = ["Chances", "of_sigmoid", "of_softmax"]


class Chances(NamedTuple):
    """What speaks for each class, and against it."""

    yes: Tensor
    no: Tensor
    lead: Leading | None = None
    """Of a softmax."""

    @property
    def nll(self) -> Tensor | None:
        """``-log p`` of a softmax."""
        return None if self.lead is None else self.lead.level - self.lead.gap


def of_sigmoid(x: Tensor) -> Chances:
    """Of independent classes."""
    if not torch.is_grad_enabled():
        return Chances(torch.sigmoid(x), torch.sigmoid(-x))
    # autograd has the slope of a sigmoid from its value: exact for the smaller of the two alone
    high = x > 0
    less = torch.sigmoid(torch.where(high, -x, x))
    more = 1 - less
    return Chances(torch.where(high, more, less), torch.where(high, less, more))


def of_softmax(x: Tensor) -> Chances:
    """Of classes that exclude each other."""
    lead = leading(x)
    return Chances(lead.e * lead.share, (lead.rest + (1 - lead.e)) * lead.share, lead)
