"""Which pairs are the hardest: the farthest positive of each row, and its nearest negative.

Distances are differences squared and summed, not products, which would cancel between neighbours.
Rows are taken a chunk at a time; under ``torch.compile`` by one opaque operator.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from aptt.core.pairs import Sides, marks

__all__ = ["Hardest", "hardest"]

_PAIRS = 2**22


class Hardest(NamedTuple):
    """Columns, and whether there is one; each ``(N,)``."""

    positive: Tensor
    negative: Tensor
    has_positive: Tensor
    has_negative: Tensor


def hardest(x: Tensor, y: Tensor, sides: Sides, chunk: int | None) -> Hardest:
    """The farthest positive column of each row, and the nearest negative; without a gradient."""
    x, y = x.detach(), y.detach()
    if torch.compiler.is_compiling():
        return Hardest(*_hardest(x, y, *sides[1:], chunk))
    return _found(x, y, sides, chunk)


def _found(x: Tensor, y: Tensor, sides: Sides, chunk: int | None) -> Hardest:
    n, step = len(x), chunk or max(_PAIRS // max(len(y), 1), 1)
    if n == 0 or len(y) == 0:
        at = x.new_zeros(n, dtype=torch.long)
        none = x.new_zeros(n, dtype=torch.bool)
        return Hardest(at, at.clone(), none, none.clone())  # an operator returns no tensor twice
    found = [_of_rows(x, y, sides, slice(i, i + step)) for i in range(0, n, step)]
    return Hardest(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _of_rows(x: Tensor, y: Tensor, sides: Sides, rows: slice) -> Hardest:
    some = x[rows]
    apart = torch.cdist(some, y, compute_mode="donot_use_mm_for_euclid_dist")
    positive, negative = marks(sides.rows(rows), len(y), many=True, like=some)
    far = apart.masked_fill(~positive, -1.0).argmax(1)
    near = apart.masked_fill(~negative, torch.inf).argmin(1)
    return Hardest(far, near, positive.any(1), negative.any(1))


@torch.library.custom_op(
    "aptt::hardest_pairs",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor y, Tensor? row_id, Tensor? column_id, Tensor? itself, Tensor? open, "
        "SymInt? chunk) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def _hardest(x: Tensor, y: Tensor, *call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *sides, chunk = call
    far, near, some, others = _found(x, y, Sides(None, *sides), chunk)
    return far, near, some, others


@_hardest.register_fake
def _(x: Tensor, *call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = x.shape[0]
    at, yes = x.new_empty(n, dtype=torch.long), x.new_empty(n, dtype=torch.bool)
    return at, torch.empty_like(at), yes, torch.empty_like(yes)
