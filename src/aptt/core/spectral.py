"""Distances of the magnitude spectra of two signals, at several resolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aptt.core.differences import PARTS, Distance, compared, heard, sloped
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.frames import Canvas, Resolution, canvases, reflected, unreflected
from aptt.core.signals import inside, present
from aptt.core.transform import Spectrum, back_to_frames, filtered, spectrum

__all__ = ["SPECTRAL", "SPECTRAL_PARTS"]


def _result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distances: Sequence[Distance],
    divisor: int,
    shortest: int,
    window: Tensor | None = None,
    bins: Tensor | None = None,
) -> Tensor:
    if x.numel() == 0:
        return (x + t).sum(1)
    value, todo = x.new_zeros(()), iter(distances)
    for canvas, both, twice in _drawn(x, t, counts, resolutions):
        for r in canvas.resolutions:
            d = next(todo)
            spectra = spectrum(both[:, canvas.reach(r)], r, d.power, window)
            a, b, each = _within(spectra, twice, r)
            value = value + compared(a, b, each, d, heard(a, r, bins, d.power))
    if divisor != 1:
        value = value / divisor
    return value if counts is None else torch.where(counts > 0, value, 0.0)


def _parts(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distances: Sequence[Distance],
    divisor: int,
    shortest: int,
    window: Tensor | None = None,
    bins: Tensor | None = None,
) -> Tensor:
    """``(N, resolutions * parts)``: each part of each resolution, before its weight."""
    if x.numel() == 0:
        return (x + t).sum(1, keepdim=True).expand(-1, len(PARTS) * len(resolutions))
    found, todo = [], iter(distances)
    for canvas, both, twice in _drawn(x, t, counts, resolutions):
        for r in canvas.resolutions:
            d = next(todo)
            spectra = spectrum(both[:, canvas.reach(r)], r, d.power, window)
            a, b, each = _within(spectra, twice, r)
            weighing = heard(a, r, bins, d.power)
            found += [compared(a, b, each, part, weighing) for part in d.parts]
    value = torch.stack(found, 1)
    if divisor != 1:
        value = value / divisor
    return value if counts is None else torch.where(counts.unsqueeze(1) > 0, value, 0.0)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distances: Sequence[Distance],
    divisor: int,
    shortest: int,
    window: Tensor | None = None,
    bins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    value, dx, todo = x.new_zeros(()), None, iter(distances)
    for canvas, both, twice in _drawn(x, t, counts, resolutions):
        along = both.new_zeros(len(x), canvas.width)
        for r in canvas.resolutions:
            d = next(todo)
            spectra = spectrum(both[:, canvas.reach(r)], r, d.power, window)
            a, b, each = _within(spectra, twice, r)
            value, slope = sloped(value, a, b, each, d, heard(a, r, bins, d.power))
            along[:, canvas.reach(r)].add_(back_to_frames(slope, spectra, r, len(x), window))
        more = unreflected(along, x, counts, canvas, shortest)
        dx = more if dx is None else dx + more
    assert dx is not None  # there is at least one resolution
    if divisor != 1:
        value, up = value / divisor, up / divisor
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


SPECTRAL = Formula(_result, _step, ahead=True, block=2**16)
"""The distance of each signal: ``x`` and ``target`` are ``(N, T)``, ``counts`` None or ``(N,)``.

No signal has fewer samples than ``shortest``, but none. ``divisor``: what the
sum over the resolutions is divided by.
"""

SPECTRAL_PARTS = Formula(_parts, ahead=True, block=2**16)
"""Its parts, a column for each of :data:`PARTS` of each resolution."""
