"""Spectral losses: distances of magnitude spectra, plain or through mel filters.

    A, B  = |STFT| of estimate and target, to a power, through mel filters or not
    loss  = w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

over the frames and frequencies of each signal; several resolutions are averaged or added.

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: spectral convergence and log magnitude, Arik et al. 2018, arXiv:1808.06719, section 3.2;
several resolutions, Yamamoto et al. 2019 (Parallel WaveGAN), arXiv:1910.11480, eq. 6; mel, Kong
et al. 2020 (HiFi-GAN), arXiv:2010.05646, eq. 3; the mel scales, Slaney 1998 (Auditory Toolbox) and
Young et al. 2006 (HTK).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_choice, check_number, check_positive
from aptt.core.signals import check_signals, count_samples
from aptt.core.spectral import (
    SPECTRAL,
    Bank,
    Distance,
    Framing,
    Norm,
    Resolution,
    Scale,
    check_filters,
    filterbank,
)
from aptt.core.streaming import evaluate, widen

__all__ = [
    "MelLoss",
    "MultiResolutionSTFTLoss",
    "STFTLoss",
    "mel_filterbank",
    "mel_loss",
    "multi_resolution_stft_loss",
    "stft_loss",
]

Log = Literal["log", "log10"]
FloorBy = Literal["add", "clamp"]
Over = Literal["mean", "sum"]
Sizes = int | Sequence[int]

_PLAIN: Mapping[str, Any] = {
    "n_fft": 1024,
    "hop_length": None,
    "win_length": None,
    "framing": "center",
    "power": 1,
    "log": "log",
    "floor": 1e-5,
    "floor_by": "add",
    "log_weight": 1.0,
    "linear_weight": 0.0,
    "convergence_weight": 0.0,
    "scales": "mean",
}
_MEL: Mapping[str, Any] = {
    **_PLAIN,
    "n_mels": 80,
    "f_min": 0.0,
    "f_max": None,
    "scale": "slaney",
    "norm": "slaney",
    "empty_filters": "refuse",
}
_MEL_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "hifigan": {"sample_rate": 22050, "hop_length": 256, "framing": "tight", "floor_by": "clamp"},
    "pwg": {
        "sample_rate": 24000,
        "hop_length": 256,
        "f_min": 80.0,
        "f_max": 7600.0,
        "log": "log10",
        "floor": 1e-10,
        "floor_by": "clamp",
    },
    "audiocraft": {
        "sample_rate": 32000,
        "hop_length": 256,
        "framing": "full",
        "n_mels": 64,
        "f_min": 64.0,
        "scale": "htk",
        "norm": "none",
        "power": 2,
        "log": "log10",
    },
    "dac": {
        "sample_rate": 44100,
        "n_fft": (32, 64, 128, 256, 512, 1024, 2048),
        "n_mels": (5, 10, 20, 40, 80, 160, 320),
        "log": "log10",
        "floor_by": "clamp",
        "scales": "sum",
        "empty_filters": "keep",
    },
    "auraloss": {
        "sample_rate": 44100,
        "hop_length": 256,
        "n_mels": 128,
        "floor": 1e-8,
        "floor_by": "clamp",
        "convergence_weight": 1.0,
    },
}
_RESOLUTIONS: Mapping[str, Any] = {
    **_PLAIN,
    "n_fft": (1024, 2048, 512),
    "hop_length": (120, 240, 50),
    "win_length": (600, 1200, 240),
    "convergence_weight": 1.0,
}
_STFT_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "auraloss": {"floor": 1e-4, "floor_by": "clamp"},
    "pwg": {
        "floor": 1e-7**0.5,
        "floor_by": "clamp",
        "log_weight": 0.1,
        "convergence_weight": 0.1,
    },
    "dac": {
        "n_fft": (2048, 512),
        "hop_length": None,
        "win_length": None,
        "log": "log10",
        "floor_by": "clamp",
        "log_weight": 2.0,
        "linear_weight": 1.0,
        "convergence_weight": 0.0,
        "scales": "sum",
    },
}


def mel_filterbank(
    *,
    sample_rate: float,
    n_fft: int,
    n_mels: int = 80,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "slaney",
    norm: Norm = "slaney",
    empty_filters: Literal["refuse", "keep"] = "refuse",
) -> Tensor:
    """The mel filters ``(n_mels, n_fft // 2 + 1)`` in float64: triangles, evenly spaced in mel.

        max(0, min((f - l) / (c - l), (h - f) / (h - c)))      l, c, h: neighbours in mel

    Args:
        sample_rate: of the signal, in Hz.
        n_fft: the length of the transform.
        n_mels: how many filters.
        f_min: where the first one starts, in Hz.
        f_max: where the last one ends, in Hz; None: half the sample rate.
        scale: ``"slaney"``, linear below 1000 Hz, or ``"htk"``.
        norm: ``"slaney"`` gives each filter the area 1, ``"none"`` the height 1.
        empty_filters: a filter between two frequencies of the transform: ``"refuse"`` or
            ``"keep"``.

    Returns:
        What ``librosa.filters.mel`` gives in float64, whose ``htk=True`` is ``scale="htk"``.

    Raises:
        ValueError: an empty filter, frequencies out of range, an unknown option.
    """
    bank = _bank(sample_rate, n_mels, f_min, f_max, scale, norm, empty_filters)
    _check_sizes("n_fft", (n_fft,))
    return filterbank(bank, n_fft)


def mel_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    sample_rate: float | None = None,
    preset: str | None = None,
    n_fft: Sizes | None = None,
    hop_length: Sizes | None = None,
    win_length: Sizes | None = None,
    framing: Framing | None = None,
    n_mels: Sizes | None = None,
    f_min: float | None = None,
    f_max: float | None = None,
    scale: Scale | None = None,
    norm: Norm | None = None,
    empty_filters: Literal["refuse", "keep"] | None = None,
    power: Literal[1, 2] | None = None,
    log: Log | None = None,
    floor: float | None = None,
    floor_by: FloorBy | None = None,
    log_weight: float | None = None,
    linear_weight: float | None = None,
    convergence_weight: float | None = None,
    scales: Over | None = None,
    stereo: Literal["channels", "sum_difference"] = "channels",
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance of log-mel spectra, at one resolution or several.

        mean |log(M |STFT e| + f) - log(M |STFT s| + f)|      M: the mel filters

    An option that is None is as in the preset, or else as said here.

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        sample_rate: in Hz; this or ``preset``, exactly one.
        preset: the settings of ``"hifigan"`` (22050 Hz), ``"pwg"`` (24000), ``"audiocraft"``
            (32000), ``"dac"`` (44100) or ``"auraloss"`` (44100); without the weight that its
            training gives the term (45 in HiFi-GAN, 15 in DAC).
        n_fft: the length of the transform, 1024; several for several resolutions.
        hop_length: samples from frame to frame, a quarter of ``n_fft``.
        win_length: samples in the periodic Hann window, ``n_fft``.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``, as HiFi-GAN; ``"full"`` likewise, with zeros to a full frame.
        n_mels: mel filters, 80; one number, or one for each resolution.
        f_min: where the filters start, in Hz, 0.
        f_max: where they end, half the sample rate.
        scale: ``"slaney"`` (librosa's) or ``"htk"`` (torchaudio's).
        norm: ``"slaney"``, filters of equal area, or ``"none"``, of equal height.
        empty_filters: ``"refuse"`` a filter that no frequency falls into, or ``"keep"`` it.
        power: of the magnitude, before the filters, 1 or 2.
        log: ``"log"`` or ``"log10"``.
        floor: what silence counts as, after the filters, 1e-5.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance, 1.
        linear_weight: of the distance without a logarithm, 0.
        convergence_weight: of spectral convergence, 0. It is 0 where the target is silent.
        scales: ``"mean"`` over the resolutions, or ``"sum"``.
        stereo: ``"sum_difference"`` compares the sum and the difference of ``(..., 2, T)``.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types, and computed in float32.

    Raises:
        ValueError: shapes that differ, neither or both of ``sample_rate`` and ``preset``, an empty
            mel filter, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. It is finite everywhere, and
    0 at exact silence, which has no phase to grow in: add a loss of the waveform.

    Use when:
        Speech or music is generated: what is heard is compared, and the phase is free.

    Elsewhere:
        auraloss ``MelSTFTLoss``, audiocraft ``MelSpectrogramL1Loss``, DAC ``MelSpectrogramLoss``,
        ParallelWaveGAN ``MelSpectrogramLoss``.

    Differs from:
        All of them: the floor is applied once, after the filters, so there is no NaN; a filter that
            is empty is refused; a value for each signal.
        HiFi-GAN, ParallelWaveGAN, auraloss: they also floor the magnitude before the filters, at
            3e-5, 1e-5 and 1e-4, which only the quietest signals show.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> round(mel_loss(0.5 * noise, noise, sample_rate=16000).item(), 3)
        0.693
    """
    chosen = {
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "framing": framing,
        "n_mels": n_mels,
        "f_min": f_min,
        "f_max": f_max,
        "scale": scale,
        "norm": norm,
        "empty_filters": empty_filters,
        "power": power,
        "log": log,
        "floor": floor,
        "floor_by": floor_by,
        "log_weight": log_weight,
        "linear_weight": linear_weight,
        "convergence_weight": convergence_weight,
        "scales": scales,
    }
    resolutions, distance = _mel_settings(sample_rate, preset, chosen)
    return _spectral(estimate, target, lengths, resolutions, distance, stereo, reduction, "mel")


def stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    n_fft: int = 1024,
    hop_length: int | None = None,
    win_length: int | None = None,
    framing: Framing = "center",
    power: Literal[1, 2] = 1,
    log: Log = "log",
    floor: float = 1e-5,
    floor_by: FloorBy = "add",
    log_weight: float = 1.0,
    linear_weight: float = 0.0,
    convergence_weight: float = 1.0,
    stereo: Literal["channels", "sum_difference"] = "channels",
    reduction: Reduction = "mean",
) -> Tensor:
    """Spectral convergence and log-magnitude distance of two signals.

        ||A - B|| / ||B|| + mean |log(A + f) - log(B + f)|      A = |STFT e|, B = |STFT s|

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        n_fft: the length of the transform.
        hop_length: samples from frame to frame; None: a quarter of ``n_fft``.
        win_length: samples in the periodic Hann window; None: ``n_fft``.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``; ``"full"`` likewise, with zeros to a full frame.
        power: of the magnitude, 1 or 2.
        log: ``"log"`` or ``"log10"``.
        floor: what silence counts as.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance.
        linear_weight: of the distance without a logarithm.
        convergence_weight: of spectral convergence. It is 0 where the target is silent.
        stereo: ``"sum_difference"`` compares the sum and the difference of ``(..., 2, T)``.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types, and computed in float32.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. It is finite everywhere, and
    0 at exact silence, which has no phase to grow in: add a loss of the waveform.

    Use when:
        The spectrum matters at one known resolution; otherwise take several.

    Elsewhere:
        auraloss and ParallelWaveGAN ``STFTLoss``.

    Differs from:
        Both: spectral convergence of each signal, as in the paper, not of the whole batch, so the
            value does not depend on the batch and loud signals do not drown the others; the floor
            is added to the magnitude, so quiet bins keep a gradient.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> round(stft_loss(0.5 * noise, noise).item(), 3)
        1.193
    """
    chosen = {
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "framing": framing,
        "power": power,
        "log": log,
        "floor": floor,
        "floor_by": floor_by,
        "log_weight": log_weight,
        "linear_weight": linear_weight,
        "convergence_weight": convergence_weight,
    }
    _check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
    resolutions, distance = _stft_settings(None, chosen)
    return _spectral(estimate, target, lengths, resolutions, distance, stereo, reduction, "stft")


