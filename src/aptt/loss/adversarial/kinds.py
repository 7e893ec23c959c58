"""What a score costs, by the goal of the one who wants it.

                    discriminator: real       fake                generator
    lsgan           (1 - r)**2                f**2                (1 - f)**2
    hinge           max(0, 1 - r)             max(0, 1 + f)       -f, or max(0, 1 - f)
    bce             log(1 + exp(-r))          log(1 + exp(f))     log(1 + exp(-f))
    wasserstein     -r                        f                   -f

Axes: scores of any shape, or a list of them, one of each discriminator.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.checks import check_choice
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.reduction import Reduction, count_of, reduce

__all__ = ["SCORE", "Kind", "check_kind", "score"]

Kind = Literal["lsgan", "hinge", "bce", "wasserstein"]


def check_kind(kind: str) -> None:
    """Refuse unknown names."""
    check_choice("kind", kind, ("lsgan", "hinge", "bce", "wasserstein"))


def score(
    x: Tensor, weight: Tensor | None, kind: Kind, side: str, term: str, reduction: Reduction
) -> Tensor:
    """The loss of one map of scores."""
    return reduce(
        SCORE, x, weight=weight, count=lambda: count_of(x, weight), reduction=reduction, term=term,
        form=kind, side=side,
    )  # fmt: skip


def _goal(x: Tensor, kept: Kept, *, form: str, side: str) -> Tensor:
    if form == "lsgan":
        return x.square() if side == "fake" else (1 - x).square()
    towards = x if side == "fake" else -x
    if form == "wasserstein" or side == "generator":
        return towards.clone()
    return (1 + towards).relu() if form == "hinge" else F.softplus(towards, threshold=40)


def _goal_step(
    x: Tensor, up: Tensor | float, kept: Kept, *, form: str, side: str
) -> tuple[Tensor, Tensor]:
    sign = 1.0 if side == "fake" else -1.0
    if form == "lsgan":
        slope = 2 * x if side == "fake" else 2 * (x - 1)
    elif form == "wasserstein" or side == "generator":
        slope = torch.full_like(x, sign)
    elif form == "hinge":
        slope = (sign * x > -1).to(x.dtype) * sign
    else:
        slope = torch.sigmoid(sign * x) * sign
    return _goal(x, kept, form=form, side=side), scaled_(slope, up)


SCORE = Formula(_goal, _goal_step, ahead=True)
