"""Magnitude spectra of signals, and the way back from a slope along them to one along samples.

    reflected signal  ->  frames  ->  windowed  ->  X  ->  |X|**power  ->  mel filters, or none

The way back is the adjoint of each, in the opposite order. Autograd's of a real transform takes a
complex one of twice the size; here it is the inverse real transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.mel import Bank, filterbank
from aptt.core.ordinary import apart, inside_functorch, ordinary

__all__ = [
    "Canvas",
    "Framing",
    "Resolution",
    "Spectrum",
    "back_to_frames",
    "canvases",
    "check_filters",
    "filtered",
    "reflected",
    "spectrum",
    "unreflected",
]

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


@dataclass(frozen=True)
class Canvas:
    """Signals of one size, reflected so far that every one of its resolutions can cut frames."""

    resolutions: tuple[Resolution, ...]
    size: int

    @property
    def pad(self) -> int:
        """How far the signals are reflected to the left."""
        return max(r.pad for r in self.resolutions)

    @property
    def width(self) -> int:
        """Of all of it."""
        return self.pad + max(r.span(self.size) - r.pad for r in self.resolutions)

    def reach(self, r: Resolution) -> slice:
        """Which part of it the frames of a resolution reach over."""
        start = self.pad - r.pad
        return slice(start, start + r.span(self.size))


def canvases(resolutions: Sequence[Resolution], size: int) -> list[Canvas]:
    """One for all resolutions, but for those that want zeros after their reflection."""
    full = [(r,) for r in resolutions if r.framing == "full"]
    rest = tuple(r for r in resolutions if r.framing != "full")
    return [Canvas(members, size) for members in ([rest] if rest else []) + full]


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


def spectrum(reach: Tensor, r: Resolution, power: int) -> Spectrum:
    """The spectra of the frames in what a resolution reaches over of a canvas ``(N, width)``.

    A transform rounds all frequencies of a frame alike, by the precision of its loudest: what is
    no louder than that is nothing, and counts as such, or a logarithm would make much of it.
    """
    window, _ = _constants_for(r, reach)
    bins = torch.fft.rfft(_framed(reach, r) * window)
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
    _, filters = _constants_for(r, power)
    return power if filters is None else product(power, filters)


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


def back_to_frames(slope: Tensor, s: Spectrum, r: Resolution, n: int) -> Tensor:
    """The slope along what is reached over, of one along the spectra of the first ``n`` signals."""
    window, filters = _constants_for(r, slope)
    if filters is not None:
        slope = product(slope, filters.T)
    # |X| goes along X by X / |X|, and |X|**2 by 2 X
    slope = slope * 2 if s.magnitude is None else slope / s.magnitude[:n]
    # all but the outermost bins stand for their mirror image too
    slope.narrow(2, 1, (r.n_fft + 1) // 2 - 1).mul_(0.5)
    bins = _scaled(s.bins[:n], slope.mul_(s.heard[:n]))
    frames = torch.fft.irfft(bins, n=r.n_fft, norm="forward") * window
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


def reflected(x: Tensor, counts: Tensor | None, canvas: Canvas) -> Tensor:
    """``(N, width)``: signals ``(N, T)``, of which the first ``counts`` samples are there."""
    pad, size = canvas.pad, canvas.size
    if counts is not None or pad >= size:
        at, shown = _sources(canvas, size if counts is None else counts.unsqueeze(1), x)
        return torch.where(shown, x.gather(1, at.expand(len(x), -1)), 0.0)
    more = canvas.width - pad - size
    parts = [x[:, 1 : pad + 1].flip(1), x, x[:, size - 1 - min(pad, more) : size - 1].flip(1)]
    if more > pad:
        parts.append(x.new_zeros(len(x), more - pad))
    return torch.cat(parts, 1)[:, : canvas.width]


def unreflected(
    slope: Tensor, x: Tensor, counts: Tensor | None, canvas: Canvas, shortest: int
) -> Tensor:
    """``(N, T)``: a slope along each position of a canvas added to the sample that it shows.

    ``shortest`` is the least number of samples that any of the signals has.
    """
    pad, size = canvas.pad, canvas.size
    short = counts is not None or pad >= size
    if short:
        lengths = x.new_full((1,), size, dtype=torch.long) if counts is None else counts
        lengths = lengths.clamp(min=1).unsqueeze(1)
        at = torch.arange(canvas.width, device=x.device) - pad
        slope = torch.where(at < lengths + pad, slope, 0.0)
        alone = slope.sum(1, keepdim=True) if shortest < 2 else None
        slope = _folded(slope, at, lengths - 1, pad, shortest)
    dx = slope[:, pad : pad + size].clone()
    if dx.shape[1] < size:
        dx = F.pad(dx, (0, size - dx.shape[1]))
    left = min(pad, size - 1)
    if left > 0:
        dx[:, 1 : left + 1].add_(slope[:, pad - left : pad].flip(1))
    if short:
        dx.add_(_image(slope, torch.arange(size, device=x.device), lengths - 1, pad))
        return dx if alone is None else torch.where(lengths == 1, alone, dx)
    right = slope[:, pad + size : 2 * pad + size]
    if right.shape[1]:
        dx[:, size - 1 - right.shape[1] : size - 1].add_(right.flip(1))
    return dx


def _folded(slope: Tensor, at: Tensor, last: Tensor, pad: int, shortest: int) -> Tensor:
    """What lies beyond the first reflections of a signal at 0 and its ``last``, mirrored into them.

    Mirrors stand at either end of a signal, and their images 3, 9, 27 times as far apart. The
    outermost go first, and each adds one number to another: in no order that could change.
    """
    times = 1
    while max(shortest - 1, 1) * (3**times - 1) // 2 < pad:
        times += 1
    if times == 1:
        return slope
    near = 3 * pad + 1  # of longer signals nothing is mirrored twice
    part, at = slope[:, :near], at[:near]
    for k in range(times - 1, 0, -1):
        low = -last * ((3**k - 1) // 2)
        part = part + _image(part, at, low, pad, -1) + _image(part, at, last - low, pad)
    return torch.cat((part, slope[:, near:]), 1)


def _image(slope: Tensor, at: Tensor, mirror: Tensor, pad: int, side: int = 1) -> Tensor:
    """What a mirror shows at ``at``, of what lies behind it: on its right, or on its left."""
    image = 2 * mirror - at + pad
    there = (side * (mirror - at) > 0) & (image >= 0) & (image < slope.shape[1])
    return torch.where(
        there, slope.gather(1, image.clamp(0, slope.shape[1] - 1).expand(len(slope), -1)), 0.0
    )


def _sources(canvas: Canvas, length: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which sample each position shows, reflected as often as needed; and where none."""
    at = (torch.arange(canvas.width, device=x.device) - canvas.pad).unsqueeze(0)
    shown = at < length + canvas.pad
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
    ahead = device.type != "mps"  # which reads them later
    window = torch.hann_window(r.win, periodic=True, dtype=torch.float64, device="cpu")
    left = (r.n_fft - r.win) // 2
    window = F.pad(window, (left, r.n_fft - r.win - left)).to(dtype).to(device, non_blocking=ahead)
    if r.bank is None:
        return window, None
    return window, filterbank(r.bank, r.n_fft).T.to(dtype).to(device, non_blocking=ahead)


@lru_cache(maxsize=64)
def _held(r: Resolution, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    with apart():  # what another mode makes is no good to keep
        return _constants(r, dtype, device)


def _constants_for(r: Resolution, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Window and filters as ``x`` needs them, from a cache where ``x`` is an ordinary tensor."""
    plain = not torch.compiler.is_compiling() and ordinary(x) and not inside_functorch()
    return (_held if plain else _constants)(r, x.dtype, x.device)
