"""Mel filters: triangles over the frequencies of a transform, evenly spaced in mel.

    max(0, min((f - l) / (c - l), (h - f) / (h - c)))      l, c, h: neighbours in mel

From: Slaney 1998 (Auditory Toolbox) and Young et al. 2006 (HTK).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.mel import Norm, Scale, filterbank
from aptt.loss.mel.settings import bank, check_sizes

__all__ = ["mel_filterbank"]


def mel_filterbank(
    *,
    sample_rate: float,
    n_fft: int,
    n_mels: int = 80,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_scale: Scale = "slaney",
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
        mel_scale: ``"slaney"``, linear below 1000 Hz, or ``"htk"``.
        norm: ``"slaney"`` gives each filter the area 1, ``"none"`` the height 1.
        empty_filters: a filter between two frequencies of the transform: ``"refuse"`` or
            ``"keep"``.

    Returns:
        What ``librosa.filters.mel`` gives in float64, whose ``htk=True`` is ``mel_scale="htk"``.

    Raises:
        ValueError: an empty filter, frequencies out of range, an unknown option.
    """
    filters = bank(sample_rate, n_mels, f_min, f_max, mel_scale, norm, empty_filters)
    check_sizes("n_fft", (n_fft,))
    return filterbank(filters, n_fft)
