"""The terms of spectral losses: each part, at each resolution, before its weight.

    log            mean |log(A + f) - log(B + f)|
    linear         mean |A - B|
    convergence    ||A - B|| / ||B||

of several resolutions each part with the number of the resolution after it, and divided by their
number where their mean is taken: weighted and added, the terms are the loss.

Axes: estimate and target ``(..., T)``, one value for each signal of T samples.
From: Arik et al. 2018, arXiv:1808.06719, section 3.2; Yamamoto et al. 2019 (Parallel WaveGAN),
arXiv:1910.11480, eq. 6.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.frames import Framing
from aptt.core.mel import Norm, Scale
from aptt.core.reduction import Combine, Reduction
from aptt.loss.mel.evaluation import Ends, Stereo, spectral_terms
from aptt.loss.mel.settings import (
    FloorBy,
    FrequencyWeight,
    Log,
    Off,
    Sizes,
    Windowing,
    check_one,
    mel_settings,
    stft_settings,
)

__all__ = ["mel_terms", "multi_resolution_stft_terms", "stft_terms"]


def stft_terms(
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
    linear_distance: Off = "l1",
    pre_emphasis: float = 0.0,
    stereo: Stereo = "channels",
    stereo_weight: tuple[float, float] = (1.0, 1.0),
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`stft_loss`, each before its weight.

        {"log": mean |log(A + f) - log(B + f)|, "linear": mean |A - B|,
         "convergence": ||A - B|| / ||B||}

    Args are those of :func:`stft_loss`; a normalizer is called for the names of the terms.

    Returns:
        ``{"log": ..., "linear": ..., "convergence": ...}``.

    Use when:
        The parts are to be logged or balanced; the spectra are computed once for all of them.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> terms = stft_terms(0.5 * noise, noise)
        >>> {name: round(term.item(), 3) for name, term in terms.items()}
        {'log': 0.693, 'linear': 8.67, 'convergence': 0.5}
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
        "linear_distance": linear_distance,
    }
    check_one(n_fft=n_fft, hop_length=hop_length, win_length=win_length)
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    return spectral_terms(estimate, target, lengths, stft_settings(None, chosen), ends)


def multi_resolution_stft_terms(
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
    linear_distance: Off | None = None,
    combine: Combine | None = None,
    pre_emphasis: float = 0.0,
    stereo: Stereo = "channels",
    stereo_weight: tuple[float, float] = (1.0, 1.0),
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`multi_resolution_stft_loss`, each before its weight.

        {"log_0": mean |log(A + f) - log(B + f)| at the first resolution, "linear_0": mean |A - B|,
         "convergence_0": ||A - B|| / ||B||, "log_1": ...}

    Args are those of :func:`multi_resolution_stft_loss`; a normalizer is called for the names of
    the terms. With ``combine="mean"`` each is divided by the number of resolutions.

    Returns:
        ``{"log_0": ..., "linear_0": ..., "convergence_0": ..., "log_1": ..., ...}``, in the order
        of ``n_fft``; without numbers where there is one resolution.

    Use when:
        Resolutions are to be told apart, as where one of them is wrong; the spectra are computed
        once for all parts.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> terms = multi_resolution_stft_terms(0.5 * noise, noise, combine="sum")
        >>> [name for name in terms if name.endswith("_0")]
        ['log_0', 'linear_0', 'convergence_0']
        >>> round(terms["convergence_2"].item(), 3)
        0.5
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
        "linear_distance": linear_distance,
        "combine": combine,
    }
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    return spectral_terms(estimate, target, lengths, stft_settings(preset, chosen), ends)


def mel_terms(
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
    linear_distance: Off | None = None,
    combine: Combine | None = None,
    pre_emphasis: float = 0.0,
    stereo: Stereo = "channels",
    stereo_weight: tuple[float, float] = (1.0, 1.0),
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`mel_loss`, each before its weight.

        {"log": mean |log(M A + f) - log(M B + f)|, "linear": mean |M A - M B|,
         "convergence": ||M A - M B|| / ||M B||}

    Args are those of :func:`mel_loss`; a normalizer is called for the names of the terms. With
    ``combine="mean"`` each is divided by the number of resolutions.

    Returns:
        ``{"log": ..., "linear": ..., "convergence": ...}``; of several resolutions
        ``{"log_0": ..., "linear_0": ..., "convergence_0": ..., "log_1": ..., ...}``.

    Use when:
        The parts or the resolutions are to be logged or balanced; the spectra are computed once.

    Example:
        >>> import torch
        >>> noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
        >>> terms = mel_terms(0.5 * noise, noise, sample_rate=16000)
        >>> {name: round(terms[name].item(), 3) for name in ("log", "convergence")}
        {'log': 0.693, 'convergence': 0.5}
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
        "linear_distance": linear_distance,
        "combine": combine,
    }
    ends = Ends(pre_emphasis, stereo, stereo_weight, reduction)
    settings = mel_settings(sample_rate, preset, chosen)
    return spectral_terms(estimate, target, lengths, settings, ends)
