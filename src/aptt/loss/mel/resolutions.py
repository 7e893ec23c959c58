"""Distance of magnitude spectra at several resolutions: what one blurs in time, another shows.

    A, B  = |STFT| of estimate and target, to a power
    loss  = mean over resolutions of
            w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Yamamoto et al. 2019 (Parallel WaveGAN), arXiv:1910.11480, eq. 6; frequencies as they are
heard, IEC 61672-1; sum and difference, Steinmetz et al. 2020, arXiv:2010.10291.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.frames import Framing
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
    stft_settings,
)
from aptt.loss.mel.terms import multi_resolution_stft_terms

__all__ = ["MultiResolutionSTFTLoss", "multi_resolution_stft_loss"]


def multi_resolution_stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    preset: str | None = None,
    n_fft: Sizes | None = None,
    hop_length: Sizes | None = None,
    win_length: Sizes | None = None,
    window: Windowing | None = None,
    framing: Framing | None = None,
    power: Literal[1, 2] | None = None,
    sample_rate: float | None = None,
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
        win_length: samples in each window, 600, 1200 and 240; ``n_fft`` where only that is given.
        window: ``"hann"``, ``"hamming"`` or ``"blackman"``, each periodic; or ``win_length``
            numbers of its own.
        framing: ``"center"`` reflects ``n_fft // 2`` samples on either side; ``"tight"`` half of
            ``n_fft - hop_length``; ``"full"`` likewise, with zeros to a full frame.
        power: of the magnitude, 1 or 2.
        sample_rate: in Hz, which ``frequency_weight="a"`` wants.
        frequency_weight: None, all alike; ``"a"``, as loud as they are heard, by the A-curve; or
            ``n_fft // 2 + 1`` numbers. A gain of the magnitudes; in the logarithmic distance, where
            a gain would cancel, a weighted mean.
        log: ``"log"`` or ``"log10"``.
        log_distance: of two logarithms, ``"l1"``, or ``"l2"``, its square.
        floor: what silence counts as, 1e-5.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance, 1; one number, or one for each resolution.
        linear_distance: of two magnitudes, likewise.
        linear_weight: of the distance without a logarithm, 0; likewise.
        convergence_weight: of spectral convergence, 1; likewise. It is 0 where
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
        float32 for half types, and computed in float32. :func:`multi_resolution_stft_terms` has its
        terms.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. It is finite everywhere, and
    0 at exact silence, which has no phase to grow in: add a loss of the waveform.

    What is no louder than the rounding of a frame's transform, in float32 5e-7 of its loudest
    frequency (-126 dB), counts as silence too: an empty band beside a loud one has no gradient.

    Use when:
        Waveforms are generated: what one resolution blurs in time, another shows.

    Elsewhere:
        auraloss and ParallelWaveGAN ``MultiResolutionSTFTLoss``, audiocraft ``MRSTFTLoss``, DAC
        ``MultiScaleSTFTLoss``.

    Differs from:
        auraloss: its perceptual weighting filters both signals, which leaves the logarithmic
            distance as it was, by a filter that is 20 dB off at 31.5 Hz.
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
        "window": window,
        "framing": framing,
        "power": power,
        "sample_rate": sample_rate,
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
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    settings = stft_settings(preset, chosen)
    return spectral(estimate, target, lengths, settings, ends, "multi_resolution_stft")


class MultiResolutionSTFTLoss(LossModule):
    """Module form of :func:`multi_resolution_stft_loss`; same options, same defaults."""

    terms_function = staticmethod(multi_resolution_stft_terms)

    def __init__(
        self,
        preset: str | None = None,
        n_fft: Sizes | None = None,
        hop_length: Sizes | None = None,
        win_length: Sizes | None = None,
        window: Windowing | None = None,
        framing: Framing | None = None,
        power: Literal[1, 2] | None = None,
        sample_rate: float | None = None,
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
            preset=preset,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            window=window,
            framing=framing,
            power=power,
            sample_rate=sample_rate,
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
        stft_settings(preset, self.options())

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return multi_resolution_stft_loss(estimate, target, lengths=lengths, **self.options())
