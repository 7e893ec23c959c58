"""Dice, and what the pixels cost, from the same sums: what the compounds share."""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.regions import RegionOptions, average, mean, measured
from aptt.loss.segmentation.generalized import Weighting, of_all_classes
from aptt.loss.segmentation.ratio import ratio

__all__ = ["compound", "scaled"]


def compound(
    logits: Tensor,
    target: Numbers,
    o: RegionOptions,
    *,
    weighting: Weighting | None,
    gamma: float,
    term: str,
) -> dict[str, Tensor]:
    """Dice of each class, or of all by a weighting; and what the pixels cost."""
    regions, cost, count = measured(logits, target, o, gamma=gamma)
    if regions.class_weight is not None:
        cost, count = cost * regions.class_weight, count * regions.class_weight
    if weighting is None:
        dice = average(ratio(regions, 0.5, 0.5, o.smooth), regions, o, term="dice")
    else:
        dice = of_all_classes(regions, o, weighting, term="dice")
    return {"dice": dice, term: mean(cost.sum(), count.sum(), o.reduction, term=term)}


def scaled(term: Tensor, weight: float) -> Tensor:
    """The term times its weight; most are 1."""
    return term if weight == 1 and not isinstance(weight, Tensor) else weight * term
