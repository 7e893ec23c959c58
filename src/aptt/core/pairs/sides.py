"""Which pairs of a row are positive, which negative, and which are none."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Sides", "marks"]


class Sides(NamedTuple):
    """What says which pairs are positive, which negative, and which are none."""

    target: Tensor | None = None
    """``(N,)``: the column of a row's positive."""
    row_id: Tensor | None = None
    """``(N,)``; a column of the same id is no negative."""
    column_id: Tensor | None = None
    """``(M,)``."""
    itself: Tensor | None = None
    """``(N,)``: the column that is the row itself, and no pair."""
    open: Tensor | None = None
    """``(M,)``: which columns there are."""

    def rows(self, some: slice) -> Sides:
        """Those of some rows."""
        of_rows = (self.target, self.row_id, self.itself)
        target, row_id, itself = (None if t is None else t[some] for t in of_rows)
        return Sides(target, row_id, self.column_id, itself, self.open)


def marks(sides: Sides, columns: int, *, many: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs of some rows; equal ids are positive if ``many``, else none."""
    at = torch.arange(columns, device=like.device)
    none = like.new_zeros((), dtype=torch.bool).expand(len(like), columns)
    mine = none if sides.target is None else at == sides.target.unsqueeze(1)
    same = none
    if sides.row_id is not None and sides.column_id is not None:
        same = sides.row_id.unsqueeze(1) == sides.column_id
    negative, positive = ~(mine | same), mine | same if many else mine
    if sides.itself is not None:
        other = at != sides.itself.unsqueeze(1)
        negative, positive = negative & other, positive & other
    if sides.open is not None:
        negative, positive = negative & sides.open, positive & sides.open
    return positive, negative
