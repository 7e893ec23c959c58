"""Vectors as rows: their lengths, and what is left of them at length 1.

Both are exact at any size of the numbers, and a row of zeros has length 0, no direction and no
gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.precision import to_widest

__all__ = ["largest_1", "length", "picked", "unit"]


def unit(x: Tensor) -> Tensor:
    """Each row of ``(..., D)`` divided by its length; zeros stay zeros, with a gradient of 0."""
    scaled, nothing, _ = _scaled(x)
    size = (scaled.square().sum(-1, keepdim=True) + nothing.to(x.dtype)).sqrt()
    return torch.where(nothing, 0.0, scaled / size)


def length(x: Tensor) -> Tensor:
    """The length of each row of ``(..., D)``; its gradient has length 1, or 0 where it is 0."""
    scaled, nothing, largest = _scaled(x)
    size = (scaled.square().sum(-1, keepdim=True) + nothing.to(x.dtype)).sqrt()
    return torch.where(nothing, 0.0, size * largest).squeeze(-1)


def largest_1(x: Tensor) -> Tensor:
    """Each row of ``(..., D)`` over its largest number, taken for a constant; zeros stay zeros."""
    return _scaled(x)[0]


def picked(rows: Tensor, at: Tensor) -> Tensor:
    """``rows[at]``; the gradients of a row that is picked often add up in no order that shows."""
    return to_widest(rows)[at].to(rows.dtype)


def _scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows over their largest number, where there is nothing, and that number."""
    if x.numel():
        largest = torch.linalg.vector_norm(x.detach(), torch.inf, dim=-1, keepdim=True)
    else:  # of no rows torch.compile has no such norm
        largest = x.detach().sum(-1, keepdim=True)
    nothing = largest == 0
    largest = torch.where(nothing, 1.0, largest)
    return x / largest, nothing, largest
