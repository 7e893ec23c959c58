"""Cross-entropy of a yes-or-no question, from its logit: the parts that its losses share.

softplus(x) = log(1 + exp(x)) = -log(1 - sigmoid(x))
nll(x, y)   = -(y log p + (1 - y) log(1 - p)) = softplus(x) - y x       p = sigmoid(x)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["finite", "focal", "nll", "softplus", "softplus_into"]

_LINEAR = 40  # softplus(x) is x from here on, to float64's last digit


def finite(x: Tensor, out: Tensor | None = None) -> Tensor:
    """``x``, with the largest number for infinity: 0 times it is 0 then."""
    largest = torch.finfo(x.dtype).max
    return torch.clamp(x, -largest, largest, out=out)


def softplus(x: Tensor) -> Tensor:
    """Exact to the last digit of float64; torch's default is linear from 20 on."""
    return F.softplus(x, threshold=_LINEAR)


def softplus_into(out: Tensor, x: Tensor) -> Tensor:
    """:func:`softplus` by hand; ``out`` may be ``x``."""
    torch.ops.aten.softplus.out(x, 1, _LINEAR, out=out)
    return out


def focal(m: Tensor, gamma: float) -> Tensor:
    """(1 - p)**gamma * -log p, by the margin: the log-odds of the right answer."""
    cost = softplus(-m)
    return cost if gamma == 0 else torch.exp(-gamma * softplus(m)) * cost


def nll(x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy against a target from 0 to 1; no difference of nearly equal numbers."""
    x = finite(x)
    flip = y > 0.5  # seen from the other answer: nll(x, y) = nll(-x, 1 - y)
    z, t = torch.where(flip, -x, x), torch.where(flip, 1 - y, y)
    return softplus(z) - t * z
