"""Where the frames of signals lie: reflected at their ends, and the adjoint of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from aptt.core.mel import Bank

__all__ = [
    "Canvas",
    "Framing",
    "Resolution",
    "Window",
    "canvases",
    "reflected",
    "unreflected",
]

Framing = Literal["center", "tight", "full"]
Window = Literal["hann", "hamming", "blackman"]


@dataclass(frozen=True)
class Resolution:
    """How a signal is cut into frames, and what is taken of each frame's spectrum."""

    n_fft: int
    hop: int
    win: int
    framing: Framing
    bank: Bank | None = None
    window: Window = "hann"
    a_rate: float | None = None
    """The sample rate, where frequencies weigh as the A-curve has it."""

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
    """One for all resolutions, but for those that want zeros after their reflection.

    In their order, where all are framed alike.
    """
    full = [(r,) for r in resolutions if r.framing == "full"]
    rest = tuple(r for r in resolutions if r.framing != "full")
    return [Canvas(members, size) for members in ([rest] if rest else []) + full]


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