def multi_resolution_stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    preset: str | None = None,
    n_fft: Sizes | None = None,
    hop_length: Sizes | None = None,
    win_length: Sizes | None = None,
    framing: Framing | None = None,
    power: Literal[1, 2] | None = None,
    log: Log | None = None,
    floor: float | None = None,
    floor_by: FloorBy | None = None,
    log_weight: float | None = None,
    linear_weight: float | None = None,
    convergence_weight: float | None = None,
    scales: Over | None = None,
    stereo: Literal["channels", "sum_difference"] = "channels",
    reduction: Reduction = "mean",
) -> Tensor:
    """Spectral convergence and log-magnitude distance, at several resolutions.

        mean over resolutions of ||A - B|| / ||B|| + mean |log(A + f) - log(B + f)|

    An option that is None is as in the preset, or else as said here.

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        preset: the settings of ``"auraloss"``, ``"pwg"`` (with the weights 0.1 of its training) or
            ``"dac"``.
        n_fft: the lengths of the transforms, 1024, 2048 and 512.
        hop_length: samples from frame to frame, 120, 240 and 50; a quarter of each ``n_fft`` where
            only that is given.
        win_length: samples in each periodic Hann window, 600, 1200 and 240; ``n_fft`` where only
            that is given.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``; ``"full"`` likewise, with zeros to a full frame.
        power: of the magnitude, 1 or 2.
        log: ``"log"`` or ``"log10"``.
        floor: what silence counts as, 1e-5.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance, 1.
        linear_weight: of the distance without a logarithm, 0.
        convergence_weight: of spectral convergence, 1. It is 0 where the target is silent.
        scales: ``"mean"`` over the resolutions, or ``"sum"``.
        stereo: ``"sum_difference"`` compares the sum and the difference of ``(..., 2, T)``.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types, and computed in float32.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. It is finite everywhere, and
    0 at exact silence, which has no phase to grow in: add a loss of the waveform.

    Use when:
        Waveforms are generated: what one resolution blurs in time, another shows.

    Elsewhere:
        auraloss and ParallelWaveGAN ``MultiResolutionSTFTLoss``, audiocraft ``MRSTFTLoss``, DAC
        ``MultiScaleSTFTLoss``.

    Differs from:
        All but DAC's: spectral convergence of each signal, as in the paper, not of the whole batch.
        auraloss: its floor under the magnitude is 1e-4, below which there is no gradient.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> round(multi_resolution_stft_loss(0.5 * noise, noise).item(), 3)
        1.193
    """
    chosen = {
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "framing": framing,
        "power": power,
        "log": log,
        "floor": floor,
        "floor_by": floor_by,
        "log_weight": log_weight,
        "linear_weight": linear_weight,
        "convergence_weight": convergence_weight,
        "scales": scales,
    }
    resolutions, distance = _stft_settings(preset, chosen)
    term = "multi_resolution_stft"
    return _spectral(estimate, target, lengths, resolutions, distance, stereo, reduction, term)


