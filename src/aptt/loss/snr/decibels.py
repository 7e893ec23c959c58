"""What ratios of energies have in common: options, padding, silence, and the reduction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_flags, check_number
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.signals import (
    Pair,
    audible,
    check_signals,
    combined,
    count_samples,
    energy,
    pair,
    present,
)

__all__ = [
    "DECIBEL",
    "UNHEARD",
    "RatioModule",
    "Silent",
    "evaluated",
    "from_energies",
    "less_mean",
    "samples",
]

DECIBEL = 10 / math.log(10)
UNHEARD = 1e-30  # of the target's energy: an estimate this quiet is as bad as none

Silent = Literal["level", "skip"]


def evaluated(
    formula: Formula,
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None,
    zero_mean: bool,
    cap: float,
    silent: Silent,
    reduction: Reduction,
    term: str,
) -> Tensor:
    """A ratio of each signal, reduced.

    The formula has the layout of rows, one signal each, and is handed ``(x, t, n)``, where n is the
    number of samples that count, or None for all of them; the options are whether to subtract
    ``means``, and the ``least`` ratio that the cap allows.
    """
    check_options(zero_mean, cap, silent, reduction)
    lengths = check_signals(estimate, target, lengths)
    shape = estimate.shape[:-1]
    x, t = estimate, target
    if x.ndim != 2:
        x, t = (v.reshape(math.prod(shape), v.shape[-1]) for v in (x, t))
    n = keep = None
    if lengths is not None or x.shape[1] == 0:
        n = count_samples(estimate, lengths)
        keep = n > 0
    if silent == "skip":
        heard = _heard(t.to(widen(x[:0]).dtype), n, zero_mean)
        keep = heard if keep is None else keep & heard
    value = reduce(
        formula,
        x,
        t,
        n,
        weight=keep,
        count=lambda: len(x) if keep is None else keep.sum(),
        reduction=reduction,
        term=term,
        means=zero_mean,
        least=10 ** (-cap / 10),
    )
    return value.reshape(shape) if reduction == "none" else value


Energies = Callable[[Pair, Tensor, Tensor, Tensor | None, bool, float], tuple[Tensor, ...]]
"""``ratio(pair, x, t, counts, means, least)``: value, two slopes, one number for each sample."""


def from_energies(ratio: Energies, along: Literal["estimate", "error"] = "estimate") -> Formula:
    """The formula of a ratio of energies.

    ``ratio`` gives, for each signal, the value; its slope as a factor of the estimate (or of its
    error) and one of the target; and with ``means`` what is added to each sample's slope.
    """

    def stats(x: Tensor, t: Tensor, n: Tensor | None, *, means: bool, least: float) -> Kept:
        return ratio(pair(x, t, n, means=means), x, t, n, means, least)

    def result(x: Tensor, kept: Kept, t: Tensor, n: Tensor | None, **_: object) -> Tensor:
        return kept[0].to(x.dtype)

    def step(
        x: Tensor,
        up: Tensor | float,
        kept: Kept,
        t: Tensor,
        n: Tensor | None,
        *,
        means: bool,
        least: float,
    ) -> tuple[Tensor | None, Tensor]:
        known = bool(kept)
        if known and not means:
            e, s = present(x, n), present(t, n)
        else:
            e, s, _ = p = pair(x, t, n, means=means)
            kept = kept or ratio(p, x, t, n, means, least)
        first = e - s if along == "error" else e
        dx = combined(first, s, *(slope * up for slope in kept[1:]))
        return None if known else kept[0].to(x.dtype), dx if n is None else present(dx, n)

    return Formula(result, step, stats, ahead=True)


def check_options(zero_mean: bool, cap: float, silent: str, reduction: Reduction) -> None:
    """Refuse options that no ratio has."""
    check_reduction(reduction)
    check_flags(zero_mean=zero_mean)
    check_number("cap", cap, 1.0, 120.0)
    check_choice("silent", silent, ("level", "skip"))


def less_mean(power: Tensor, total: Tensor, t: Tensor, n: Tensor | None) -> Tensor:
    """The power of signals ``t`` less their means, of those less their first samples."""
    size = samples(power, t, n)
    mean = total / size
    return audible(power - total * mean, t[:, :1].sum(1) + mean, size, t.dtype)


def samples(like: Tensor, x: Tensor, n: Tensor | None) -> Tensor | float:
    """How many samples each row has, at least 1."""
    return x.shape[1] if n is None else n.clamp(min=1).to(like.dtype)


@torch.no_grad()
def _heard(t: Tensor, n: Tensor | None, means: bool) -> Tensor:
    """Which targets have any energy; one that is not a number has."""
    if not means:
        return energy(present(t, n)) != 0
    away = pair(t, t, n, means=True).t
    power, total = energy(away), away.sum(1)
    return less_mean(power, total, t, n) != 0


class RatioModule(LossModule):
    """The module form of a ratio: its options."""

    def __init__(
        self,
        zero_mean: bool = False,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(zero_mean, cap, silent, reduction)
        super().__init__(zero_mean=zero_mean, cap=cap, silent=silent, reduction=reduction)
