"""Mel filters: triangles over the frequencies of a transform, evenly spaced in mel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aptt.core.ordinary import is_readable

__all__ = ["Bank", "Norm", "Scale", "filterbank"]

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


def filterbank(bank: Bank, n_fft: int) -> Tensor:
    """The filters ``(n_mels, n_fft // 2 + 1)``, in float64.

    A filter that lies between two frequencies of the transform holds nothing, and is refused.
    """
    top = _to_mel(bank.f_max, bank.scale)
    mels = torch.linspace(
        _to_mel(bank.f_min, bank.scale),
        top,
        bank.n_mels + 2,
        dtype=torch.float64,
        device="cpu",
    )
    edges = _to_hertz(mels, bank.scale)
    low, centre, high = (edges[i : i + bank.n_mels].unsqueeze(1) for i in range(3))
    hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu")
    hertz = hertz * (bank.sample_rate / n_fft)
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
