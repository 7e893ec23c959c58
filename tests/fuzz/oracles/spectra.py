"""Distances of magnitude spectra, signal by signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.fuzz.oracles.common import reduced

__all__ = [
    "complex_stft_loss",
    "complex_stft_terms",
    "mel_loss",
    "mel_terms",
    "multi_resolution_stft_loss",
    "multi_resolution_stft_terms",
    "stft_loss",
    "stft_terms",
]

USUAL = dict(
    n_fft=1024,
    hop_length=None,
    win_length=None,
    window="hann",
    framing="center",
    power=1,
    sample_rate=None,
    frequency_weight=None,
    log="log",
    log_distance="l1",
    floor=1e-5,
    floor_by="add",
    log_weight=1.0,
    linear_distance="l1",
    linear_weight=0.0,
    convergence_weight=0.0,
    combine="mean",
)
MEL = USUAL | dict(
    n_mels=80, f_min=0.0, f_max=None, mel_scale="slaney", norm="slaney", empty_filters="refuse"
)
MULTI = USUAL | dict(
    n_fft=(1024, 2048, 512),
    hop_length=(120, 240, 50),
    win_length=(600, 1200, 240),
    convergence_weight=1.0,
)
MEL_PRESETS: dict[str, dict[str, Any]] = {  # of the projects' code
    "hifigan": dict(sample_rate=22050, hop_length=256, framing="tight", floor_by="clamp"),
    "pwg": dict(
        sample_rate=24000,
        hop_length=256,
        f_min=80.0,
        f_max=7600.0,
        log="log10",
        floor=1e-10,
        floor_by="clamp",
    ),
    "audiocraft": dict(
        sample_rate=32000,
        hop_length=256,
        framing="full",
        n_mels=64,
        f_min=64.0,
        mel_scale="htk",
        norm="none",
        power=2,
        log="log10",
    ),
    "audiocraft_multiscale": dict(
        sample_rate=32000,
        n_fft=(64, 128, 256, 512, 1024),
        framing="full",
        n_mels=64,
        mel_scale="htk",
        norm="none",
        power=2,
        log="log10",
        log_distance="l2",
        log_weight=[math.sqrt(2**i - 1) for i in range(6, 11)],
        linear_weight=1.0,
        combine="sum",
    ),
    "dac": dict(
        sample_rate=44100,
        n_fft=(32, 64, 128, 256, 512, 1024, 2048),
        n_mels=(5, 10, 20, 40, 80, 160, 320),
        log="log10",
        floor_by="clamp",
        combine="sum",
    ),
    "auraloss": dict(
        sample_rate=44100,
        hop_length=256,
        n_mels=128,
        floor=1e-8,
        floor_by="clamp",
        convergence_weight=1.0,
    ),
}
MULTI_PRESETS: dict[str, dict[str, Any]] = {
    "auraloss": dict(floor=1e-4, floor_by="clamp"),
    "pwg": dict(floor=1e-7**0.5, floor_by="clamp", log_weight=0.1, convergence_weight=0.1),
    "dac": dict(
        n_fft=(2048, 512),
        hop_length=None,
        win_length=None,
        log="log10",
        floor_by="clamp",
        log_weight=2.0,
        linear_weight=1.0,
        convergence_weight=0.0,
        combine="sum",
    ),
}


def _window(kind: Any, win: int) -> Tensor:
    if isinstance(kind, Tensor):
        return kind.double()
    angle = 2 * math.pi * torch.arange(win, dtype=torch.float64) / win
    a, b = {"hann": (0.5, 0.0), "hamming": (0.54, 0.0), "blackman": (0.42, 0.08)}[kind]
    made = a - (1 - a - b) * angle.cos() + b * (2 * angle).cos()
    return made if win > 1 else torch.ones(1, dtype=torch.float64)


def _bins(x: Tensor, n_fft: int, hop: int, win: int, framing: str, kind: Any = "hann") -> Tensor:
    """STFT of one signal ``(frames, n_fft // 2 + 1, 2)``, as real and imaginary part."""
    pad = n_fft // 2 if framing == "center" else (n_fft - hop) // 2
    x = F.pad(x[None, None], (pad, pad), mode="reflect")[0, 0]
    if framing == "full":  # zeros up to a whole frame
        x = F.pad(x, (0, -(len(x) - n_fft) % hop if len(x) > n_fft else n_fft - len(x)))
    window = _window(kind, win)
    left = (n_fft - win) // 2
    window = F.pad(window, (left, n_fft - win - left))
    return torch.view_as_real(torch.fft.rfft(x.unfold(0, n_fft, hop) * window))


def _length(bins: Tensor) -> Tensor:
    square = bins.square().sum(-1)
    some = square > 0
    return torch.where(some, torch.where(some, square, 1.0).sqrt(), 0.0)


def _a_weighted(f: Tensor) -> Tensor:
    """IEC 61672-1: the gain in dB, to 0 at 1 kHz."""

    def curve(f: Tensor) -> Tensor:
        s = f**2
        return (
            12194.217**2 * s**2 / (s + 20.598997**2) / (s + 12194.217**2)
            / ((s + 107.65265**2) * (s + 737.86223**2)) ** 0.5
        )  # fmt: skip

    return curve(f) / curve(torch.tensor(1000.0, dtype=torch.float64))


def _filters(
    rate: float, n_fft: int, n_mels: int, low: float, high: float | None, scale: str, norm: str
) -> Tensor:
    """Triangles evenly spaced in mel: Slaney's Auditory Toolbox, or HTK (O'Shaughnessy)."""

    def mel(f: float) -> float:
        if scale == "htk":
            return 2595 * math.log10(1 + f / 700)
        return f / (200 / 3) if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4)

    def hertz(m: float) -> float:
        if scale == "htk":
            return 700 * (10 ** (m / 2595) - 1)
        return m * (200 / 3) if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

    ends = mel(low), mel(rate / 2 if high is None else high)
    edges = [hertz(ends[0] + (ends[1] - ends[0]) * i / (n_mels + 1)) for i in range(n_mels + 2)]
    f = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    rows = []
    for a, b, c in zip(edges, edges[1:], edges[2:], strict=False):
        row = torch.minimum((f - a) / (b - a), (c - f) / (c - b)).clamp(min=0)
        rows.append(row * (2 / (c - a) if norm == "slaney" else 1.0))
    return torch.stack(rows)


