"""Losses of numbers against numbers: the checks, the shapes and the reduction that they share.

An element that weighs 0 is removed; a weight multiplies, and is counted, in all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_floats, as_weight, check_floating
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.precision import wide, widen
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_shapes

__all__ = ["ABSOLUTE", "SQUARED", "against", "elementwise", "reduced", "spread"]


def against(
    prediction: Tensor, target: Numbers, weight: Numbers | None, *, each: str = ""
) -> tuple[Tensor, Tensor | None]:
    """Target and weight as tensors, of the prediction's shape less its last axis ``each``."""
    check_floating(prediction=prediction)
    target = as_floats("target", target, prediction)
    shape = f"*N {each}".strip()
    check_shapes(prediction=(prediction, shape), target=(target, "*N"))
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        check_shapes(prediction=(prediction, shape), weight=(weight, "*N"))
    return target, weight


def reduced(
    formula: Formula,
    x: Tensor,
    target: Tensor,
    *sides: Tensor,
    weight: Tensor | None,
    reduction: Reduction,
    term: str,
    **options: Any,
) -> Tensor:
    """The formula over elements or rows ``x``, one for each number of the target."""
    t, w = target.reshape(-1), None if weight is None else weight.reshape(-1)
    loss = reduce(
        formula, x, t, *sides, weight=w, count=lambda: count_of(t, w), reduction=reduction,
        term=term, **options,
    )  # fmt: skip
    return loss.reshape(target.shape) if reduction == "none" else loss


def elementwise(
    formula: Formula,
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None,
    reduction: Reduction,
    term: str,
    **options: Any,
) -> Tensor:
    """The formula of each number of a prediction against that of the target at its place."""
    check_reduction(reduction)
    target, weight = against(prediction, target, weight)
    return reduced(
        formula, prediction.reshape(-1), target, weight=weight, reduction=reduction, term=term,
        **options,
    )  # fmt: skip


def spread(prediction: Tensor, **width: Tensor) -> Tensor:
    """``(N, 2)``: each number of a prediction, with its width by the name that it goes by."""
    ((name, log_width),) = width.items()
    check_floating(prediction=prediction, **width)
    check_shapes(prediction=(prediction, "*N"), **{name: (log_width, "*N")})
    x, s = prediction.reshape(-1), log_width.reshape(-1)
    if x.dtype != s.dtype:
        x, s = widen(x), s.to(wide(x.dtype))
    return torch.stack((x, s), 1)


def _absolute(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    return (x - t).abs()


def _absolute_step(x: Tensor, up: Tensor | float, kept: Kept, t: Tensor) -> tuple[Tensor, Tensor]:
    d = x - t
    return d.abs(), scaled_(d.sgn(), up)


def _squared(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    return (x - t).square()


def _squared_step(x: Tensor, up: Tensor | float, kept: Kept, t: Tensor) -> tuple[Tensor, Tensor]:
    d = x - t
    return d.square(), d.mul_(2 * up)


ABSOLUTE = Formula(_absolute, _absolute_step, ahead=True)
SQUARED = Formula(_squared, _squared_step, ahead=True)
