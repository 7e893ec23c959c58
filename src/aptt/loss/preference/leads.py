"""How far the chosen answer of each pair leads, and what that costs: the formulas of DPO's kin.

    u = beta * h - margin
    logistic    softplus(-u) + tilt * u        tilt: e of label smoothing, -e / (1 - 2 e) of robust
    hinge       max(0, 1 - u)
    ipo         (h - (1/2 + margin) / beta)**2

Axes: one number for each pair, ``(P,)``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_floats
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import softplus
from aptt.core.precision import widest
from aptt.core.reduction import Reduction, count_of, normalize, reduce
from aptt.loss.preference.scores import Pairs, check_alike

__all__ = ["HINGE", "IPO", "LOGISTIC", "Kind", "lead", "rewards"]

Kind = Literal["sigmoid", "robust", "hinge", "ipo"]


def lead(
    pairs: Pairs,
    pair_margin: Numbers | None,
    kind: Kind,
    beta: float,
    label_smoothing: float,
    margin: float,
    reduction: Reduction,
) -> Tensor:
    """The loss of pairs, whose options are checked."""
    h, each = pairs.chosen - pairs.rejected, None
    if pair_margin is not None:
        like = h.reshape(pairs.shape)
        each = check_alike("pair_margin", as_floats("pair_margin", pair_margin, like), chosen=like)
        each = each.reshape(-1)
    options: dict[str, Any] = {"beta": beta, "margin": margin}
    formula = {"hinge": HINGE, "ipo": IPO}.get(kind, LOGISTIC)
    if formula is LOGISTIC:
        e = label_smoothing
        options["tilt"] = -e / (1 - 2 * e) if kind == "robust" else e
    value = reduce(
        formula,
        h,
        each,
        weight=pairs.weight,
        count=lambda: count_of(h, pairs.weight),
        reduction=reduction,
        term="preference",
        **options,
    )
    return value.reshape(pairs.shape) if reduction == "none" else value


def rewards(pairs: Pairs, beta: float, reduction: Reduction) -> dict[str, Tensor]:
    """What is watched of pairs, without a gradient, reduced as their loss is."""
    x, y = pairs.chosen.detach(), pairs.rejected.detach()
    seen = {"reward_chosen": beta * x, "reward_rejected": beta * y, "accuracy": (x > y).to(x)}
    return {name: _watched(v, pairs, reduction) for name, v in seen.items()}


def _watched(values: Tensor, pairs: Pairs, reduction: Reduction) -> Tensor:
    weight = pairs.weight
    if weight is not None:
        weight = weight.detach()
        values = torch.where(weight != 0, values, 0.0) * weight.to(values.dtype)
    if reduction == "none":
        return values.reshape(pairs.shape)
    total = values.sum(dtype=widest(values)).to(values.dtype)  # rewards of either sign cancel
    return normalize(total, count_of(values, weight), reduction, term="preference")


def _ahead(h: Tensor, each: Tensor | None, beta: float, margin: float) -> Tensor:
    """u, by how much a pair is further than it should."""
    u = beta * h
    u = u - margin if margin else u
    return u if each is None else u - each


def _logistic(
    h: Tensor, kept: Kept, each: Tensor | None, *, beta: float, margin: float, tilt: float
) -> Tensor:
    # (1 - e) softplus(-u) + e softplus(u) = softplus(-u) + e u
    u = _ahead(h, each, beta, margin)
    return torch.add(softplus(-u), u, alpha=tilt) if tilt else softplus(-u)


def _logistic_step(
    h: Tensor,
    up: Tensor | float,
    kept: Kept,
    each: Tensor | None,
    *,
    beta: float,
    margin: float,
    tilt: float,
) -> tuple[Tensor, Tensor]:
    u = _ahead(h, each, beta, margin)
    v = torch.add(softplus(-u), u, alpha=tilt) if tilt else softplus(-u)
    return v, (tilt - (-u).sigmoid()).mul_(beta).mul_(up)


def _hinge(h: Tensor, kept: Kept, each: Tensor | None, *, beta: float, margin: float) -> Tensor:
    return (1 - _ahead(h, each, beta, margin)).relu()


def _hinge_step(
    h: Tensor, up: Tensor | float, kept: Kept, each: Tensor | None, *, beta: float, margin: float
) -> tuple[Tensor, Tensor]:
    v = _hinge(h, kept, each, beta=beta, margin=margin)
    return v, (v > 0).to(h.dtype).mul_(-beta).mul_(up)


def _ipo(h: Tensor, kept: Kept, each: Tensor | None, *, beta: float, margin: float) -> Tensor:
    return _beyond(h, each, beta, margin).square()


def _ipo_step(
    h: Tensor, up: Tensor | float, kept: Kept, each: Tensor | None, *, beta: float, margin: float
) -> tuple[Tensor, Tensor]:
    d = _beyond(h, each, beta, margin)
    return d.square(), d.mul_(2).mul_(up)


def _beyond(h: Tensor, each: Tensor | None, beta: float, margin: float) -> Tensor:
    d = h - (0.5 + margin) / beta
    return d if each is None else d - each / beta


LOGISTIC = Formula(_logistic, _logistic_step, ahead=True)
HINGE = Formula(_hinge, _hinge_step, ahead=True)
IPO = Formula(_ipo, _ipo_step, ahead=True)
