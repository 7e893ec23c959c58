"""Distances of two complex spectra X and Y, compressed alike.

    X^c         = (|X|**2 + f**2)**((c - 1) / 2) X            X |X|**(c - 1), finite at silence
    magnitude   mean (|X^c| - |Y^c|)**2
    complex     mean |X^c - Y^c|**2

over the frames and frequencies of each signal. With c = 1 nothing is compressed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept
from aptt.core.frames import Canvas, Resolution, reflected
from aptt.core.signals import inside, present
from aptt.core.transform import spectrum

__all__ = ["COMPRESSED"]


def _result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolution: Resolution,
    exponent: float,
    floor: float,
    weights: tuple[float, float],
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    r, canvas = resolution, Canvas((resolution,), x.shape[1])
    both = torch.cat((present(x, counts), present(t, counts)))
    twice = None if counts is None else torch.cat((counts, counts))
    bins = spectrum(reflected(both, twice, canvas)[:, canvas.reach(r)], r, 2).bins
    # each by itself: alike, which two halves of one power need not be
    a, b = (_compressed(torch.view_as_real(v), exponent, floor) for v in bins.chunk(2))
    share: Tensor | float = 1 / (a.shape[1] * a.shape[2])
    if counts is not None:
        frames = r.frames(counts)
        shown = inside(frames, a.shape[1])[..., None, None]
        a, b = torch.where(shown, a, 0.0), torch.where(shown, b, 0.0)
        share = 1 / (frames * a.shape[2]).to(a.dtype)
    value = x.new_zeros(())
    by_magnitude, by_complex = weights
    if by_magnitude:
        apart = _length(a) - _length(b)
        value = value + by_magnitude * apart.square().sum((1, 2))
    if by_complex:
        value = value + by_complex * (a - b).square().sum((1, 2, 3))
    value = value * share
    return value if counts is None else torch.where(counts > 0, value, 0.0)


def _compressed(parts: Tensor, exponent: float, floor: float) -> Tensor:
    # by hypotenuses: a square would leave the range long before its root does
    real, imaginary = parts.split(1, -1)
    size = torch.hypot(torch.hypot(real, real.new_full((), floor)), imaginary)
    return parts / size * size.pow(exponent)


def _length(parts: Tensor) -> Tensor:
    """The magnitude, with a slope of 0 at 0, which has no phase to grow in."""
    square = parts.square().sum(-1)
    none = square == 0
    return torch.where(none, 0.0, torch.where(none, 1.0, square).sqrt())


COMPRESSED = Formula(_result, ahead=True, block=2**16)
"""The distance of each signal: ``x`` and ``target`` are ``(N, T)``, ``counts`` None or ``(N,)``."""
