"""A number between whole numbers, as a distribution over the two bins around it.

    share of the bin below = 1 - f,    of the one above = f        f = y - floor(y)

which is the hat function of the bins, ``max(1 - |bin - y|, 0)``. Around a whole number both bins
are the same, so there is none beyond the last. Axes: rows ``(N, bins)``, numbers ``y`` ``(N,)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cross_entropy", "less_target_"]


def cross_entropy(log_p: Tensor, y: Tensor) -> Tensor:
    """With the two bins of each row; no share of an impossible bin costs nothing."""
    below, above, share = _around(y)
    below, above = log_p.gather(1, below).squeeze(1), log_p.gather(1, above).squeeze(1)
    nothing = (share == 0) & (above == -torch.inf)
    return (share - 1) * below - share * torch.where(nothing, 0.0, above)


def less_target_(p: Tensor, y: Tensor) -> Tensor:
    """``p`` less the distribution of each number, over the memory of ``p``."""
    if torch.compiler.is_compiling():  # which fuses the hat function, and not a scatter
        bins = torch.arange(p.shape[1], dtype=p.dtype, device=p.device)
        return p - (1 - (bins - y.unsqueeze(1)).abs()).clamp(min=0)
    below, above, share = _around(y)
    share = share.unsqueeze(1)
    return p.scatter_add_(1, below, share - 1).scatter_add_(1, above, -share)


def _around(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bin below and the bin above ``(N, 1)``, and the share of the latter."""
    low = y.floor()
    return low.long().unsqueeze(1), y.ceil().long().unsqueeze(1), y - low
