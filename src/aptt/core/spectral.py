"""Spectra of signals, and distances between them that keep next to no memory.

    frames of windowed samples  ->  |X|**power  ->  mel filters, or none  ->  distances

The distances of two spectra A and B, each a mean over all frames and filters of a signal, but for
spectral convergence, a ratio of two norms over them:

    logarithm     mean |log(A + floor) - log(B + floor)|      or log(max(A, floor))
    linear        mean |A - B|
    convergence   ||A - B|| / ||B||, and 0 where B is 0

One definition is plain PyTorch, and one is by hand: signal by signal, with the gradient taken in
the same pass, by the adjoints of the filters, the transform and the framing. What it leaves for
backward is one number for each sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.shapes import is_readable
from aptt.core.signals import inside
from aptt.core.streaming import Formula, Work

__all__ = [
    "SPECTRAL",
    "Bank",
    "Distance",
    "Framing",
    "Norm",
    "Resolution",
    "Scale",
    "check_filters",
    "filterbank",
]

Framing = Literal["center", "tight", "full"]
Scale = Literal["slaney", "htk"]
Norm = Literal["slaney", "none"]


@dataclass(frozen=True)
class Bank:
    """Triangles over the frequencies, evenly spaced in mel."""

    sample_rate: float
    n_mels: int
    f_min: float
    f_max: float
    scale: Scale
    norm: Norm
    keep_empty: bool = False


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


def filterbank(bank: Bank, n_fft: int) -> Tensor:
    """The filters ``(n_mels, n_fft // 2 + 1)``, in float64.

    A filter that lies between two frequencies of the transform holds nothing, and is refused.
    """
    top = _to_mel(bank.f_max, bank.scale)
    mels = torch.linspace(
        _to_mel(bank.f_min, bank.scale), top, bank.n_mels + 2, dtype=torch.float64
    )
    edges = _to_hertz(mels, bank.scale)
    low, centre, high = (edges[i : i + bank.n_mels].unsqueeze(1) for i in range(3))
    hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (bank.sample_rate / n_fft)
    filters = torch.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre))
    filters = filters.clamp(min=0)
    if bank.norm == "slaney":
        filters = filters * (2 / (high - low))
    if not bank.keep_empty and is_readable(filters):
        empty = (filters.amax(1) == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"n_mels: {len(empty)} of {bank.n_mels} mel filters are empty, the first is "
                f"filter {empty[0]}, from {edges[empty[0]]:.1f} to {edges[empty[0] + 2]:.1f} Hz, "
                f"between two of the frequencies {bank.sample_rate / n_fft:.1f} Hz apart; wanted "
                "fewer n_mels, a larger n_fft, a higher f_min, or empty_filters='keep'"
            )
    return filters


def check_filters(r: Resolution) -> None:
    """Refuse a filter that is empty, before there is a signal; nothing to do while compiling."""
    if r.bank is not None and not torch.compiler.is_compiling():
        _held(r, torch.float32, torch.device("cpu"))


def _to_mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _to_hertz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * (math.log(6.4) / 27)))


def _constants(
    r: Resolution, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The window, and the filters, transposed, if there are any."""
    window = torch.hann_window(r.win, periodic=True, dtype=torch.float64).to(dtype).to(device)
    if r.bank is None:
        return window, None
    return window, filterbank(r.bank, r.n_fft).T.to(dtype).to(device)


@lru_cache(maxsize=64)
def _held(r: Resolution, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    with torch.inference_mode(False):
        return _constants(r, dtype, device)


def _constants_for(r: Resolution, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Window and filters as ``x`` needs them, from a cache where ``x`` is an ordinary tensor."""
    plain = (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type != "meta"
        and torch._C._functorch.peek_interpreter_stack() is None
    )
    return (_held if plain else _constants)(r, x.dtype, x.device)


def _sources(r: Resolution, length: Any, span: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which sample each padded position shows, reflected as often as needed; and where none."""
    at = torch.arange(span, device=device) - r.pad
    shown = at < length + r.pad
    if isinstance(length, Tensor):
        length = length.clamp(min=1)  # of a signal that is removed too, there is one to show
        period = (2 * (length - 1)).clamp(min=1)
        at = at.remainder(period)
        return torch.where(at < length, at, period - at), shown
    period = max(2 * (length - 1), 1)
    at = at.remainder(period)
    return torch.where(at < length, at, period - at), shown


def _spectrum(x: Tensor, counts: Tensor | None, r: Resolution, power: int) -> Tensor:
    """``(N, frames, filters)`` of signals ``(N, T)``."""
    window, filters = _constants_for(r, x)
    size = x.shape[1]
    if counts is None:
        at, shown = _sources(r, size, r.span(size), x.device)
        padded = x.index_select(1, at)
    else:
        at, shown = _sources(r, counts.unsqueeze(1), r.span(size), x.device)
        padded = x.gather(1, at)
    padded = torch.where(shown, padded, 0.0)
    left = (r.n_fft - r.win) // 2
    starts = torch.arange(r.frames(size), device=x.device) * r.hop + left
    grid = starts.unsqueeze(1) + torch.arange(r.win, device=x.device)
    framed = padded.index_select(1, grid.flatten()).unflatten(1, grid.shape)
    spectrum = torch.fft.rfft(framed * window, n=r.n_fft).abs()
    if power == 2:
        spectrum = spectrum.square()
    if filters is None:
        return spectrum
    if x.device.type == "mps":
        return spectrum @ filters
    # autocast would take a product in half precision, and its gradient; it leaves this one alone
    return (spectrum.double() @ filters.double()).to(x.dtype)


def _distance(
    x: Tensor,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distance: Distance,
) -> Tensor:
    """The distance of each signal ``(N, T)``."""
    if x.numel() == 0:
        return (x + t).sum(1)
    if counts is not None:
        real = inside(counts, x.shape[1])
        x, t = x.masked_fill(~real, 0.0), t.masked_fill(~real, 0.0)
    parts = [_at_one(x, t, counts, r, distance) for r in resolutions]
    value = torch.stack(parts).sum(0) if distance.sums else torch.stack(parts).mean(0)
    return value if counts is None else torch.where(counts > 0, value, 0.0)


def _at_one(x: Tensor, t: Tensor, counts: Tensor | None, r: Resolution, d: Distance) -> Tensor:
    a, b = _spectrum(x, counts, r, d.power), _spectrum(t, counts, r, d.power)
    size = a.shape[1] * a.shape[2]
    share = torch.full((), 1 / size, dtype=a.dtype, device=a.device)
    if counts is not None:
        frames = r.frames(counts)
        share = 1 / (frames * a.shape[2]).to(a.dtype)
        there = inside(frames, a.shape[1]).unsqueeze(2)
        a, b = torch.where(there, a, 0.0), torch.where(there, b, 0.0)  # where both are 0, so is
    value = torch.zeros_like(share)  # every part
    if d.logarithm:
        value = value + d.logarithm * d.unit * share * _log_ratio(a, b, d).sum((1, 2))
    if d.linear:
        value = value + d.linear * share * (a - b).abs().sum((1, 2))
    if d.convergence:
        value = value + d.convergence * _ratio((a - b).square().sum((1, 2)), b)
    return value


def _ratio(apart: Tensor, b: Tensor) -> Tensor:
    whole = b.square().sum((1, 2))
    some = (whole > 0) & (apart > 0)
    root = torch.where(some, apart, 1).sqrt() / torch.where(some, whole, 1).sqrt()
    return torch.where(some, root, 0 * apart)


def _log_ratio(a: Tensor, b: Tensor, d: Distance) -> Tensor:
    """The distance of two logarithms, as one, which is exact where the two are close."""
    if d.clamps:
        a, b = a.clamp(min=d.floor), b.clamp(min=d.floor)
    least = torch.minimum(a, b)
    return torch.log1p((a - b).abs() / (least if d.clamps else least + d.floor))


# ------------------------------------------------------------------------------ by hand


def _forward(
    x: Tensor,
    work: Work,
    t: Tensor,
    counts: Tensor | None,
    *,
    resolutions: Sequence[Resolution],
    distance: Distance,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if x.device.type != "cpu" or x.shape[1] == 0:
        options: dict[str, Any] = {"resolutions": resolutions, "distance": distance}
        return _distance(x, t, counts, **options), ()
    value = x.new_zeros(x.shape[0])
    grad = torch.zeros_like(x, memory_format=torch.contiguous_format) if work.keeps else None
    share = 1 if distance.sums else 1 / len(resolutions)
    for rows, length in _alike(x, counts):
        e, s = x[rows, :length], t[rows, :length]
        slope = None if grad is None else grad[rows, :length]
        for r in resolutions:
            value[rows] += share * _one_by_hand(e, s, r, distance, share, slope, work)
    return value, () if grad is None else (grad,)


def _alike(x: Tensor, counts: Tensor | None) -> list[tuple[slice, int]]:
    """Signals of one length together; those of none left out."""
    if counts is None:
        return [(slice(None), x.shape[1])]
    return [(slice(i, i + 1), n) for i, n in enumerate(counts.tolist()) if n > 0]


def _backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    counts: Tensor | None,
    **options: Any,
) -> None:
    if kept:
        torch.mul(kept[0], up.unsqueeze(1) if up.ndim else up, out=out)
        return
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = _distance(x, t, counts, **options)
    out.copy_(torch.autograd.grad(value, x, up.expand_as(value))[0])


def _one_by_hand(
    e: Tensor,
    s: Tensor,
    r: Resolution,
    d: Distance,
    share: float,
    slope: Tensor | None,
    work: Work,
) -> Tensor:
    """The distance at one resolution; ``share`` of its gradient is added to ``slope``."""
    _, filters = _constants_for(r, e)
    _, b = _magnitude(s, r, d, work, "target")
    spectrum, a = _magnitude(e, r, d, work, "estimate")
    bare = a
    if filters is not None:
        a = torch.matmul(a, filters, out=_room(work, "mel", e, (*a.shape[:2], filters.shape[1])))
        b = torch.matmul(b, filters, out=_room(work, "mel of target", e, tuple(a.shape)))
    h = _room(work, "slope", e, tuple(a.shape))
    value = _compared(a, b, h, d, share, slope is not None, work)
    if slope is None:
        return value
    if filters is not None:
        h = torch.matmul(h, filters.T, out=_room(work, "slope of bins", e, tuple(bare.shape)))
    if d.power == 2:
        h.mul_(2)
    else:
        h.div_(bare.clamp_(min=_TINY))
    torch.view_as_real(spectrum).mul_(h.unsqueeze(-1))
    spectrum[..., 0] *= 2  # the others have a mirror image, which the inverse transform adds
    if r.n_fft % 2 == 0:
        spectrum[..., -1] *= 2
    _add_frames(slope, spectrum, r, work)
    return value


def _compared(
    a: Tensor, b: Tensor, h: Tensor, d: Distance, share: float, keeps: bool, work: Work
) -> Tensor:
    """The distance of two spectra, and into ``h`` its slope along ``a``; overwrites ``b``."""
    each = 1 / (a.shape[1] * a.shape[2])
    value = a.new_zeros(a.shape[0])
    c = work("compared", a)
    h.zero_()
    if d.linear or d.convergence:
        torch.sub(a, b, out=c)
        if d.convergence:
            squares = work("squares", a)
            whole = torch.mul(b, b, out=squares).sum((1, 2))
            apart = torch.mul(c, c, out=squares).sum((1, 2))
            some = (whole > 0) & (apart > 0)
            whole, apart = (torch.where(some, v, 1).sqrt() for v in (whole, apart))
            value += torch.where(some, d.convergence * apart / whole, 0)
            if keeps:
                factor = torch.where(some, share * d.convergence / apart / whole, 0)
                torch.mul(c, factor.view(-1, 1, 1), out=h)
        if d.linear:
            if keeps:
                h.add_(torch.sgn(c, out=work("sign", a)), alpha=share * d.linear * each)
            value += d.linear * each * c.abs_().sum((1, 2))
    if d.logarithm:
        sized = torch.clamp(a, min=d.floor, out=c) if d.clamps else a
        b = b.clamp_(min=d.floor) if d.clamps else b
        apart, least = work("squares", a), torch.minimum(sized, b, out=work("sign", a))
        torch.sub(sized, b, out=apart)
        if not d.clamps:
            least.add_(d.floor)
        if keeps:
            torch.sgn(apart, out=b).div_(sized if d.clamps else torch.add(a, d.floor, out=c))
            if d.clamps:
                b.mul_(torch.ge(a, d.floor, out=c))
            h.add_(b, alpha=share * d.logarithm * d.unit * each)
        value += d.logarithm * d.unit * each * apart.abs_().div_(least).log1p_().sum((1, 2))
    return value


def _room(
    work: Work, name: str, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> Tensor:
    return work(name, like.new_empty(()).expand(shape), dtype)


def _magnitude(
    x: Tensor, r: Resolution, d: Distance, work: Work, name: str
) -> tuple[Tensor, Tensor]:
    """The complex spectrum of each frame, but for its phase's offset, and its magnitude."""
    signals, length = x.shape
    window, _ = _constants_for(r, x)
    padded = _room(work, "padded", x, (signals, max(r.span(length), length + 2 * r.pad)))
    if r.pad < length:
        end = r.pad + length
        padded[:, : r.pad] = x[:, 1 : r.pad + 1].flip(1)
        padded[:, r.pad : end] = x
        padded[:, end : end + r.pad] = x[:, length - 1 - r.pad : length - 1].flip(1)
        padded[:, end + r.pad :] = 0
    else:
        at, shown = _sources(r, length, padded.shape[1], x.device)
        torch.index_select(x, 1, at, out=padded)
        padded[:, ~shown] = 0
    left = (r.n_fft - r.win) // 2
    count = r.frames(length)
    framed = _room(work, "framed", x, (signals, count, r.n_fft))
    cut = padded[:, left : padded.shape[1] - (r.n_fft - r.win - left)].unfold(1, r.win, r.hop)
    torch.mul(cut[:, :count], window, out=framed[..., : r.win])
    framed[..., r.win :] = 0
    kind = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    shape = (signals, count, r.n_fft // 2 + 1)
    spectrum = torch.fft.rfft(framed, out=_room(work, "spectrum", x, shape, kind))
    magnitude = torch.abs(spectrum, out=_room(work, name, x, shape))
    return spectrum, magnitude.square_() if d.power == 2 else magnitude


def _add_frames(slope: Tensor, spectrum: Tensor, r: Resolution, work: Work) -> None:
    """The adjoint of transform, window, frames and padding."""
    signals, length = slope.shape
    window, _ = _constants_for(r, slope)
    count = spectrum.shape[1]
    framed = _room(work, "framed", slope, (signals, count, r.n_fft))
    torch.fft.irfft(spectrum, n=r.n_fft, norm="forward", out=framed)
    cut = framed[..., : r.win].mul_(window / 2)
    left = (r.n_fft - r.win) // 2
    room = max(left + (count + -(-r.win // r.hop)) * r.hop, r.span(length), length + 2 * r.pad)
    padded = _room(work, "padded slope", slope, (signals, room)).zero_()
    for start in range(0, r.win, r.hop):
        width = min(r.hop, r.win - start)
        first = left + start
        lines = padded[:, first : first + count * r.hop].unflatten(1, (count, r.hop))
        lines[..., :width] += cut[..., start : start + width]
    if r.pad < length:
        end = r.pad + length
        slope += padded[:, r.pad : end]
        if r.pad > 0:
            slope[:, 1 : r.pad + 1] += padded[:, : r.pad].flip(1)
            slope[:, length - 1 - r.pad : length - 1] += padded[:, end : end + r.pad].flip(1)
    else:
        at, shown = _sources(r, length, room, slope.device)
        slope.index_add_(1, at, padded * shown)


SPECTRAL = Formula(_distance, _forward, _backward, block=2**16)
"""The distance of each signal: ``x`` and ``target`` are ``(N, T)``, ``counts`` None or ``(N,)``."""

_TINY = 1e-18  # of a magnitude that has no direction
