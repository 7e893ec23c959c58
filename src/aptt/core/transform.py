"""Magnitude spectra of signals, and the way back from a slope along them to one along samples.

    reflected signal  ->  frames  ->  windowed  ->  X  ->  |X|**power  ->  mel filters, or none

The way back is the adjoint of each, in the opposite order. Autograd's of a real transform takes a
complex one of twice the size; here it is the inverse real transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.mel import Bank, filterbank
from aptt.core.ordinary import apart, inside_functorch, ordinary

__all__ = ["Framing", "Resolution", "Spectrum", "back_to_samples", "check_filters", "spectrum"]

Framing = Literal["center", "tight", "full"]


@dataclass(frozen=True)
class Resolution:
    """How a signal is cut into frames, and what is taken of each frame's spectrum."""

    n_fft: int
    hop: int
    win: int
    framing: Framing
    bank: Bank | None = None

    @property
    def pad(self) -> int:
        """How far the signal is reflected on either side."""
        return self.n_fft // 2 if self.framing == "center" else (self.n_fft - self.hop) // 2

    def frames(self, length: Any) -> Any:
        """How many frames a signal has: of a number, or of a tensor of numbers."""
        room = length + 2 * self.pad - self.n_fft
        if self.framing == "full":
            room = room + self.hop - 1
        count = room // self.hop + 1
        return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)

    def span(self, length: int) -> int:
        """How many samples those frames reach over."""
        return (self.frames(length) - 1) * self.hop + self.n_fft


class Spectrum(NamedTuple):
    """What a transform gives, ``(N, frames, frequencies)``."""

    bins: Tensor
    """Complex."""
    magnitude: Tensor
    filtered: Tensor
    """The magnitude to its power, through the filters if there are any."""


def spectrum(x: Tensor, counts: Tensor | None, r: Resolution, power: int) -> Spectrum:
    """The spectrum of each signal ``(N, T)``, of which the first ``counts`` samples are there."""
    window, filters = _constants_for(r, x)
    size = x.shape[1]
    if counts is None and r.pad < size:
        end = r.pad + size
        padded = torch.cat(
            (
                x[:, 1 : r.pad + 1].flip(1),
                x,
                x[:, size - 1 - r.pad : size - 1].flip(1),
                x.new_zeros(len(x), max(r.span(size) - end - r.pad, 0)),
            ),
            1,
        )
    else:
        at, shown = _sources(r, size if counts is None else counts.unsqueeze(1), x)
        padded = torch.where(shown, x.gather(1, at.expand(len(x), -1)), 0.0)
    bins = torch.fft.rfft(_framed(padded[:, : r.span(size)], r) * window)
    magnitude = _magnitude(bins)
    filtered = magnitude if power == 1 else magnitude.square()
    return Spectrum(bins, magnitude, filtered if filters is None else product(filtered, filters))


def _framed(padded: Tensor, r: Resolution) -> Tensor:
    """``(N, frames, n_fft)``."""
    if not inside_functorch():
        return padded.unfold(1, r.n_fft, r.hop)
    first = torch.arange(0, padded.shape[1] - r.n_fft + 1, r.hop, device=padded.device)
    at = first.unsqueeze(1) + torch.arange(r.n_fft, device=padded.device)
    return padded[:, at]  # vmap has no rule for the adjoint of unfold


