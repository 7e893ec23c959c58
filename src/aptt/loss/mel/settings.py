"""From the options of a spectral loss to its resolutions and distance, and its evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_number, check_positive
from aptt.core.formula import widen
from aptt.core.mel import Bank, Norm, Scale
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.signals import check_signals, count_samples
from aptt.core.spectral import SPECTRAL, Distance
from aptt.core.transform import Resolution, check_filters
from aptt.loss.mel.presets import MEL, MEL_PRESETS, RESOLUTIONS, STFT_PRESETS

__all__ = [
    "FloorBy",
    "Log",
    "Sizes",
    "bank",
    "check_ends",
    "check_one",
    "check_sizes",
    "mel_settings",
    "spectral",
    "stft_settings",
]

Log = Literal["log", "log10"]
FloorBy = Literal["add", "clamp"]
Sizes = int | Sequence[int]


def spectral(
    estimate: Tensor,
    target: Tensor,
    lengths: Numbers | None,
    resolutions: tuple[Resolution, ...],
    distance: Distance,
    stereo: str,
    reduction: Reduction,
    term: str,
) -> Tensor:
    """A spectral distance of each signal, reduced."""
    check_ends(stereo, reduction)
    lengths = check_signals(estimate, target, lengths)
    if stereo == "sum_difference":
        estimate, target = (_sum_and_difference(v) for v in (estimate, target))
    shape = estimate.shape[:-1]
    x, t = (v.reshape(math.prod(shape), v.shape[-1]) for v in (estimate, target))
    n = keep = None
    if lengths is not None or x.shape[1] == 0:
        n = count_samples(estimate, lengths)
        keep = n > 0
    shortest = x.shape[1]
    if lengths is not None:  # a look spares what short signals need
        there = lengths.masked_fill(lengths == 0, shortest)
        shortest = int(there.amin()) if is_readable(lengths) else 1
    value = reduce(
        SPECTRAL,
        x,
        t,
        n,
        weight=keep,
        count=lambda: len(x) if keep is None else keep.sum(),
        reduction=reduction,
        term=term,
        resolutions=resolutions,
        distance=distance,
        shortest=shortest,
    )
    return value.reshape(shape) if reduction == "none" else value


def _sum_and_difference(v: Tensor) -> Tensor:
    if v.ndim < 2 or v.shape[-2] != 2:
        raise ValueError(
            f"stereo: 'sum_difference' with estimate {tuple(v.shape)}, wanted (..., 2, T)"
        )
    left, right = widen(v).unbind(-2)
    return torch.stack((left + right, left - right), -2)


def mel_settings(
    sample_rate: float | None, preset: str | None, chosen: Mapping[str, Any]
) -> tuple[tuple[Resolution, ...], Distance]:
    """Resolutions and distance of a mel loss; an option that is None is as in the preset."""
    if (sample_rate is None) == (preset is None):
        raise ValueError(
            f"sample_rate: got {sample_rate} with preset={preset!r}, wanted exactly one of the two"
        )
    o = _filled(MEL, MEL_PRESETS, preset, chosen)
    rate = o["sample_rate"] if sample_rate is None else sample_rate
    banks = [
        bank(rate, n, o["f_min"], o["f_max"], o["mel_scale"], o["norm"], o["empty_filters"])
        for n in _listed(o["n_mels"])
    ]
    return _resolutions(o, banks), _distance(o)


def stft_settings(
    preset: str | None, chosen: Mapping[str, Any]
) -> tuple[tuple[Resolution, ...], Distance]:
    """Resolutions and distance of an STFT loss; an option that is None is as in the preset."""
    o = _filled(RESOLUTIONS, STFT_PRESETS, preset, chosen)
    if chosen["n_fft"] is not None:  # the others follow it, rather than what it replaces
        o |= {k: chosen[k] for k in ("hop_length", "win_length")}
    return _resolutions(o, [None]), _distance(o)


def _filled(
    usual: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    preset: str | None,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    if preset is not None:
        check_choice("preset", preset, tuple(presets))
        usual = {**usual, **presets[preset]}
    return {**usual, **{k: v for k, v in chosen.items() if v is not None}}


def bank(
    sample_rate: float,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    mel_scale: Scale,
    norm: Norm,
    empty_filters: str,
) -> Bank:
    """A bank of mel filters, from options that are checked here."""
    check_positive("sample_rate", sample_rate)
    check_sizes("n_mels", (n_mels,))
    top = sample_rate / 2 if f_max is None else f_max
    check_number("f_min", f_min, 0.0, sample_rate / 2)
    if not f_min < top <= sample_rate / 2:
        raise ValueError(
            f"f_max: got {top}, wanted more than f_min={f_min} and at most half of "
            f"sample_rate={sample_rate}"
        )
    check_choice("mel_scale", mel_scale, ("slaney", "htk"))
    check_choice("norm", norm, ("slaney", "none"))
    check_choice("empty_filters", empty_filters, ("refuse", "keep"))
    return Bank(
        float(sample_rate), n_mels, float(f_min), top, mel_scale, norm, empty_filters == "keep"
    )


def _resolutions(o: Mapping[str, Any], banks: Sequence[Bank | None]) -> tuple[Resolution, ...]:
    """One for each transform; what is given once holds for all of them."""
    ffts = _listed(o["n_fft"])
    hops = [n // 4 or 1 for n in ffts] if o["hop_length"] is None else _listed(o["hop_length"])
    wins = ffts if o["win_length"] is None else _listed(o["win_length"])
    for name, sizes in (("n_fft", ffts), ("hop_length", hops), ("win_length", wins)):
        check_sizes(name, sizes)
    check_choice("framing", o["framing"], ("center", "tight", "full"))
    for name, many in (
        ("hop_length", len(hops)),
        ("win_length", len(wins)),
        ("n_mels", len(banks)),
    ):
        if many not in (1, len(ffts)):
            raise ValueError(f"{name}: got {many} numbers for {len(ffts)} of n_fft")
    hops, wins = (list(v) * (len(ffts) // len(v)) for v in (hops, wins))
    banks = list(banks) * (len(ffts) // len(banks))
    made = []
    for n_fft, hop, win, filters in zip(ffts, hops, wins, banks, strict=True):
        for name, size in (("hop_length", hop), ("win_length", win)):
            if size > n_fft:
                raise ValueError(f"{name}: got {size}, wanted at most n_fft={n_fft}")
        made.append(Resolution(n_fft, hop, win, o["framing"], filters))
        if filters is not None and not filters.keep_empty:
            check_filters(made[-1])
    return tuple(made)


def _distance(o: Mapping[str, Any]) -> Distance:
    if o["power"] not in (1, 2):
        raise ValueError(f"power: got {o['power']}, wanted 1 or 2")
    check_choice("log", o["log"], ("log", "log10"))
    check_choice("floor_by", o["floor_by"], ("add", "clamp"))
    check_choice("combine", o["combine"], ("mean", "sum"))
    check_positive("floor", o["floor"])
    weights = {k: o[k] for k in ("log_weight", "linear_weight", "convergence_weight")}
    for name, weight in weights.items():
        check_number(name, weight)
    if not any(weights.values()):
        raise ValueError("log_weight: got 0, with no other weight above 0")
    return Distance(
        power=o["power"],
        decades=o["log"] == "log10",
        floor=o["floor"],
        clamps=o["floor_by"] == "clamp",
        logarithm=o["log_weight"],
        linear=o["linear_weight"],
        convergence=o["convergence_weight"],
        sums=o["combine"] == "sum",
    )


def _listed(sizes: Any) -> list[int]:
    return list(sizes) if isinstance(sizes, Sequence) else [sizes]


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Refuse what is no list of positive whole numbers."""
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"{name}: got {list(sizes)}, wanted positive whole numbers")


def check_one(**sizes: int | None) -> None:
    """Refuse what is no single positive whole number; None is one that follows another."""
    for name, size in sizes.items():
        if size is not None:
            check_sizes(name, (size,))


def check_ends(stereo: str, reduction: Reduction) -> None:
    """Refuse options of the channels and the reduction that do not exist."""
    check_reduction(reduction)
    check_choice("stereo", stereo, ("channels", "sum_difference"))
