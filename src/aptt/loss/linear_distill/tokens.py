"""The tokens in front of both heads: held to each other, and those chosen that count."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_chunk, check_weights, taken_classes
from aptt.core.distillation import check_heads
from aptt.core.engine import obstacle
from aptt.core.formula import widen
from aptt.core.linear import Head
from aptt.core.reduction import Count
from aptt.core.shapes import check_sample_weight, indexed_axis

__all__ = ["Tokens", "tokens_of_both"]


class Tokens(NamedTuple):
    """The tokens that count, and what is known of each."""

    head: Head
    teacher: Head
    y: Tensor | None
    rows: Tensor | None
    chosen: Tensor | None
    shape: tuple[int, ...]
    counted: Count


def tokens_of_both(
    head: Head,
    teacher: Head,
    hard_targets: Numbers | None,
    sample_weight: Numbers | None,
    ignore_index: int | None,
    *,
    chunk: int | None,
    detach_teacher: bool,
    drop_ignored: bool,
) -> Tokens:
    """The tokens that count, one after the other, of both heads."""
    check_chunk(chunk)
    hidden = head.hidden
    shape = check_heads(hidden, head.weight, head.bias, *teacher)
    if detach_teacher:
        teacher = Head._make(None if t is None else t.detach() for t in teacher)
    rows = y = None
    if hard_targets is not None:
        hard_targets = as_tensor("hard_targets", hard_targets, hidden)
        indexed_axis(hidden, hard_targets, -1, names=("hidden", "hard_targets"))
        y = hard_targets.reshape(-1)
        y, rows = taken_classes(y, len(head.weight), ignore_index, name="hard_targets")
    elif ignore_index not in (-100, None):
        raise ValueError(f"ignore_index: got {ignore_index} without hard_targets to look in")
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, hidden=hidden)
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
        check_weights(sample_weight=rows)
    states = hidden.reshape(math.prod(shape), hidden.shape[-1])
    taught = teacher.hidden.reshape(len(states), teacher.hidden.shape[-1])
    count: Count = len(states) if rows is None else rows.sum()
    chosen = None
    drops = drop_ignored and not torch.compiler.is_compiling() and obstacle(states) is None
    if rows is not None and drops:
        chosen = rows.nonzero().squeeze(1)
        states, taught, rows = states[chosen], taught[chosen], rows[chosen]
        y = None if y is None else y[chosen]
    elif rows is not None:
        keep = (rows != 0).unsqueeze(1)
        states, taught = torch.where(keep, states, 0.0), torch.where(keep, taught, 0.0)
    rows = None if rows is None else rows.to(widen(states[:0]).dtype)
    teacher = teacher._replace(hidden=taught)
    return Tokens(head._replace(hidden=states), teacher, y, rows, chosen, shape, count)
