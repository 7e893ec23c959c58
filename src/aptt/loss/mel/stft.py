"""Distance of magnitude spectra: spectral convergence, and log magnitudes.

    A, B  = |STFT| of estimate and target, to a power
    loss  = w_log mean |log(A + f) - log(B + f)| + w_lin mean |A - B| + w_sc ||A - B|| / ||B||

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Arik et al. 2018, arXiv:1808.06719, section 3.2; frequencies as they are heard, IEC 61672-1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.frames import Framing
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.mel.evaluation import Ends, Stereo, check_ends, spectral
from aptt.loss.mel.settings import (
    FloorBy,
    FrequencyWeight,
    Log,
    Off,
    Windowing,
    check_one,
    stft_settings,
)
from aptt.loss.mel.terms import stft_terms

__all__ = ["STFTLoss", "stft_loss"]


def stft_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    n_fft: int = 1024,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Windowing = "hann",
    framing: Framing = "center",
    power: Literal[1, 2] = 1,
    sample_rate: float | None = None,
    frequency_weight: FrequencyWeight = None,
    log: Log = "log",
    log_distance: Off = "l1",
    floor: float = 1e-5,
    floor_by: FloorBy = "add",
    log_weight: float = 1.0,
    linear_distance: Off = "l1",
    linear_weight: float = 0.0,
    convergence_weight: float = 1.0,
    pre_emphasis: float = 0.0,
    stereo: Stereo = "channels",
    stereo_weight: tuple[float, float] = (1.0, 1.0),
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
        win_length: samples in the window; None: ``n_fft``.
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
        floor: what silence counts as.
        floor_by: ``"add"`` the floor, or ``"clamp"`` to it, with no gradient below.
        log_weight: of the logarithmic distance.
        linear_distance: of two magnitudes, likewise.
        linear_weight: of the distance without a logarithm.
        convergence_weight: of spectral convergence. It is 0 where the target is silent.
        pre_emphasis: c of ``y[n] = x[n] - c x[n - 1]``, which both signals go through first, from
            0, as they are, to 1.
        stereo: ``"sum_difference"`` compares the sum and the difference of ``(..., 2, T)``.
        stereo_weight: the factors of sum and difference, which the mean does not count.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the signals without T.
        float32 for half types, and computed in float32. :func:`stft_terms` has its terms.

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
    }
    check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    return spectral(estimate, target, lengths, stft_settings(None, chosen), ends, "stft")


class STFTLoss(LossModule):
    """Module form of :func:`stft_loss`; same options, same defaults."""

    terms_function = staticmethod(stft_terms)

    def __init__(
        self,
        n_fft: int = 1024,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: Windowing = "hann",
        framing: Framing = "center",
        power: Literal[1, 2] = 1,
        sample_rate: float | None = None,
        frequency_weight: FrequencyWeight = None,
        log: Log = "log",
        log_distance: Off = "l1",
        floor: float = 1e-5,
        floor_by: FloorBy = "add",
        log_weight: float = 1.0,
        linear_distance: Off = "l1",
        linear_weight: float = 0.0,
        convergence_weight: float = 1.0,
        pre_emphasis: float = 0.0,
        stereo: Stereo = "channels",
        stereo_weight: tuple[float, float] = (1.0, 1.0),
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
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
            pre_emphasis=pre_emphasis,
            stereo=stereo,
            stereo_weight=stereo_weight,
            reduction=reduction,
        )
        check_ends(Ends(pre_emphasis, stereo, stereo_weight, reduction))
        check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
        stft_settings(None, self.options())

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return stft_loss(estimate, target, lengths=lengths, **self.options())
