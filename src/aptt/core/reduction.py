"""From a total and a count to one number: the only place where a loss is averaged.

A loss hands over the sum of its values and how much was counted. What takes part in the count:

    class indices        the class weight of each target that is not ignored (1 without weights)
    soft targets         the sum over classes of class weight x target
    elements, boxes ...  ``weight`` where it is given, else 1 for each that is not ignored
    positives            with ``normalize="positives"``: elements or boxes that there are to find
    alpha, pos_weight    not counted: they only multiply

An element of weight 0 is removed, whatever it holds, from the total and from the count. Neither has
a slope there, then: the gradient of a weight that is 0 is 0, for all losses alike
(:func:`aptt.core.checks.as_weight`). Counts are summed in the dtype of the computation.

A normalizer is any callable ``(total, count, *, term) -> scalar``: exact averages over
micro-batches and ranks are such callables (:mod:`aptt.parallel`), and no loss knows of them. One
with a method ``begin`` is shown the count before the total is there; one with a method ``hear`` is
told what kind of count it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import check_weight
from aptt.core.engine import divided, evaluate
from aptt.core.formula import Formula
from aptt.core.precision import wide, widen

__all__ = [
    "Combine",
    "Count",
    "Kind",
    "Normalizer",
    "Reduction",
    "begin",
    "check_reduction",
    "count_found",
    "count_of",
    "count_positives",
    "named",
    "normalize",
    "reduce",
]

Normalizer = Callable[..., Tensor]
Reduction = Literal["mean", "sum", "none"] | Normalizer
Count = Tensor | float
"""How much a mean divides by: a number where it is known without looking at values."""
Combine = Literal["mean", "sum"]
"""What is made of several resolutions, discriminators or layers."""
Kind = Literal["values", "positives", "ratios"]
"""What is counted: what takes part, by its weight; what there is to find; ratios of sums."""


def reduce(
    formula: Formula,
    x: Tensor,
    *sides: Tensor | None,
    count: Callable[[], Count],
    reduction: Reduction,
    term: str,
    weight: Tensor | None = None,
    kind: Kind = "values",
    splits: bool = True,
    weight_name: str = "weight",
    **options: Any,
) -> Tensor:
    """Evaluate a formula of independent values, and reduce them.

    ``weight`` is 0 where something is ignored, and held to the rule for weights under the name
    that the caller knows. ``count`` is called only if the reduction divides. With ``"none"`` the
    values come back in the shape of the block notation; the caller gives them the target's shape.
    """
    if weight is not None:
        check_weight(weight_name, weight)
    if reduction == "none":
        return evaluate(formula, x, *sides, gather="values", weight=weight, **options)
    if callable(reduction):
        hear(reduction, kind, term, splits=splits)
        counted = begin(reduction, on_device(count(), x), term)
        total = evaluate(formula, x, *sides, gather="total", weight=weight, **options)
        return reduction(total, counted, term=term)
    over = count() if reduction == "mean" else None
    return evaluate(formula, x, *sides, gather="total", weight=weight, over=over, **options)


def begin(reduction: Normalizer, count: Tensor, term: str) -> Any:
    """Show a count to a normalizer before the total is there, if it asks to see it.

    One that counts over ranks has a method ``begin``: its message is on the way while the loss
    computes. What it returns is passed to it in place of the count.
    """
    ahead = getattr(reduction, "begin", None)
    return count if ahead is None else ahead(count, term=term)


def hear(reduction: Normalizer, kind: Kind, term: str, *, splits: bool = True) -> None:
    """Tell a normalizer what a term counts, and whether its total may be split, if it asks to."""
    told = getattr(reduction, "hear", None)
    if told is not None:
        told(kind, term=term, splits=splits)


def on_device(count: Count, like: Tensor) -> Tensor:
    """A count as a tensor on the device of ``like``, which takes no copy from the host."""
    if isinstance(count, Tensor):
        return count
    whole = isinstance(count, int)
    return like.new_full((), count, dtype=torch.int64 if whole else wide(like.dtype))


def count_of(values: Tensor, weight: Tensor | None) -> Count:
    """How much counts: the sum of the weights, or as many as there are ``values``."""
    return values.numel() if weight is None else widen(weight).sum()


def count_found(found: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """How much there is to find, by weight: yes or no, or shares; at least 1 for the mean."""
    found = widen(found)
    if weight is not None:
        found = found.masked_fill(weight == 0, 0) * weight
    total = found.sum()
    return total.clamp(min=1) if reduction == "mean" else total


def count_positives(values: Tensor, weight: Tensor | None, reduction: Reduction) -> Count:
    """How many ``values`` have a weight above 0; at least 1 where the mean divides by it."""
    if weight is None:
        return max(values.numel(), 1) if reduction == "mean" else values.numel()
    count = (weight > 0).sum()
    return count.clamp(min=1) if reduction == "mean" else count


def normalize(
    total: Tensor,
    count: Count,
    reduction: Reduction,
    *,
    term: str,
    kind: Kind = "values",
    splits: bool = True,
) -> Tensor:
    """``total`` over ``count``, as ``reduction`` says; the mean of nothing is 0, on the graph."""
    if callable(reduction):
        hear(reduction, kind, term, splits=splits)
        return reduction(total, on_device(count, total), term=term)
    return total if reduction == "sum" else divided(total, count)


def named(reduction: Reduction, name: str) -> Reduction:
    """A reduction for one term of several: a normalizer is told ``name``."""
    return _Named(reduction, name) if callable(reduction) else reduction


@dataclass(frozen=True)
class _Named:
    """A normalizer that is told another term than the one it is called for."""

    reduction: Normalizer
    name: str

    def begin(self, count: Tensor, *, term: str) -> Any:
        return begin(self.reduction, count, self.name)

    def hear(self, kind: Kind, *, term: str, splits: bool = True) -> None:
        hear(self.reduction, kind, self.name, splits=splits)

    def __call__(self, total: Tensor, count: Any, *, term: str) -> Tensor:
        return self.reduction(total, count, term=self.name)


def check_reduction(reduction: Reduction, *, none: bool = True) -> None:
    """Refuse what is neither a known name nor a callable."""
    known = ("mean", "sum", "none") if none else ("mean", "sum")
    if not callable(reduction) and reduction not in known:
        names = ", ".join(map(repr, known))
        why = (
            "; its terms are not of one shape, so no element has a value of its own: the function "
            "ending in _terms gives each by name"
            if reduction == "none"
            else ""
        )
        raise ValueError(
            f"reduction: got {reduction!r}, wanted {names} or a callable (total, count, *, term)"
            + why
        )
