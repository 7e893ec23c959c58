"""A spectral loss, and its terms, of two signals and of settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_choice,
    check_number,
    check_tensors,
)
from aptt.core.differences import PARTS
from aptt.core.engine import evaluate
from aptt.core.formula import weighted
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, check_reduction, named, normalize, reduce
from aptt.core.signals import brightened, check_signals, count_samples
from aptt.core.spectral import SPECTRAL, SPECTRAL_PARTS
from aptt.loss.mel.settings import Settings

__all__ = ["Ends", "Stereo", "check_ends", "spectral", "spectral_terms"]

Stereo = Literal["channels", "sum_difference"]


class Ends(NamedTuple):
    """What is done to the signals before they are compared, and to the values after."""

    pre_emphasis: float
    stereo: str
    stereo_weight: Sequence[float]
    reduction: Reduction


def check_ends(ends: Ends) -> None:
    """Refuse options of the signals and the reduction that do not exist."""
    check_reduction(ends.reduction)
    check_number("pre_emphasis", ends.pre_emphasis, 0.0, 1.0)
    check_choice("stereo", ends.stereo, ("channels", "sum_difference"))
    weights = ends.stereo_weight
    if isinstance(weights, str) or not isinstance(weights, Sequence) or len(weights) != 2:
        raise ValueError(
            f"stereo_weight: got {weights!r}, wanted two numbers, of sum and of difference"
        )
    for number in weights:
        check_number("stereo_weight", number)
    if not any(weights):
        raise ValueError(f"stereo_weight: got {weights!r}, wanted one of the two above 0")
    if ends.stereo == "channels" and tuple(weights) != (1, 1):
        raise ValueError(
            f"stereo_weight: got {weights!r} for stereo='channels', wanted (1, 1), or "
            "stereo='sum_difference'"
        )


def spectral(
    estimate: Tensor,
    target: Tensor,
    lengths: Numbers | None,
    settings: Settings,
    ends: Ends,
    term: str,
) -> Tensor:
    """A spectral distance of each signal, reduced."""
    call = _prepared(estimate, target, lengths, settings.weighing(), ends)
    value = reduce(
        SPECTRAL,
        *call.sides,
        weight=call.weight,
        count=call.count,
        reduction=ends.reduction,
        term=term,
        **call.options,
    )
    return value.reshape(call.shape) if ends.reduction == "none" else value


def spectral_terms(
    estimate: Tensor, target: Tensor, lengths: Numbers | None, settings: Settings, ends: Ends
) -> dict[str, Tensor]:
    """Each part of each resolution before its weight; the spectra are computed once."""
    call = _prepared(estimate, target, lengths, settings, ends)
    several = len(settings.resolutions) > 1
    names = [
        f"{part}_{i}" if several else part
        for i in range(len(settings.resolutions))
        for part in PARTS
    ]
    x, t, n = call.sides
    weight = None if call.weight is None else call.weight.unsqueeze(1)
    if weight is not None:  # what weighs nothing is removed
        x, t = (v.masked_fill(weight == 0, 0.0) for v in (x, t))
    each = evaluate(SPECTRAL_PARTS, x, t, n, gather="values", **call.options)
    each = each if weight is None else weighted(each, weight)
    if ends.reduction == "none":
        return {name: v.reshape(call.shape) for name, v in zip(names, each.unbind(1), strict=True)}
    count = None if ends.reduction == "sum" else call.count()
    return {
        name: normalize(
            total, 1 if count is None else count, named(ends.reduction, name), term=name
        )
        for name, total in zip(names, each.sum(0).unbind(), strict=True)
    }


class _Prepared(NamedTuple):
    sides: tuple[Tensor, Tensor, Tensor | None]
    weight: Tensor | None
    count: Any
    options: dict[str, Any]
    shape: torch.Size


def _prepared(
    estimate: Tensor, target: Tensor, lengths: Numbers | None, settings: Settings, ends: Ends
) -> _Prepared:
    check_ends(ends)
    lengths = check_signals(estimate, target, lengths)
    window, bins = settings.window, settings.bins
    if window is not None:
        window = as_floats("window", window, estimate)
        check_tensors(estimate=estimate, window=window)
    if bins is not None:
        bins = as_weight("frequency_weight", bins, estimate)
        check_tensors(estimate=estimate, frequency_weight=bins)
    if ends.stereo == "sum_difference":
        estimate, target = (_sum_and_difference(v) for v in (estimate, target))
    if ends.pre_emphasis:
        estimate, target = (brightened(widen(v), ends.pre_emphasis) for v in (estimate, target))
    shape = estimate.shape[:-1]
    x, t = (v.reshape(math.prod(shape), v.shape[-1]) for v in (estimate, target))
    n = keep = None
    if lengths is not None or x.shape[1] == 0:
        n = count_samples(estimate, lengths)
        keep = n > 0
    shortest = x.shape[1]
    if lengths is not None:  # a look spares what short signals need
        there = lengths.masked_fill(lengths == 0, shortest)
        shortest = int(there.amin()) if is_readable(lengths) else 1
    return _Prepared(
        (x, t, n),
        _weight(x, keep, ends),
        lambda: len(x) if keep is None else keep.sum(),
        {
            "resolutions": settings.resolutions,
            "distances": settings.distances,
            "divisor": settings.divisor,
            "shortest": shortest,
            "window": window,
            "bins": bins,
        },
        shape,
    )


def _weight(x: Tensor, keep: Tensor | None, ends: Ends) -> Tensor | None:
    """What each signal weighs, sums and differences by turns."""
    if tuple(ends.stereo_weight) == (1, 1):
        return keep
    x = widen(x)
    parts = [x.new_full((len(x) // 2, 1), float(w)) for w in ends.stereo_weight]
    weight = torch.cat(parts, 1).reshape(-1)
    return weight if keep is None else weight * keep


def _sum_and_difference(v: Tensor) -> Tensor:
    if v.ndim < 2 or v.shape[-2] != 2:
        raise ValueError(
            f"stereo: 'sum_difference' with estimate {tuple(v.shape)}, wanted (..., 2, T)"
        )
    left, right = widen(v).unbind(-2)
    return torch.stack((left + right, left - right), -2)
