"""Magnitude spectra of signals, and the way back from a slope along them to one along samples.

    reflected signal  ->  frames  ->  windowed  ->  X  ->  |X|**power  ->  mel filters, or none

The way back is the adjoint of each, in the opposite order. Autograd's of a real transform takes a
complex one of twice the size; here it is the inverse real transform.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.frames import Resolution
from aptt.core.hearing import a_curve
from aptt.core.mel import filterbank
from aptt.core.ordinary import apart, inside_functorch, ordinary

__all__ = [
    "Spectrum",
    "back_to_frames",
    "check_filters",
    "filtered",
    "response",
    "spectrum",
]


class Spectrum(NamedTuple):
    """What a transform gives, ``(N, frames, frequencies)``."""

    bins: Tensor
    """Complex."""
    heard: Tensor
    """1, or 0 where a magnitude is no more than the rounding of its frame."""
    magnitude: Tensor | None
    """Above 0; None where the power is 2."""
    power: Tensor
    """The magnitude to its power, 0 where it is not heard."""


def spectrum(reach: Tensor, r: Resolution, power: int, window: Tensor | None = None) -> Spectrum:
    """The spectra of the frames in what a resolution reaches over of a canvas ``(N, width)``.

    ``window``: in place of the one that the resolution names.

    A transform rounds all frequencies of a frame alike, by the precision of its loudest: what is
    no louder than that is nothing, and counts as such, or a logarithm would make much of it.
    """
    bins = torch.fft.rfft(_framed(reach, r) * _windowing(reach, r, window))
    re, im = torch.view_as_real(bins).unbind(-1)
    square = torch.addcmul(re * re, im, im)
    info, found = torch.finfo(square.dtype), square.detach()
    least = (4 * info.eps) ** 2  # of the loudest
    heard = torch.sub(found, found.amax(2, keepdim=True), alpha=least).sgn().relu()
    if power == 2:
        return Spectrum(bins, heard, None, square * heard)
    magnitude = square.clamp(min=info.tiny).sqrt()  # a root of 0 would have a slope
    return Spectrum(bins, heard, magnitude, magnitude * heard)


def filtered(power: Tensor, r: Resolution) -> Tensor:
    """Through the filters, if there are any."""
    filters = _constants_for(r, power).filters
    return power if filters is None else product(power, filters)


def response(like: Tensor, r: Resolution, bins: Tensor | None) -> Tensor | None:
    """How much each frequency weighs, or the mean of it through each filter; None: all alike.

    ``bins``: in place of the curve that the resolution names, ``(n_fft // 2 + 1,)``.
    """
    if bins is None:
        return _constants_for(r, like).response
    filters = _constants_for(r, like).filters
    bins = bins.to(like.dtype)
    return bins if filters is None else _through(bins, filters)


def _through(bins: Tensor, filters: Tensor) -> Tensor:
    """The mean of numbers of frequencies through each filter; 0 through one that is empty."""
    whole = filters.sum(0)
    none = whole == 0
    return torch.where(none, 0.0, product(bins.unsqueeze(0), filters)[0]) / whole.masked_fill(
        none, 1
    )


def _windowing(x: Tensor, r: Resolution, window: Tensor | None) -> Tensor:
    return _constants_for(r, x).window if window is None else _amid(window.to(x.dtype), r)


def _amid(window: Tensor, r: Resolution) -> Tensor:
    """A window amid a frame."""
    left = (r.n_fft - r.win) // 2
    return F.pad(window, (left, r.n_fft - r.win - left))


def _framed(padded: Tensor, r: Resolution) -> Tensor:
    """``(N, frames, n_fft)``."""
    if not inside_functorch():
        return padded.unfold(1, r.n_fft, r.hop)
    first = torch.arange(0, padded.shape[1] - r.n_fft + 1, r.hop, device=padded.device)
    at = first.unsqueeze(1) + torch.arange(r.n_fft, device=padded.device)
    return padded[:, at]  # vmap has no rule for the adjoint of unfold


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, in double precision: autocast and TF32 leave that alone, there and back.

    From memory of its own, for a product rounds otherwise where ``a`` is aligned otherwise.
    """
    if a.device.type == "mps":
        return a @ b
    return (a.to(torch.float64, copy=True) @ b.double()).to(a.dtype)


def back_to_frames(
    slope: Tensor, s: Spectrum, r: Resolution, n: int, window: Tensor | None = None
) -> Tensor:
    """The slope along what is reached over, of one along the spectra of the first ``n`` signals."""
    filters = _constants_for(r, slope).filters
    if filters is not None:
        slope = product(slope, filters.T)
    # |X| goes along X by X / |X|, and |X|**2 by 2 X
    slope = slope * 2 if s.magnitude is None else slope / s.magnitude[:n]
    # all but the outermost bins stand for their mirror image too
    slope.narrow(2, 1, (r.n_fft + 1) // 2 - 1).mul_(0.5)
    bins = _scaled(s.bins[:n], slope.mul_(s.heard[:n]))
    frames = torch.fft.irfft(bins, n=r.n_fft, norm="forward") * _windowing(slope, r, window)
    return _overlapped(frames, r)


def _scaled(bins: Tensor, factor: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # to which complex numbers are opaque
        return torch.view_as_complex(torch.view_as_real(bins) * factor.unsqueeze(-1))
    return bins * factor


def _overlapped(frames: Tensor, r: Resolution) -> Tensor:
    """``(N, span)``: each frame added where it was taken."""
    n, count, width = frames.shape
    steps = -(-width // r.hop)
    # line j holds the j-th part of each frame; one step longer than it is read, it shifts by j
    lines = frames.new_zeros(n, steps, count + steps, r.hop)
    whole = (steps - 1) * r.hop
    lines[:, :-1, :count] = frames[..., :whole].unflatten(2, (steps - 1, r.hop)).transpose(1, 2)
    lines[:, -1, :count, : width - whole] = frames[..., whole:]
    shifted = lines.flatten(1, 2)[:, : steps * (count + steps - 1)]
    added = shifted.unflatten(1, (steps, count + steps - 1)).sum(1)
    return added.flatten(1)[:, : (count - 1) * r.hop + width]


# ------------------------------------------------------------------------------------ constants


def check_filters(r: Resolution) -> None:
    """Refuse a filter that is empty, before there is a signal; nothing to do while compiling."""
    if r.bank is not None and not torch.compiler.is_compiling():
        _held(r, torch.float32, torch.device("cpu"))


class _Constants(NamedTuple):
    """What does not change from call to call."""

    window: Tensor
    """Amid a frame."""
    filters: Tensor | None
    """Transposed."""
    response: Tensor | None


_WINDOWS = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
}


def _constants(r: Resolution, dtype: torch.dtype, device: torch.device) -> _Constants:
    made = _WINDOWS[r.window](r.win, periodic=True, dtype=torch.float64, device="cpu")
    filters = None if r.bank is None else filterbank(r.bank, r.n_fft).T
    curve = None
    if r.a_rate is not None:
        hertz = torch.arange(r.n_fft // 2 + 1, dtype=torch.float64, device="cpu")
        curve = a_curve(hertz * (r.a_rate / r.n_fft))
        curve = curve if filters is None else _through(curve, filters)
    ahead = device.type != "mps"  # which reads them later
    window, filters, curve = (
        None if t is None else t.to(dtype).to(device, non_blocking=ahead)
        for t in (_amid(made, r), filters, curve)
    )
    assert window is not None
    return _Constants(window, filters, curve)


@lru_cache(maxsize=64)
def _held(r: Resolution, dtype: torch.dtype, device: torch.device) -> _Constants:
    with apart():  # what another mode makes is no good to keep
        return _constants(r, dtype, device)


def _constants_for(r: Resolution, x: Tensor) -> _Constants:
    """Window and filters as ``x`` needs them, from a cache where ``x`` is an ordinary tensor."""
    plain = not torch.compiler.is_compiling() and ordinary(x) and not inside_functorch()
    return (_held if plain else _constants)(r, x.dtype, x.device)
