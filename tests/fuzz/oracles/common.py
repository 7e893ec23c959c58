"""What the formulas share: reductions, and logarithms of a softmax and of a sigmoid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "against",
    "chance",
    "costs",
    "heard",
    "logistic",
    "power",
    "reduced",
    "rise",
    "scattered",
    "softplus",
]


def reduced(values: Tensor, count: Tensor | float, reduction: Any, term: str) -> Tensor:
    """The sum of weighted values over what was counted; the mean of nothing is 0."""
    if reduction == "none":
        return values
    total, count = values.sum(), torch.as_tensor(count, dtype=torch.float64)
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / count if count != 0 else total * 0
    return reduction(total, count, term=term)


def heard(target: Tensor, ignored: int | None) -> Tensor:
    """Which targets are not ignored."""
    return torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored


def scattered(values: Tensor, keep: Tensor) -> Tensor:
    """The values of those that count, at their places; 0 elsewhere."""
    return torch.zeros(keep.shape, dtype=values.dtype).masked_scatter(keep, values)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to float64's last digit."""
    return F.softplus(x, threshold=40)


def against(z: Tensor, y: Tensor) -> Tensor:
    """The log-odds against class y of rows ``(n, C)``; -log p is softplus of it."""
    others = z.scatter(1, y[:, None], -torch.inf)
    none = (others == -torch.inf).all(1)
    gap = others.masked_fill(none[:, None], 0.0).logsumexp(1) - z.gather(1, y[:, None])[:, 0]
    return gap.masked_fill(none, -1e5)


def costs(z: Tensor) -> Tensor:
    """-log p of every class of rows ``(n, C)``: the gap to the largest, and what that costs."""
    if not len(z):
        return z
    top = z.argmax(1, keepdim=True)
    gap = torch.where(torch.arange(z.shape[1]) == top, 0.0, z.gather(1, top) - z)
    return gap + softplus(against(z, top[:, 0]))[:, None]


def chance(x: Tensor) -> Tensor:
    """sigmoid(x), whose slope p (1 - p) keeps its digits near 1."""
    return torch.exp(-softplus(-x))


def power(log_p: Tensor, exponent: float) -> Tensor:
    """A probability to a power, with a slope that is finite at 0."""
    return torch.exp(exponent * log_p)


def rise(e: Tensor) -> Tensor:
    """1 - exp(-e), whose slope exp(-e) keeps its digits far away."""
    return torch.where(e < 1, -torch.expm1(-e), 1 - torch.exp(-e))


def logistic(x: Tensor, t: Tensor, missing: Tensor | None = None) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) with p = sigmoid(x), by the likelier answer.

    ``missing`` is 1 - t, where that has more digits.
    """
    yes = x > 0
    left = torch.where(yes, 1 - t if missing is None else missing, -t)
    return left * x + softplus(torch.where(yes, -x, x))