def _magnitude(bins: Tensor) -> Tensor:
    """``|X|``, whose slope at 0 is 0: exact but for magnitudes beside the root of the tiniest."""
    re, im = torch.view_as_real(bins).unbind(-1)
    tiny = torch.finfo(re.dtype).tiny
    return torch.addcmul(re * re, im, im).add_(tiny).sqrt() - tiny**0.5


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, in double precision: autocast and TF32 leave that alone, there and back."""
    return a @ b if a.device.type == "mps" else (a.double() @ b.double()).to(a.dtype)


def back_to_samples(
    slope: Tensor,
    s: Spectrum,
    x: Tensor,
    counts: Tensor | None,
    r: Resolution,
    power: int,
) -> Tensor:
    """The slope along the samples, of one along the filtered spectrum."""
    window, filters = _constants_for(r, x)
    if filters is not None:
        slope = product(slope, filters.T)
    # |X| goes along X by X / |X|; all but the outermost bins stand for their mirror image too
    slope = slope * 2 if power == 2 else slope / s.magnitude.clamp(min=_TINY)
    twice = x.new_ones(r.n_fft // 2 + 1)
    twice[1 : (r.n_fft + 1) // 2] = 0.5
    bins = _scaled(s.bins, slope * twice)
    frames = torch.fft.irfft(bins, n=r.n_fft, norm="forward") * window
    return _unreflected(_overlapped(frames, r), x, counts, r)


_TINY = 1e-18  # of a magnitude that has no direction


def _scaled(bins: Tensor, factor: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # to which complex numbers are opaque
        return torch.view_as_complex(torch.view_as_real(bins) * factor.unsqueeze(-1))
    return bins * factor


def _overlapped(frames: Tensor, r: Resolution) -> Tensor:
    """``(N, span)``: each frame added where it was taken."""
    n, count, width = frames.shape
    steps = -(-width // r.hop)
    cut = F.pad(frames, (0, steps * r.hop - width)).unflatten(2, (steps, r.hop))
    lines = frames.new_zeros(n, count + steps - 1, r.hop)
    for j in range(steps):
        lines[:, j : j + count] += cut[:, :, j]
    return lines.flatten(1)[:, : (count - 1) * r.hop + width]


def _unreflected(padded: Tensor, x: Tensor, counts: Tensor | None, r: Resolution) -> Tensor:
    """``(N, T)``: each padded position added to the sample that it shows."""
    size = x.shape[1]
    if counts is None and r.pad < size:
        end = r.pad + size
        if padded.shape[1] < end + r.pad:
            padded = F.pad(padded, (0, end + r.pad - padded.shape[1]))
        dx = padded[:, r.pad : end].clone()
        if r.pad > 0:
            dx[:, 1 : r.pad + 1] += padded[:, : r.pad].flip(1)
            dx[:, size - 1 - r.pad : size - 1] += padded[:, end : end + r.pad].flip(1)
        return dx
    at, shown = _sources(r, size if counts is None else counts.unsqueeze(1), x)
    shows = torch.where(shown, padded, 0.0)
    return torch.zeros_like(x, memory_format=torch.contiguous_format).scatter_add(
        1, at.expand(len(x), -1), shows
    )


def _sources(r: Resolution, length: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which sample each padded position shows, reflected as often as needed; and where none."""
    at = (torch.arange(r.span(x.shape[1]), device=x.device) - r.pad).unsqueeze(0)
    shown = at < length + r.pad
    if isinstance(length, Tensor):
        length = length.clamp(min=1)  # of a signal that is removed too, there is one to show
        period: Any = (2 * (length - 1)).clamp(min=1)
    else:
        period = max(2 * (length - 1), 1)
    at = at.remainder(period)
    return torch.where(at < length, at, period - at), shown


# ------------------------------------------------------------------------------------ constants


def check_filters(r: Resolution) -> None:
    """Refuse a filter that is empty, before there is a signal; nothing to do while compiling."""
    if r.bank is not None and not torch.compiler.is_compiling():
        _held(r, torch.float32, torch.device("cpu"))


def _constants(
    r: Resolution, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The window amid a frame, and the filters, transposed, if there are any."""
    window = torch.hann_window(r.win, periodic=True, dtype=torch.float64, device="cpu")
    left = (r.n_fft - r.win) // 2
    window = F.pad(window, (left, r.n_fft - r.win - left)).to(dtype).to(device)
    if r.bank is None:
        return window, None
    return window, filterbank(r.bank, r.n_fft).T.to(dtype).to(device)


@lru_cache(maxsize=64)
def _held(r: Resolution, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    with apart():  # what another mode makes is no good to keep
        return _constants(r, dtype, device)


def _constants_for(r: Resolution, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Window and filters as ``x`` needs them, from a cache where ``x`` is an ordinary tensor."""
    plain = not torch.compiler.is_compiling() and ordinary(x) and not inside_functorch()
    return (_held if plain else _constants)(r, x.dtype, x.device)