def _spectral(
    estimate: Tensor,
    target: Tensor,
    lengths: Tensor | None,
    resolutions: tuple[Resolution, ...],
    distance: Distance,
    stereo: str,
    reduction: Reduction,
    term: str,
) -> Tensor:
    _check_ends(stereo, reduction)
    check_signals(estimate, target, lengths)
    if stereo == "sum_difference":
        estimate, target = (_sum_and_difference(v) for v in (estimate, target))
    shape = estimate.shape[:-1]
    x, t = (v.reshape(math.prod(shape), v.shape[-1]) for v in (estimate, target))
    n = count_samples(estimate, lengths)
    value = evaluate(
        SPECTRAL,
        x,
        t,
        None if lengths is None else n,
        gather="values",
        resolutions=resolutions,
        distance=distance,
    )
    if reduction == "none":
        return value.reshape(shape)
    return normalize(value.sum(), (n > 0).sum(), reduction, term=term)


def _sum_and_difference(v: Tensor) -> Tensor:
    if v.ndim < 2 or v.shape[-2] != 2:
        raise ValueError(
            f"stereo: 'sum_difference' with estimate {tuple(v.shape)}, wanted (..., 2, T)"
        )
    left, right = widen(v).unbind(-2)
    return torch.stack((left + right, left - right), -2)