def _distances(a: Tensor, b: Tensor, w: Tensor, o: dict[str, Any]) -> dict[str, Tensor]:
    """Arik et al. 2018 (arXiv:1808.06719), eq. 1 and 2, of spectra A and B."""
    f = o["floor"]
    low, high = (a + f, b + f) if o["floor_by"] == "add" else (a.clamp(min=f), b.clamp(min=f))
    log = torch.log1p((low - high).abs() / torch.minimum(low, high))
    log = log / math.log(10) if o["log"] == "log10" else log
    log = log**2 if o["log_distance"] == "l2" else log
    log = (log * w).mean(0).sum() / w.sum() if w.sum() > 0 else log.sum() * 0
    a, b = a * w ** o["power"], b * w ** o["power"]
    off = (a - b) ** 2 if o["linear_distance"] == "l2" else (a - b).abs()
    noise, whole = (a - b).square().sum(), b.square().sum()
    convergence = (noise / whole).sqrt() if noise > 0 and whole > 0 else noise * 0
    return {"log": log, "linear": off.mean(), "convergence": convergence}


def _listed(sizes: Any) -> list[int]:
    return list(sizes) if isinstance(sizes, Sequence) else [sizes]


def _prepared(a: Any) -> tuple[Tensor, Tensor]:
    x, t = a.estimate, a.target
    if a.stereo == "sum_difference":
        x, t = (
            torch.stack((v[..., 0, :] + v[..., 1, :], v[..., 0, :] - v[..., 1, :]), -2)
            for v in (x, t)
        )
    if a.pre_emphasis:
        x, t = (v - a.pre_emphasis * F.pad(v, (1, 0))[..., :-1] for v in (x, t))
    return x, t


