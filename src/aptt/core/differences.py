"""Distances of two spectra A and B, at several resolutions.

    logarithm     mean |log(A + floor) - log(B + floor)|      or log(max(A, floor))
    linear        mean |A - B|
    convergence   ||A - B|| / ||B||, and 0 where B is 0

Each is a mean over all frames and filters of a signal, but for spectral convergence, a ratio of two
norms over them; in the first two, differences may be squared. Where frequencies weigh w, the first
is a weighted mean, since a gain is the same in A and B and leaves their ratio alone; the others are
of ``w**power A`` and ``w**power B``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, overload

import torch
from torch import Tensor

from aptt.core.frames import Resolution
from aptt.core.transform import response

__all__ = ["PARTS", "Distance", "Heard", "compared", "heard", "sloped"]

PARTS = ("log", "linear", "convergence")


@dataclass(frozen=True)
class Distance:
    """What is compared at a resolution, and what each part weighs."""

    power: int
    decades: bool
    floor: float
    clamps: bool
    logarithm: float
    linear: float
    convergence: float
    log_squares: bool = False
    linear_squares: bool = False

    @property
    def unit(self) -> float:
        """Of the difference of logarithms."""
        unit = 1 / math.log(10) if self.decades else 1.0
        return unit**2 if self.log_squares else unit

    @property
    def parts(self) -> list[Distance]:
        """Each part alone, of weight 1."""
        return [
            replace(self, logarithm=float(i == 0), linear=float(i == 1), convergence=float(i == 2))
            for i in range(len(PARTS))
        ]


class Heard(NamedTuple):
    """How much frequencies weigh, by sizes that are 1 on average, and as a gain of spectra."""

    share: Tensor
    gain: Tensor


def heard(like: Tensor, r: Resolution, bins: Tensor | None, power: int) -> Heard | None:
    """How much the frequencies of a resolution weigh; None: all alike."""
    w = response(like, r, bins)
    if w is None:
        return None
    whole = w.sum()
    share = torch.where(whole == 0, 0.0, w * (len(w) / torch.where(whole == 0, 1.0, whole)))
    return Heard(share, w if power == 1 else w.square())


def compared(a: Tensor, b: Tensor, each: Tensor | float, d: Distance, h: Heard | None) -> Tensor:
    """The distance of two spectra."""
    value = a.new_zeros(len(a))
    if d.logarithm:
        ratio = _log_ratio(a, b, d)
        ratio = ratio.square() if d.log_squares else ratio
        ratio = ratio if h is None else ratio * h.share
        value = value + ratio.sum((1, 2)) * (d.logarithm * d.unit * each)
    if not (d.linear or d.convergence):
        return value
    apart = a - b
    if h is not None:
        apart, b = apart * h.gain, b * h.gain
    if d.linear:
        off = apart.square() if d.linear_squares else apart.abs()
        value = value + off.sum((1, 2)) * (d.linear * each)
    if d.convergence:
        noise, whole, some = _energies(apart, b)
        ratio = noise.sqrt() / whole.sqrt()
        value = value + d.convergence * torch.where(some, ratio, 0 * apart.square().sum((1, 2)))
    return value


def sloped(
    value: Tensor,
    a: Tensor,
    b: Tensor,
    each: Tensor | float,
    d: Distance,
    h: Heard | None,
) -> tuple[Tensor, Tensor]:
    """``value`` and the distance of two spectra, and the slope of that along ``a``."""
    # |a - b| goes by its sign, log(a + f) by 1 / (a + f), and the norm of a - b by (a - b) / norm;
    # a square of any goes by twice itself
    apart, slope = a - b, None
    if d.logarithm:
        weight = d.logarithm * d.unit * each
        if d.clamps:
            sized, other = a.clamp(min=d.floor), b.clamp(min=d.floor)
            raised = sized - other
            away = torch.sgn(raised).mul_(a >= d.floor)
        else:
            sized, other, raised, away = a + d.floor, b + d.floor, apart, torch.sgn(apart)
        logarithms = raised.abs().div_(torch.minimum(sized, other)).log1p_()
        if d.log_squares:
            away, logarithms = away.mul_(logarithms).mul_(2), logarithms.square()
        if h is not None:
            away, logarithms = away.mul_(h.share), logarithms.mul_(h.share)
        value = _weighted(value, logarithms.sum((1, 2)), weight)
        slope = away.div_(sized).mul_(_of_signal(weight))
    if h is not None and (d.linear or d.convergence):
        apart, b = apart * h.gain, b * h.gain
    if d.linear:
        weight = d.linear * each
        off, more = (
            (apart.square(), apart * 2) if d.linear_squares else (apart.abs(), torch.sgn(apart))
        )
        value = _weighted(value, off.sum((1, 2)), weight)
        more = (more if h is None else more.mul_(h.gain)).mul_(_of_signal(weight))
        slope = more if slope is None else slope.add_(more)
    if d.convergence:
        noise, whole = (torch.linalg.vector_norm(v, dim=(1, 2)) for v in (apart, b))
        factor = (noise * whole).reciprocal_()
        factor = factor.nan_to_num_(nan=torch.nan, posinf=0.0)  # where either is silent
        value = _weighted(value, factor * noise * noise, d.convergence)
        steep = _of_signal(factor)
        apart = apart if h is None else apart.mul_(h.gain)
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