# ------------------------------------------------------------------------------ settings


def _mel_settings(
    sample_rate: float | None, preset: str | None, chosen: Mapping[str, Any]
) -> tuple[tuple[Resolution, ...], Distance]:
    if (sample_rate is None) == (preset is None):
        raise ValueError(
            f"sample_rate: got {sample_rate} with preset={preset!r}, wanted exactly one of the two"
        )
    o = _filled(_MEL, _MEL_PRESETS, preset, chosen)
    rate = o["sample_rate"] if sample_rate is None else sample_rate
    banks = [
        _bank(rate, n, o["f_min"], o["f_max"], o["scale"], o["norm"], o["empty_filters"])
        for n in _listed(o["n_mels"])
    ]
    return _resolutions(o, banks), _distance(o)


def _stft_settings(
    preset: str | None, chosen: Mapping[str, Any]
) -> tuple[tuple[Resolution, ...], Distance]:
    o = _filled(_RESOLUTIONS, _STFT_PRESETS, preset, chosen)
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


def _bank(
    sample_rate: float,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    scale: Scale,
    norm: Norm,
    empty_filters: str,
) -> Bank:
    check_positive("sample_rate", sample_rate)
    _check_sizes("n_mels", (n_mels,))
    top = sample_rate / 2 if f_max is None else f_max
    check_number("f_min", f_min, 0.0, sample_rate / 2)
    if not f_min < top <= sample_rate / 2:
        raise ValueError(
            f"f_max: got {top}, wanted more than f_min={f_min} and at most half of "
            f"sample_rate={sample_rate}"
        )
    check_choice("scale", scale, ("slaney", "htk"))
    check_choice("norm", norm, ("slaney", "none"))
    check_choice("empty_filters", empty_filters, ("refuse", "keep"))
    return Bank(float(sample_rate), n_mels, float(f_min), top, scale, norm, empty_filters == "keep")


