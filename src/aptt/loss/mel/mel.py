"""Distance of mel spectra: what is heard of two signals, at one resolution or several.

    A, B  = |STFT| of estimate and target, to a power, through mel filters
    loss  = w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Kong et al. 2020 (HiFi-GAN), arXiv:2010.05646, eq. 3; the mel scales, Slaney 1998 (Auditory
Toolbox) and Young et al. 2006 (HTK).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.frames import Framing
from aptt.core.mel import Norm, Scale
from aptt.core.module import LossModule
from aptt.core.reduction import Combine, Reduction
from aptt.loss.mel.evaluation import Ends, Stereo, check_ends, spectral
from aptt.loss.mel.settings import (
    FloorBy,
    FrequencyWeight,
    Log,
    Off,
    Sizes,
    Weights,
    Windowing,
    mel_settings,
)
from aptt.loss.mel.terms import mel_terms

__all__ = ["MelLoss", "mel_loss"]


def mel_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    sample_rate: float | None = None,
    preset: str | None = None,
    n_fft: Sizes | None = None,
    hop_length: Sizes | None = None,
    win_length: Sizes | None = None,
    window: Windowing | None = None,
    framing: Framing | None = None,
    n_mels: Sizes | None = None,
    f_min: float | None = None,
    f_max: float | None = None,
    mel_scale: Scale | None = None,
    norm: Norm | None = None,
    empty_filters: Literal["refuse", "keep"] | None = None,
    power: Literal[1, 2] | None = None,
    frequency_weight: FrequencyWeight = None,
    log: Log | None = None,
    log_distance: Off | None = None,
    floor: float | None = None,
    floor_by: FloorBy | None = None,
    log_weight: Weights | None = None,
    linear_distance: Off | None = None,
    linear_weight: Weights | None = None,
    convergence_weight: Weights | None = None,
    combine: Combine | None = None,
    pre_emphasis: float = 0.0,
    stereo: Stereo = "channels",
    stereo_weight: tuple[float, float] = (1.0, 1.0),
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
            and ``"audiocraft_multiscale"`` (32000), ``"dac"`` (44100) or ``"auraloss"`` (44100);
            without the weight that its training gives the term (45 in HiFi-GAN, 15 in DAC).
        n_fft: the length of the transform, 1024; several for several resolutions.
        hop_length: samples from frame to frame, a quarter of ``n_fft``.
        win_length: samples in the window, ``n_fft``.
        window: ``"hann"``, ``"hamming"`` or ``"blackman"``, each periodic; or ``win_length``
            numbers of its own.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``, as HiFi-GAN; ``"full"`` likewise, with zeros to a full frame.
        n_mels: mel filters, 80; one number, or one for each resolution.
        f_min: where the filters start, in Hz, 0.
        f_max: where they end, half the sample rate.
        mel_scale: ``"slaney"`` (librosa's) or ``"htk"`` (torchaudio's).
        norm: ``"slaney"``, filters of equal area, or ``"none"``, of equal height.
        empty_filters: ``"refuse"`` a filter that no frequency falls into, or ``"keep"`` it.
        power: of the magnitude, before the filters, 1 or 2.
        frequency_weight: None, all alike; ``"a"``, as loud as they are heard, by the A-curve; or
            ``n_fft // 2 + 1`` numbers. A gain of the magnitudes (of a filter, its mean); in the
            logarithmic distance, where a gain would cancel, a weighted mean.
        log: ``"log"`` or ``"log10"``.
        log_distance: of two logarithms, ``"l1"``, or ``"l2"``, its square.
        floor: what silence counts as, after the filters, 1e-5.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance, 1; one number, or one for each resolution.
        linear_distance: of two magnitudes, likewise.
        linear_weight: of the distance without a logarithm, 0; likewise.
        convergence_weight: of spectral convergence, 0; likewise. It is 0 where
            the target is silent.
        combine: ``"mean"`` over the resolutions, or ``"sum"``.
        pre_emphasis: c of ``y[n] = x[n] - c x[n - 1]``, which both signals go through first, from
            0, as they are, to 1.
        stereo: ``"sum_difference"`` compares the sum and the difference of ``(..., 2, T)``.
        stereo_weight: the factors of sum and difference, which the mean does not count.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types, and computed in float32. :func:`mel_terms` has its terms.

    Raises:
        ValueError: shapes that differ, neither or both of ``sample_rate`` and ``preset``, an empty
            mel filter, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. It is finite everywhere, and
    0 at exact silence, which has no phase to grow in: add a loss of the waveform.

    What is no louder than the rounding of a frame's transform, in float32 5e-7 of its loudest
    frequency (-126 dB), counts as silence too: an empty band beside a loud one has no gradient.

    Use when:
        Speech or music is generated: what is heard is compared, and the phase is free.

    Elsewhere:
        auraloss ``MelSTFTLoss``, audiocraft ``MelSpectrogramL1Loss``,
        ``MultiScaleMelSpectrogramLoss``, DAC ``MelSpectrogramLoss``,
        ParallelWaveGAN ``MelSpectrogramLoss``.

    Differs from:
        All of them: the floor is applied once, after the filters, so there is no NaN; a filter that
            is empty is refused; a value for each signal.
        HiFi-GAN, ParallelWaveGAN, auraloss: they also floor the magnitude before the filters, at
            3e-5, 1e-5 and 1e-4, which quiet signals show, and loud ones in bands that are empty.

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
        "window": window,
        "framing": framing,
        "n_mels": n_mels,
        "f_min": f_min,
        "f_max": f_max,
        "mel_scale": mel_scale,
        "norm": norm,
        "empty_filters": empty_filters,
        "power": power,
        "frequency_weight": frequency_weight,
        "log": log,
        "log_distance": log_distance,
        "floor": floor,
        "floor_by": floor_by,
        "log_weight": log_weight,
        "linear_distance": linear_distance,
        "linear_weight": linear_weight,
        "convergence_weight": convergence_weight,
        "combine": combine,
    }
    settings = mel_settings(sample_rate, preset, chosen)
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    return spectral(estimate, target, lengths, settings, ends, "mel")


class MelLoss(LossModule):
    """Module form of :func:`mel_loss`; same options, same defaults."""

    terms_function = staticmethod(mel_terms)

    def __init__(
        self,
        sample_rate: float | None = None,
        preset: str | None = None,
        n_fft: Sizes | None = None,
        hop_length: Sizes | None = None,
        win_length: Sizes | None = None,
        window: Windowing | None = None,
        framing: Framing | None = None,
        n_mels: Sizes | None = None,
        f_min: float | None = None,
        f_max: float | None = None,
        mel_scale: Scale | None = None,
        norm: Norm | None = None,
        empty_filters: Literal["refuse", "keep"] | None = None,
        power: Literal[1, 2] | None = None,
        frequency_weight: FrequencyWeight = None,
        log: Log | None = None,
        log_distance: Off | None = None,
        floor: float | None = None,
        floor_by: FloorBy | None = None,
        log_weight: Weights | None = None,
        linear_distance: Off | None = None,
        linear_weight: Weights | None = None,
        convergence_weight: Weights | None = None,
        combine: Combine | None = None,
        pre_emphasis: float = 0.0,
        stereo: Stereo = "channels",
        stereo_weight: tuple[float, float] = (1.0, 1.0),
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            preset=preset,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            window=window,
            framing=framing,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
            mel_scale=mel_scale,
            norm=norm,
            empty_filters=empty_filters,
            power=power,
            frequency_weight=frequency_weight,
            log=log,
            log_distance=log_distance,
            floor=floor,
            floor_by=floor_by,
            log_weight=log_weight,
            linear_distance=linear_distance,
            linear_weight=linear_weight,
            convergence_weight=convergence_weight,
            combine=combine,
            pre_emphasis=pre_emphasis,
            stereo=stereo,
            stereo_weight=stereo_weight,
            reduction=reduction,
        )
        check_ends(Ends(pre_emphasis, stereo, stereo_weight, reduction))
        mel_settings(sample_rate, preset, self.options())

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return mel_loss(estimate, target, lengths=lengths, **self.options())
