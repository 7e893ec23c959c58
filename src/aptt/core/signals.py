"""Signals ``(..., T)``, padded to a common T: checks, and which of the samples count."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.shapes import check_floating, check_shapes, is_readable

__all__ = ["check_signals", "count_samples", "inside"]


def check_signals(estimate: Tensor, target: Tensor, lengths: Tensor | None) -> None:
    """Hold two signals to one shape, and lengths to integers from 0 to T, one a sample."""
    check_floating(estimate=estimate)
    check_shapes(estimate=(estimate, "*N T"), target=(target, "*N T"))
    if lengths is None:
        return
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths: got {lengths.dtype}, wanted an integer dtype")
    wanted = tuple(estimate.shape[:-1][:1])
    if tuple(lengths.shape) != wanted:
        raise ValueError(
            f"lengths: got shape {tuple(lengths.shape)} for estimate {tuple(estimate.shape)}, "
            f"wanted {wanted}, one for each along the first axis"
        )
    if is_readable(lengths):
        low, high = lengths.amin().item(), lengths.amax().item()
        if low < 0 or high > estimate.shape[-1]:
            wrong = low if low < 0 else high
            raise ValueError(f"lengths: got {wrong}, wanted 0 to T={estimate.shape[-1]}")


def count_samples(estimate: Tensor, lengths: Tensor | None) -> Tensor:
    """How many samples each of the signals has, as one row of all signals."""
    shape = estimate.shape[:-1]
    if lengths is None:
        return torch.full((math.prod(shape),), estimate.shape[-1], device=estimate.device)
    each = lengths.long().reshape(shape[:1] + (1,) * (len(shape) - 1))
    return each.expand(shape).reshape(-1)


def inside(counts: Tensor, size: int) -> Tensor:
    """``(N, size)``: which samples lie within the first ``counts``."""
    return torch.arange(size, device=counts.device) < counts.unsqueeze(1)