def _each(given: Any, count: int) -> list[Any]:
    return _listed(given) * (count // len(_listed(given)))


def _values(x: Tensor, t: Tensor, size: Tensor, o: dict[str, Any]) -> list[list[dict[str, Tensor]]]:
    """The parts of each resolution, of each signal; none where it is removed."""
    ffts = _listed(o["n_fft"])
    many = len(ffts)
    hops = [n // 4 for n in ffts] if o["hop_length"] is None else _each(o["hop_length"], many)
    wins = ffts if o["win_length"] is None else _each(o["win_length"], many)
    mels = _each(o.get("n_mels"), many)
    found = []
    for e, s, n in zip(x, t, size.tolist(), strict=True):
        parts = []
        for n_fft, hop, win, n_mels in zip(ffts, hops, wins, mels, strict=True) if n else ():
            spectra = [
                _length(_bins(v[:n], n_fft, hop, win, o["framing"], o["window"])) for v in (e, s)
            ]
            spectra = [v if o["power"] == 1 else v.square() for v in spectra]
            hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) / n_fft
            w = o["frequency_weight"]
            w = _a_weighted(hertz * o["sample_rate"]) if isinstance(w, str) else w
            w = torch.ones_like(hertz) if w is None else w.double()
            if n_mels:
                bank = _filters(
                    o["sample_rate"],
                    n_fft,
                    n_mels,
                    o["f_min"],
                    o["f_max"],
                    o["mel_scale"],
                    o["norm"],
                )
                spectra = [v @ bank.T for v in spectra]
                empty = bank.sum(1) == 0
                uniform = o["frequency_weight"] is None
                w = torch.where(
                    empty, float(uniform), (bank @ w) / bank.sum(1).masked_fill(empty, 1)
                )
            parts.append(_distances(*spectra, w, o))
        found.append(parts)
    return found


def _spectral(a: Any, o: dict[str, Any], term: str | None) -> Any:
    x, t = _prepared(a)
    shape, length = x.shape[:-1], x.shape[-1]
    size = torch.full(shape, length)
    if a.lengths is not None:
        size = a.lengths.long().reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    size = size.reshape(-1)
    x, t = x.reshape(len(size), length), t.reshape(len(size), length)
    many = len(_listed(o["n_fft"]))
    over = many if o["combine"] == "mean" else 1
    channel = torch.tensor([1.0]) if a.stereo == "channels" else torch.tensor(a.stereo_weight)
    channel = channel.double().repeat(len(size) // len(channel))
    parts = _values(x, t, size, o)
    nothing = [(e[:0].sum() + s[:0].sum()) * 0 for e, s in zip(x, t, strict=True)]

    def of(weights: dict[tuple[str, int], float], name: str) -> Tensor:
        values = [
            sum((w * p[i][part] for (part, i), w in weights.items() if p and w), none) * c / over
            for p, none, c in zip(parts, nothing, channel, strict=True)
        ]
        loss = torch.stack(values).reshape(shape) if values else x.sum(-1).reshape(shape) * 0
        return reduced(loss, (size > 0).sum(), a.reduction, name)

    kinds = ("log", "linear", "convergence")
    if term is None:
        return {
            part if many == 1 else f"{part}_{i}": of(
                {(part, i): 1.0}, part if many == 1 else f"{part}_{i}"
            )
            for i in range(many)
            for part in kinds
        }
    return of({(k, i): w for k in kinds for i, w in enumerate(_each(o[f"{k}_weight"], many))}, term)


def _chosen(a: Any, usual: dict[str, Any], presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    o = usual | presets.get(getattr(a, "preset", None), {})
    return o | {k: v for k, v in vars(a).items() if v is not None and k in o}


def stft_loss(a: Any, term: str | None = "stft") -> Any:
    return _spectral(a, USUAL | {k: v for k, v in vars(a).items() if k in USUAL}, term)


def stft_terms(a: Any) -> Any:
    return stft_loss(a, None)


def multi_resolution_stft_loss(a: Any, term: str | None = "multi_resolution_stft") -> Any:
    """Yamamoto et al. 2020 (arXiv:1910.11480), eq. 6."""
    o = _chosen(a, MULTI, MULTI_PRESETS)
    if a.n_fft is not None:  # what is not given follows it
        o |= dict(hop_length=a.hop_length, win_length=a.win_length)
    return _spectral(a, o, term)


def multi_resolution_stft_terms(a: Any) -> Any:
    return multi_resolution_stft_loss(a, None)


def mel_loss(a: Any, term: str | None = "mel") -> Any:
    """Kong et al. 2020 (arXiv:2010.05646), eq. 6, without its weight."""
    return _spectral(a, _chosen(a, MEL, MEL_PRESETS), term)


def mel_terms(a: Any) -> Any:
    return mel_loss(a, None)


def _compressed(a: Any, shares: dict[str, float], term: str) -> Tensor:
    """Braun and Tashev 2020 (arXiv:2009.12286), linear below the floor."""
    size = torch.full((len(a.estimate),), a.estimate.shape[-1])
    size = size if a.lengths is None else a.lengths.long()
    hop, win = a.hop_length or a.n_fft // 4, a.win_length or a.n_fft
    values = []
    for e, s, n in zip(a.estimate, a.target, size.tolist(), strict=True):
        if not n:
            values.append((e[:0].sum() + s[:0].sum()) * 0)
            continue
        x, y = (_bins(v[:n], a.n_fft, hop, win, a.framing) for v in (e, s))
        x, y = (
            v * (v.square().sum(-1, keepdim=True) + a.floor**2) ** ((a.compression - 1) / 2)
            for v in (x, y)
        )
        found = {
            "magnitude": (_length(x) - _length(y)).square().mean(),
            "complex": (x - y).square().sum(-1).mean(),
        }
        values.append(sum(share * found[name] for name, share in shares.items()))
    loss = torch.stack(values) if values else a.estimate.sum(-1) * 0
    return reduced(loss, (size > 0).sum(), a.reduction, term)


def complex_stft_loss(a: Any) -> Tensor:
    shares = {"magnitude": 1 - a.complex_weight, "complex": a.complex_weight}
    return _compressed(a, shares, "complex_stft")


def complex_stft_terms(a: Any) -> dict[str, Tensor]:
    return {name: _compressed(a, {name: 1.0}, name) for name in ("magnitude", "complex")}
