"""Several heads on the same hidden states, as one weight ``(V, d_1, ..., d_K, D)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_floating, check_tensors
from aptt.core.reduction import Count, Reduction, normalize
from aptt.core.shapes import check_sample_weight

__all__ = ["several"]


def several(
    loss: Callable[..., Tensor],
    hidden: Tensor,
    weight: Tensor,
    target: Numbers,
    *,
    bias: Tensor | None,
    sample_weight: Numbers | None,
    reduction: Reduction,
    **options: Any,
) -> Tensor:
    """A linear loss of each head, reduced as one: their logits are of one head at a time."""
    check_floating(hidden=hidden, weight=weight)
    target = as_tensor("target", target, hidden)
    check_tensors(hidden=hidden, weight=weight, target=target)
    lead, heads, classes = hidden.shape[:-1], weight.shape[1:-1], len(weight)
    shape, many = (*lead, *heads), math.prod(heads)
    wanted = (*shape, classes) if target.is_floating_point() else shape
    if tuple(target.shape) != wanted:
        raise ValueError(
            f"target: got shape {tuple(target.shape)} for hidden states {tuple(hidden.shape)} and "
            f"heads {tuple(weight.shape)}, wanted {wanted}"
        )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ValueError(
            f"bias: got shape {tuple(bias.shape)}, wanted {tuple(weight.shape[:-1])}, one number a "
            "class of each head"
        )
    rows = None
    if sample_weight is not None:
        rows = check_sample_weight(sample_weight, shape, hidden=hidden).reshape(*lead, many)
    last = target.shape[len(shape) :]
    target, flat = target.reshape(*lead, many, *last), weight.reshape(classes, many, -1)
    offset = None if bias is None else bias.reshape(classes, many)
    counts: list[Count] = []

    def counted(total: Tensor, count: Tensor, *, term: str) -> Tensor:
        counts.append(count)
        return total

    parts = [
        loss(
            hidden,
            flat[:, i],
            target.select(len(lead), i),
            bias=None if offset is None else offset[:, i],
            sample_weight=None if rows is None else rows[..., i],
            reduction="none" if reduction == "none" else counted,
            **options,
        )
        for i in range(many)
    ]
    if reduction == "none":
        return torch.stack(parts, -1).reshape(shape)
    return normalize(sum(parts[1:], parts[0]), sum(counts), reduction, term="cross_entropy")
