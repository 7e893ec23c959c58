"""The formulas of a policy's objective, by the logarithm of the ratio.

    clip     -A exp(l), with l held within its limits, on the side that the sign of A leaves
    cispo    -A min(ratio, cap) log_prob,    the ratio held constant

A limit itself lets a gradient pass: a ratio that is exactly 1, as before the first step, is never
held. The slope of -A exp(l) is itself, and 0 where l is held.

Axes: one number for each token, ``(N,)``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept
from aptt.loss.policy.powers import power

__all__ = ["CISPO", "CLIP", "Limits", "held_within", "limits_of"]


class Limits(NamedTuple):
    """The edges of the ratio, as logarithms."""

    low: float
    high: float
    dual: float | None
    cap: float


def limits_of(low: float, high: float, dual: float | None, cap: float) -> Limits:
    """From edges of the ratio, of which the first two are distances from 1."""
    return Limits(
        math.log1p(-low) if low < 1 else -math.inf,
        math.log1p(high),
        None if dual is None else math.log(dual),
        math.log(cap),
    )


def _log_ratio(x: Tensor, old: Tensor | None) -> Tensor:
    return x if old is None else x - old


def held_within(
    log_ratio: Tensor, advantage: Tensor, *, low: float, high: float, dual: float | None
) -> Tensor:
    """The logarithm of the ratio within its limits; a limit itself lets a gradient pass."""
    least = log_ratio.clamp(min=low, max=dual)
    return torch.where(advantage > 0, log_ratio.clamp(max=high), least)


def _times(factor: Tensor | None, advantage: Tensor) -> Tensor:
    return -advantage if factor is None else -advantage * factor


def _clip(
    x: Tensor,
    kept: Kept,
    old: Tensor | None,
    advantage: Tensor,
    factor: Tensor | None,
    *,
    low: float,
    high: float,
    dual: float | None,
) -> Tensor:
    held = held_within(_log_ratio(x, old), advantage, low=low, high=high, dual=dual)
    by = _times(factor, advantage)
    return by * power(torch.where(by == 0, 0.0, held), by)


def _clip_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    old: Tensor | None,
    advantage: Tensor,
    factor: Tensor | None,
    *,
    low: float,
    high: float,
    dual: float | None,
) -> tuple[Tensor, Tensor]:
    # the slope of -A exp(l) is itself, and 0 where l is held
    log_ratio, by = _log_ratio(x, old), _times(factor, advantage)
    held = held_within(log_ratio, advantage, low=low, high=high, dual=dual)
    v = by * power(torch.where(by == 0, 0.0, held), by)
    return v, torch.where(held == log_ratio, v, 0.0).mul_(up)


def _cispo(
    x: Tensor,
    kept: Kept,
    old: Tensor | None,
    advantage: Tensor,
    factor: Tensor | None,
    *,
    cap: float,
) -> Tensor:
    return _times(factor, advantage) * _capped(x, old, cap) * x


def _cispo_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    old: Tensor | None,
    advantage: Tensor,
    factor: Tensor | None,
    *,
    cap: float,
) -> tuple[Tensor, Tensor]:
    slope = _times(factor, advantage) * _capped(x, old, cap)
    return slope * x, slope.mul(up)


def _capped(x: Tensor, old: Tensor | None, cap: float) -> Tensor:
    """The ratio, a constant."""
    return _log_ratio(x.detach(), old).clamp(max=cap).exp()


CLIP = Formula(_clip, _clip_step, ahead=True)
CISPO = Formula(_cispo, _cispo_step, ahead=True)
