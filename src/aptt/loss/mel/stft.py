"""Distances of magnitude spectra: spectral convergence, and log magnitudes.

    A, B  = |STFT| of estimate and target, to a power
    loss  = w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Arik et al. 2018, arXiv:1808.06719, section 3.2; several resolutions, Yamamoto et al. 2019
(Parallel WaveGAN), arXiv:1910.11480, eq. 6.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import Combine, Reduction
from aptt.core.transform import Framing
from aptt.loss.mel.settings import (
    FloorBy,
    Log,
    Sizes,
    check_ends,
    check_one,
    spectral,
    stft_settings,
)

__all__ = [
    "MultiResolutionSTFTLoss",
    "STFTLoss",
    "multi_resolution_stft_loss",
    "stft_loss",
]


def stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
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

    What is no louder than the rounding of a frame's transform, in float32 5e-7 of its loudest
    frequency (-126 dB), counts as silence too: an empty band beside a loud one has no gradient.

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
    check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
    resolutions, distance = stft_settings(None, chosen)
    return spectral(estimate, target, lengths, resolutions, distance, stereo, reduction, "stft")


def multi_resolution_stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
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
    combine: Combine | None = None,
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
        combine: ``"mean"`` over the resolutions, or ``"sum"``.
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

    What is no louder than the rounding of a frame's transform, in float32 5e-7 of its loudest
    frequency (-126 dB), counts as silence too: an empty band beside a loud one has no gradient.

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
        "combine": combine,
    }
    resolutions, distance = stft_settings(preset, chosen)
    term = "multi_resolution_stft"
    return spectral(estimate, target, lengths, resolutions, distance, stereo, reduction, term)


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
        check_ends(stereo, reduction)
        check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
        ends = ("stereo", "reduction")
        stft_settings(None, {k: v for k, v in self.options().items() if k not in ends})

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
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
        combine: Combine | None = None,
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
            combine=combine,
            stereo=stereo,
            reduction=reduction,
        )
        check_ends(stereo, reduction)
        ends = ("preset", "stereo", "reduction")
        stft_settings(preset, {k: v for k, v in self.options().items() if k not in ends})

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return multi_resolution_stft_loss(estimate, target, lengths=lengths, **self.options())
