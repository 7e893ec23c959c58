"""A call of the linear cross-entropy, held to its shapes: what the loss and its terms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_shares, taken_classes
from aptt.core.linear.tokens import Tokens, check_per_class, select, tokens_of
from aptt.core.precision import widen
from aptt.core.reduction import Count
from aptt.core.shapes import check_sample_weight
from aptt.loss.classification.prepared import counted

__all__ = ["Prepared", "prepared"]


class Prepared(NamedTuple):
    """The tokens that count, and all else to match."""

    tokens: Tokens
    target: Tensor
    soft: bool
    rows: Tensor | None
    """The weight of each token; None: all count as one."""
    chosen: Tensor | None
    """Where they were; None: all of them are there."""
    class_weight: Tensor | None
    adjustment: Tensor | None

    def counted(self, dtype: torch.dtype) -> Count:
        """What the mean divides by."""
        return counted(self.target, self.class_weight, self.rows, soft=self.soft, dtype=dtype)


def prepared(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    bias: Tensor | None,
    sample_weight: Numbers | None,
    class_weight: Numbers | None,
    ignore_index: int | None,
    logit_adjustment: Numbers | None,
    scale: float,
    chunk: int | None,
    drop_ignored: bool,
) -> Prepared:
    """The tensors of a call, each checked under the name that the caller knows."""
    target = as_tensor("target", target, hidden if isinstance(hidden, Tensor) else None)
    tokens = tokens_of(hidden, weight, bias, target, scale, chunk)
    shape, soft = tokens.shape, target.is_floating_point()
    y = target.reshape(len(tokens.states), *target.shape[len(shape) :])
    rows = None
    if not soft:
        y, rows = taken_classes(y, tokens.classes, ignore_index)
    elif ignore_index not in (-100, None):
        raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    elif y.requires_grad:  # of the loss and of its count: added up before they are rounded
        y = y.to(widen(hidden[:0]).dtype)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, hidden=hidden)
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
    if soft:
        check_shares(y, rows)
    chosen, states, y, rows = select(tokens.states, y, rows, drop=drop_ignored)
    classes = tokens.classes
    return Prepared(
        tokens._replace(states=states),
        y,
        soft,
        rows,
        chosen,
        check_per_class("class_weight", class_weight, classes, states),
        check_per_class("logit_adjustment", logit_adjustment, classes, states),
    )