def _resolutions(o: Mapping[str, Any], banks: Sequence[Bank | None]) -> tuple[Resolution, ...]:
    """One for each transform; what is given once holds for all of them."""
    ffts = _listed(o["n_fft"])
    hops = [n // 4 or 1 for n in ffts] if o["hop_length"] is None else _listed(o["hop_length"])
    wins = ffts if o["win_length"] is None else _listed(o["win_length"])
    for name, sizes in (("n_fft", ffts), ("hop_length", hops), ("win_length", wins)):
        _check_sizes(name, sizes)
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
    for n_fft, hop, win, bank in zip(ffts, hops, wins, banks, strict=True):
        for name, size in (("hop_length", hop), ("win_length", win)):
            if size > n_fft:
                raise ValueError(f"{name}: got {size}, wanted at most n_fft={n_fft}")
        made.append(Resolution(n_fft, hop, win, o["framing"], bank))
        if bank is not None and not bank.keep_empty:
            check_filters(made[-1])
    return tuple(made)


def _distance(o: Mapping[str, Any]) -> Distance:
    if o["power"] not in (1, 2):
        raise ValueError(f"power: got {o['power']}, wanted 1 or 2")
    check_choice("log", o["log"], ("log", "log10"))
    check_choice("floor_by", o["floor_by"], ("add", "clamp"))
    check_choice("scales", o["scales"], ("mean", "sum"))
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
        sums=o["scales"] == "sum",
    )


def _listed(sizes: Any) -> list[int]:
    return list(sizes) if isinstance(sizes, Sequence) else [sizes]


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"{name}: got {list(sizes)}, wanted positive whole numbers")


