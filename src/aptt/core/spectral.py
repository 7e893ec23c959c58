"""Distances of two spectra A and B, at several resolutions.

    logarithm     mean |log(A + floor) - log(B + floor)|      or log(max(A, floor))
    linear        mean |A - B|
    convergence   ||A - B|| / ||B||, and 0 where B is 0

Each is a mean over all frames and filters of a signal, but for spectral convergence, a ratio of two
norms over them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, by_row
from aptt.core.signals import inside, present
from aptt.core.transform import (
    Canvas,
    Resolution,
    Spectrum,
    back_to_frames,
    canvases,
    filtered,
    reflected,
    spectrum,
    unreflected,
)

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
    shortest: int,
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    value = x.new_zeros(())
    for canvas, both, twice in _drawn(x, t, counts, resolutions):
        for r in canvas.resolutions:
            spectra = spectrum(both[:, canvas.reach(r)], r, distance.power)
            a, b, each = _within(spectra, twice, r)
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
    shortest: int,
) -> tuple[Tensor, Tensor]:
    value, dx = x.new_zeros(()), None
    for canvas, both, twice in _drawn(x, t, counts, resolutions):
        along = both.new_zeros(len(x), canvas.width)
        for r in canvas.resolutions:
            spectra = spectrum(both[:, canvas.reach(r)], r, distance.power)
            a, b, each = _within(spectra, twice, r)
            value, slope = _sloped(value, a, b, each, distance)
            along[:, canvas.reach(r)].add_(back_to_frames(slope, spectra, r, len(x)))
        more = unreflected(along, x, counts, canvas, shortest)
        dx = more if dx is None else dx + more
    assert dx is not None  # there is at least one resolution
    if not distance.sums:
        value, up = value / len(resolutions), up / len(resolutions)
    dx = dx * by_row(up)  # last: what is before it may be taken on the way there
    if counts is None:
        return value, dx
    return torch.where(counts > 0, value, 0.0), present(dx, counts)


def _drawn(
    x: Tensor, t: Tensor, counts: Tensor | None, resolutions: Sequence[Resolution]
) -> Iterator[tuple[Canvas, Tensor, Tensor | None]]:
    """Both signals, one after the other, on each canvas, with the counts of both."""
    both = torch.cat((present(x, counts), present(t, counts)))
    twice = None if counts is None else torch.cat((counts, counts))
    for canvas in canvases(resolutions, x.shape[1]):
        yield canvas, reflected(both, twice, canvas), twice


def _within(
    s: Spectrum, counts: Tensor | None, r: Resolution
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Two spectra, 0 for frames beyond the end, and the share of one number in the mean."""
    both = s.power
    if counts is not None:
        frames = r.frames(counts)
        both = torch.where(inside(frames, both.shape[1]).unsqueeze(2), both, 0.0)
    a, b = (filtered(v, r) for v in both.chunk(2))  # alike, which rows of one product need not be
    if counts is None:
        return a, b, 1 / (a.shape[1] * a.shape[2])
    return a, b, 1 / (frames[: len(a)] * a.shape[2]).to(a.dtype)


def _compared(a: Tensor, b: Tensor, each: Tensor | float, d: Distance) -> Tensor:
    """The distance of two spectra."""
    apart, value = a - b, a.new_zeros(len(a))
    if d.logarithm:
        value = value + _log_ratio(a, b, d).sum((1, 2)) * (d.logarithm * d.unit * each)
    if d.linear:
        value = value + apart.abs().sum((1, 2)) * (d.linear * each)
    if d.convergence:
        noise, whole, some = _energies(apart, b)
        ratio = noise.sqrt() / whole.sqrt()
        value = value + d.convergence * torch.where(some, ratio, 0 * apart.square().sum((1, 2)))
    return value


def _sloped(
    value: Tensor, a: Tensor, b: Tensor, each: Tensor | float, d: Distance
) -> tuple[Tensor, Tensor]:
    """``value`` and the distance of two spectra, and the slope of that along ``a``."""
    # |a - b| goes by its sign, log(a + f) by 1 / (a + f), and the norm of a - b by (a - b) / norm
    apart, slope = a - b, None
    if d.logarithm:
        weight = d.logarithm * d.unit * each
        if d.clamps:
            sized, other = a.clamp(min=d.floor), b.clamp(min=d.floor)
            raised = sized - other
            away = torch.sgn(raised).mul_(a >= d.floor)
        else:
            sized, other, raised, away = a + d.floor, b + d.floor, apart, torch.sgn(apart)
        logarithms = raised.abs().div_(torch.minimum(sized, other)).log1p_().sum((1, 2))
        value = _weighted(value, logarithms, weight)
        slope = away.div_(sized).mul_(_of_signal(weight))
    if d.linear:
        weight = d.linear * each
        value = _weighted(value, apart.abs().sum((1, 2)), weight)
        more = torch.sgn(apart).mul_(_of_signal(weight))
        slope = more if slope is None else slope.add_(more)
    if d.convergence:
        noise, whole = (torch.linalg.vector_norm(v, dim=(1, 2)) for v in (apart, b))
        factor = (noise * whole).reciprocal_()
        factor = factor.nan_to_num_(nan=torch.nan, posinf=0.0)  # where either is silent
        value = _weighted(value, factor * noise * noise, d.convergence)
        steep = _of_signal(factor)
        if slope is None:
            slope = apart.mul_(steep).mul_(d.convergence)
        else:
            slope = slope.addcmul_(apart, steep, value=d.convergence)
    assert slope is not None  # a distance weighs something
    return value, slope


def _weighted(value: Tensor, part: Tensor, weight: Tensor | float) -> Tensor:
    """``value + weight * part``."""
    if isinstance(weight, Tensor):
        return value + part * weight
    return torch.add(value, part, alpha=weight)


def _energies(apart: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of difference and target, or 1 for both where either has none; and where both have some."""
    noise, whole = apart.square().sum((1, 2)), b.square().sum((1, 2))
    some = ~((whole == 0) | (noise == 0))
    return torch.where(some, noise, 1.0), torch.where(some, whole, 1.0), some


@overload
def _of_signal(number: Tensor) -> Tensor: ...
@overload
def _of_signal(number: Tensor | float) -> Tensor | float: ...
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
"""The distance of each signal: ``x`` and ``target`` are ``(N, T)``, ``counts`` None or ``(N,)``.

No signal has fewer samples than ``shortest``, but none.
"""
