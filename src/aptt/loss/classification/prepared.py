"""A call of cross-entropy, held to its shapes: what the loss and its terms share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.axes import align_classes
from aptt.core.checks import Numbers, check_index, check_shares, taken_classes
from aptt.core.precision import wide
from aptt.core.reduction import Count, count_of
from aptt.core.shapes import check_sample_weight, check_vector
from aptt.core.softmax import on_class_axis

__all__ = ["Prepared", "counted", "mass_of", "prepared"]


class Prepared(NamedTuple):
    """Logits as ``(N, C)`` or ``(N, C, S)``, and all else to match."""

    logits: Tensor
    target: Tensor
    soft: bool
    shape: tuple[int, ...]
    """That of the positions, as they came."""
    class_weight: Tensor | None
    adjustment: Tensor | None
    rows: Tensor | None
    """The weight of each position, 0 or False where it is removed; None: all count as one."""

    def counted(self) -> Count:
        """What the mean divides by."""
        dtype = wide(self.logits.dtype)
        return counted(self.target, self.class_weight, self.rows, soft=self.soft, dtype=dtype)


def prepared(
    logits: Tensor,
    target: Numbers,
    sample_weight: Numbers | None,
    weight: Numbers | None,
    ignore_index: int | None,
    logit_adjustment: Numbers | None,
    class_dim: int | None,
) -> Prepared:
    """The tensors of a call, each checked under the name that the caller knows."""
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    x, y, soft, shape = align_classes(logits, target, class_dim)
    class_weight = None if weight is None else check_vector("weight", weight, x)
    adjustment = None
    if logit_adjustment is not None:
        adjustment = check_vector("logit_adjustment", logit_adjustment, x, signed=True)
    keep = None
    if soft:
        if ignore_index not in (-100, None):
            raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
        if y.requires_grad:  # of the loss and of its count: added up before they are rounded
            y = y.to(wide(x.dtype))
    else:
        y, keep = taken_classes(y, x.shape[1], ignore_index)
    rows = keep
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, logits=logits)
        rows = sample_weight.reshape(len(x), *x.shape[2:]).to(wide(x.dtype))
        rows = rows if keep is None else torch.where(keep, rows, 0.0)
    if soft:
        check_shares(y, rows)
    return Prepared(x, y, soft, shape, class_weight, adjustment, rows)


def counted(
    y: Tensor,
    class_weight: Tensor | None,
    rows: Tensor | None,
    *,
    soft: bool,
    dtype: torch.dtype,
) -> Count:
    """What the mean divides by: the class weights that took part, by index or by share."""
    if not soft and class_weight is None:
        return count_of(y, rows)
    mass = mass_of(y, class_weight, soft=soft, dtype=dtype)
    return mass.sum() if rows is None else (torch.where(rows != 0, mass, 0) * rows).sum()


def mass_of(y: Tensor, class_weight: Tensor | None, *, soft: bool, dtype: torch.dtype) -> Tensor:
    """What each position counts for, before its own weight."""
    if not soft:
        return torch.ones_like(y, dtype=dtype) if class_weight is None else class_weight[y]
    mass = y.to(dtype)
    return (mass if class_weight is None else mass * on_class_axis(class_weight, y)).sum(1)
