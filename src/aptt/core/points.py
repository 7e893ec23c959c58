"""Points ``(*N, K, D)``: which of them count, and how much."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, as_weight
from aptt.core.shapes import check_shapes

__all__ = ["point_weights"]


@overload
def point_weights(
    points: Tensor, visibility: Numbers, weight: Numbers | None, *, like: Tensor
) -> Tensor: ...
@overload
def point_weights(
    points: Tensor, visibility: Numbers | None, weight: Numbers | None, *, like: Tensor
) -> Tensor | None: ...
def point_weights(
    points: Tensor, visibility: Numbers | None, weight: Numbers | None, *, like: Tensor
) -> Tensor | None:
    """How much each target point counts, ``(*N, K)``: nothing where it is not labelled.

    Weights are as wide as the prediction ``like`` is computed in.
    """
    if weight is not None:
        weight = as_weight("weight", weight, like)
        check_shapes(target=(points, "*N K D"), weight=(weight, "*N K"))
    if visibility is None:
        return weight
    visibility = as_tensor("visibility", visibility, points)
    check_shapes(target=(points, "*N K D"), visibility=(visibility, "*N K"))
    seen = visibility > 0
    return seen if weight is None else torch.where(seen, weight, 0)
