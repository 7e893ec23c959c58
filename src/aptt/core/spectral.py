"""Distances of two spectra A and B, at several resolutions.

    logarithm     mean |log(A + floor) - log(B + floor)|      or log(max(A, floor))
    linear        mean |A - B|
    convergence   ||A - B|| / ||B||, and 0 where B is 0

Each is a mean over all frames and filters of a signal, but for spectral convergence, a ratio of two
norms over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, by_row
from aptt.core.signals import inside, present
from aptt.core.transform import Resolution, back_to_samples, spectrum

__all__ = ["SPECTRAL", "Distance"]


@dataclass(frozen=True)
class Distance:
    """What is compared, and what each part weighs."""

    power: int
    decades: bool
    floor: float
    clamps: bool
    logarithm: float
    linear: float
    convergence: float
    sums: bool  # over the resolutions, rather than their mean

    @property
    def unit(self) -> float:
        """Of the logarithm."""
        return 1 / math.log(10) if self.decades else 1.0


def _result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distance: Distance,
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    x, t = present(x, counts), present(t, counts)
    value = x.new_zeros(())
    for r in resolutions:
        a, b = (spectrum(v, counts, r, distance.power).filtered for v in (x, t))
        a, b, each = _within(a, b, counts, r)
        value = value + _compared(a, b, each, distance)
    if not distance.sums:
        value = value / len(resolutions)
    return value if counts is None else torch.where(counts > 0, value, 0.0)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distance: Distance,
) -> tuple[Tensor, Tensor]:
    x, t = present(x, counts), present(t, counts)
    value, dx = x.new_zeros(()), torch.zeros_like(x)
    for r in resolutions:
        mine = spectrum(x, counts, r, distance.power)
        theirs = spectrum(t, counts, r, distance.power).filtered
        a, b, each = _within(mine.filtered, theirs, counts, r)
        value = value + _compared(a, b, each, distance)
        slope = _slope(a, b, each, distance)
        dx = dx + back_to_samples(slope, mine, x, counts, r, distance.power)
    if not distance.sums:
        value, dx = value / len(resolutions), dx / len(resolutions)
    dx = dx * by_row(up)  # last: what is before it may be taken on the way there
    if counts is None:
        return value, dx
    return torch.where(counts > 0, value, 0.0), present(dx, counts)


def _within(
    a: Tensor, b: Tensor, counts: Tensor | None, r: Resolution
) -> tuple[Tensor, Tensor, Tensor | float]:
    """The spectra with 0 for frames beyond the end, and the share of one number in the mean."""
    if counts is None:
        return a, b, 1 / (a.shape[1] * a.shape[2])
    frames = r.frames(counts)
    there = inside(frames, a.shape[1]).unsqueeze(2)
    each = 1 / (frames * a.shape[2]).to(a.dtype)
    return torch.where(there, a, 0.0), torch.where(there, b, 0.0), each


def _compared(a: Tensor, b: Tensor, each: Tensor | float, d: Distance) -> Tensor:
    """The distance of two spectra."""
    apart, value = a - b, a.new_zeros(len(a))
    if d.logarithm:
        value = value + d.logarithm * d.unit * each * _log_ratio(a, b, d).sum((1, 2))
    if d.linear:
        value = value + d.linear * each * apart.abs().sum((1, 2))
    if d.convergence:
        noise, whole, some = _energies(apart, b)
        ratio = noise.sqrt() / whole.sqrt()
        value = value + d.convergence * torch.where(some, ratio, 0 * apart.square().sum((1, 2)))
    return value


def _slope(a: Tensor, b: Tensor, each: Tensor | float, d: Distance) -> Tensor:
    """The slope of the distance along ``a``."""
    # |a - b| goes by its sign, log(a + f) by 1 / (a + f), and the norm of a - b by (a - b) / norm
    apart = a - b
    slope = torch.zeros_like(a)
    if d.logarithm:
        if d.clamps:
            sized = a.clamp(min=d.floor)
            sign = torch.sgn(sized - b.clamp(min=d.floor)) * (a >= d.floor)
        else:
            sized, sign = a + d.floor, torch.sgn(apart)
        slope = slope + (sign / sized).mul_(_of_signal(d.logarithm * d.unit * each))
    if d.linear:
        slope = slope + torch.sgn(apart).mul_(_of_signal(d.linear * each))
    if d.convergence:
        noise, whole, some = _energies(apart, b)
        factor = torch.where(some, d.convergence / (noise.sqrt() * whole.sqrt()), 0.0)
        slope = slope + apart * _of_signal(factor)
    return slope


def _energies(apart: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of difference and target, or 1 for both where either has none; and where both have some."""
    noise, whole = apart.square().sum((1, 2)), b.square().sum((1, 2))
    some = ~((whole == 0) | (noise == 0))
    return torch.where(some, noise, 1.0), torch.where(some, whole, 1.0), some


def _of_signal(number: Tensor | float) -> Tensor | float:
    """One number for each signal, or for all, against spectra."""
    return number.view(-1, 1, 1) if isinstance(number, Tensor) else number


def _log_ratio(a: Tensor, b: Tensor, d: Distance) -> Tensor:
    """The distance of two logarithms, as one, which is exact where the two are close."""
    if d.clamps:
        a, b = a.clamp(min=d.floor), b.clamp(min=d.floor)
    least = torch.minimum(a, b)
    return torch.log1p((a - b).abs() / (least if d.clamps else least + d.floor))


SPECTRAL = Formula(_result, _step, ahead=True, block=2**16)
"""The distance of each signal: ``x`` and ``target`` are ``(N, T)``, ``counts`` None or ``(N,)``."""
