"""A number between whole numbers, as a distribution over the two bins around it.

    share of the bin below = 1 - f,    of the one above = f        f = y - floor(y)

which is the hat function of the bins, ``max(1 - |bin - y|, 0)``. Around a whole number both bins
are the same, so there is none beyond the last. Axes: rows ``(N, bins)``, numbers ``y`` ``(N,)``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.softmax import Leading, put_class_

__all__ = ["Around", "around", "check_bins", "cross_entropy", "less_all", "less_target"]


class Around(NamedTuple):
    """A number a row, and the two bins around it; ``(N, 1)`` each."""

    y: Tensor
    below: Tensor
    above: Tensor
    less: Tensor
    """Minus the share of the bin below."""
    share: Tensor
    """That of the bin above."""


def check_bins(name: str, logits: Tensor) -> None:
    """Refuse an axis of bins, the last, without two of them."""
    bins = logits.shape[-1] if logits.ndim else 0
    if bins < 2:
        raise ValueError(
            f"{name}: got {tuple(logits.shape)}, with {bins or 'no'} bin on its last axis; wanted "
            "2 or more, for the softmax of a single logit is always 1"
        )


def around(y: Tensor) -> Around:
    """The bins around each of the numbers ``(N,)``; differentiable."""
    y = y.unsqueeze(1)
    low = y.floor()
    share = y - low
    return Around(y, low.long(), y.ceil().long(), share - 1, share)


def cross_entropy(log_p: Tensor, bins: Around) -> Tensor:
    """With the two bins of each row; no share of an impossible bin costs nothing."""
    if torch.compiler.is_compiling():
        hat = (1 - _apart(log_p, bins)).clamp(min=0)
        return -torch.where(hat == 0, 0.0, hat * log_p).sum(1)
    below, above = log_p.gather(1, bins.below), log_p.gather(1, bins.above)
    nothing = (bins.share == 0) & (above == -torch.inf)
    return (bins.less * below - bins.share * above.masked_fill(nothing, 0.0)).squeeze(1)


def less_target(lead: Leading, bins: Around) -> Tensor:
    """The softmax less each number's distribution."""
    p, lack = lead.e * lead.share, lead.rest * lead.share
    if torch.compiler.is_compiling():
        apart = _apart(p, bins)
        hat = (1 - apart).clamp(min=0)
        return torch.where(lead.gap == 0, apart.clamp(max=1) - lack, p - hat)
    return less_all(p, lead.at.unsqueeze(1), lack, bins)


def less_all(p: Tensor, at: Tensor, lack: Tensor, bins: Around) -> Tensor:
    """The same, of ``p`` and its likeliest bin, by what either lacks of 1; over the memory of p."""
    own = (at - bins.y).abs().clamp(max=1) - lack
    p.scatter_add_(1, bins.below, bins.less).scatter_add_(1, bins.above, -bins.share)
    return put_class_(p, at.squeeze(1), own)


def _apart(like: Tensor, bins: Around) -> Tensor:
    """How far each bin is from its row's number, for a compiler: it fuses no gather or scatter."""
    every = torch.arange(like.shape[1], dtype=like.dtype, device=like.device)
    return (every - bins.y).abs()
