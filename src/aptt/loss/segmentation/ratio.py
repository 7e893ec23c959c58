"""What is wrong over the whole: the ratio that the region losses share.

    (alpha FP + beta FN) / (I + alpha FP + beta FN)  =  1 - I / (I + alpha FP + beta FN)

The left side is computed: near 0 the right one is a difference of two nearly equal numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.reduction import normalize
from aptt.core.regions import RegionOptions, Regions, average, measured

__all__ = ["compound", "over", "ratio"]

_LEAST = 1e-30  # the ratio that a logarithm ends at: the most that float32 leaves a gradient to


def ratio(
    regions: Regions, alpha: float, beta: float, smooth: float, *, log: bool = False
) -> Tensor:
    """The Tversky loss of each class."""
    miss, found = regions.misses(alpha, beta), regions.common
    found = found + smooth if smooth else found
    whole = found + miss
    if not log:
        return over(miss, whole)
    # -log(found / whole); exact for a good overlap and for a tiny one
    return torch.log1p(over(miss, torch.maximum(found, whole * _LEAST)))


def over(part: Tensor, whole: Tensor) -> Tensor:
    """The part of the whole; of nothing it is 0."""
    return part / whole.clamp(min=torch.finfo(whole.dtype).tiny)


def compound(
    logits: Tensor, target: Tensor, o: RegionOptions, *, gamma: float, term: str
) -> dict[str, Tensor]:
    """Dice, and what the pixels cost, from the same sums."""
    regions, cost, count = measured(logits, target, o, gamma=gamma)
    if regions.weight is not None:
        cost, count = cost * regions.weight, count * regions.weight
    total = cost.sum().to(regions.dtype)
    return {
        "dice": average(ratio(regions, 0.5, 0.5, o.smooth), regions, o, term="dice"),
        term: normalize(total, count.sum(), o.reduction, term=term),
    }