def _check_one(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None:
            _check_sizes(name, (size,))


def _check_ends(stereo: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_choice("stereo", stereo, ("channels", "sum_difference"))


class MelLoss(LossModule):
    """Module form of :func:`mel_loss`; same options, same defaults."""

    def __init__(
        self,
        sample_rate: float | None = None,
        preset: str | None = None,
        n_fft: Sizes | None = None,
        hop_length: Sizes | None = None,
        win_length: Sizes | None = None,
        framing: Framing | None = None,
        n_mels: Sizes | None = None,
        f_min: float | None = None,
        f_max: float | None = None,
        scale: Scale | None = None,
        norm: Norm | None = None,
        empty_filters: Literal["refuse", "keep"] | None = None,
        power: Literal[1, 2] | None = None,
        log: Log | None = None,
        floor: float | None = None,
        floor_by: FloorBy | None = None,
        log_weight: float | None = None,
        linear_weight: float | None = None,
        convergence_weight: float | None = None,
        scales: Over | None = None,
        stereo: Literal["channels", "sum_difference"] = "channels",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            preset=preset,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            framing=framing,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
            scale=scale,
            norm=norm,
            empty_filters=empty_filters,
            power=power,
            log=log,
            floor=floor,
            floor_by=floor_by,
            log_weight=log_weight,
            linear_weight=linear_weight,
            convergence_weight=convergence_weight,
            scales=scales,
            stereo=stereo,
            reduction=reduction,
        )
        _check_ends(stereo, reduction)
        ends = ("sample_rate", "preset", "stereo", "reduction")
        chosen = {k: v for k, v in self.options().items() if k not in ends}
        _mel_settings(sample_rate, preset, chosen)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return mel_loss(estimate, target, lengths=lengths, **self.options())


class STFTLoss(LossModule):
    """Module form of :func:`stft_loss`; same options, same defaults."""

    def __init__(
        self,
        n_fft: int = 1024,
        hop_length: int | None = None,
        win_length: int | None = None,
        framing: Framing = "center",
        power: Literal[1, 2] = 1,
        log: Log = "log",
        floor: float = 1e-5,
        floor_by: FloorBy = "add",
        log_weight: float = 1.0,
        linear_weight: float = 0.0,
        convergence_weight: float = 1.0,
        stereo: Literal["channels", "sum_difference"] = "channels",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            framing=framing,
            power=power,
            log=log,
            floor=floor,
            floor_by=floor_by,
            log_weight=log_weight,
            linear_weight=linear_weight,
            convergence_weight=convergence_weight,
            stereo=stereo,
            reduction=reduction,
        )
        _check_ends(stereo, reduction)
        _check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
        ends = ("stereo", "reduction")
        _stft_settings(None, {k: v for k, v in self.options().items() if k not in ends})

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return stft_loss(estimate, target, lengths=lengths, **self.options())


class MultiResolutionSTFTLoss(LossModule):
    """Module form of :func:`multi_resolution_stft_loss`; same options, same defaults."""

    def __init__(
        self,
        preset: str | None = None,
        n_fft: Sizes | None = None,
        hop_length: Sizes | None = None,
        win_length: Sizes | None = None,
        framing: Framing | None = None,
        power: Literal[1, 2] | None = None,
        log: Log | None = None,
        floor: float | None = None,
        floor_by: FloorBy | None = None,
        log_weight: float | None = None,
        linear_weight: float | None = None,
        convergence_weight: float | None = None,
        scales: Over | None = None,
        stereo: Literal["channels", "sum_difference"] = "channels",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            preset=preset,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            framing=framing,
            power=power,
            log=log,
            floor=floor,
            floor_by=floor_by,
            log_weight=log_weight,
            linear_weight=linear_weight,
            convergence_weight=convergence_weight,
            scales=scales,
            stereo=stereo,
            reduction=reduction,
        )
        _check_ends(stereo, reduction)
        ends = ("preset", "stereo", "reduction")
        _stft_settings(preset, {k: v for k, v in self.options().items() if k not in ends})

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return multi_resolution_stft_loss(estimate, target, lengths=lengths, **self.options())
