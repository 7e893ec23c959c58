"""Settings of spectral losses: what is usual, and those of known projects by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MEL", "MEL_PRESETS", "RESOLUTIONS", "STFT_PRESETS"]

_PLAIN: Mapping[str, Any] = {
    "n_fft": 1024,
    "hop_length": None,
    "win_length": None,
    "window": "hann",
    "framing": "center",
    "power": 1,
    "sample_rate": None,
    "frequency_weight": None,
    "log": "log",
    "log_distance": "l1",
    "floor": 1e-5,
    "floor_by": "add",
    "log_weight": 1.0,
    "linear_distance": "l1",
    "linear_weight": 0.0,
    "convergence_weight": 0.0,
    "combine": "mean",
}
MEL: Mapping[str, Any] = {
    **_PLAIN,
    "n_mels": 80,
    "f_min": 0.0,
    "f_max": None,
    "mel_scale": "slaney",
    "norm": "slaney",
    "empty_filters": "refuse",
}
MEL_PRESETS: Mapping[str, Mapping[str, Any]] = {
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
        "mel_scale": "htk",
        "norm": "none",
        "power": 2,
        "log": "log10",
    },
    "audiocraft_multiscale": {
        "sample_rate": 32000,
        "n_fft": (64, 128, 256, 512, 1024),
        "framing": "full",
        "n_mels": 64,
        "mel_scale": "htk",
        "norm": "none",
        "power": 2,
        "log": "log10",
        "log_distance": "l2",
        "log_weight": tuple((n - 1) ** 0.5 for n in (64, 128, 256, 512, 1024)),
        "linear_weight": 1.0,
        "combine": "sum",
        "empty_filters": "keep",
    },
    "dac": {
        "sample_rate": 44100,
        "n_fft": (32, 64, 128, 256, 512, 1024, 2048),
        "n_mels": (5, 10, 20, 40, 80, 160, 320),
        "log": "log10",
        "floor_by": "clamp",
        "combine": "sum",
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
RESOLUTIONS: Mapping[str, Any] = {
    **_PLAIN,
    "n_fft": (1024, 2048, 512),
    "hop_length": (120, 240, 50),
    "win_length": (600, 1200, 240),
    "convergence_weight": 1.0,
}
STFT_PRESETS: Mapping[str, Mapping[str, Any]] = {
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
        "combine": "sum",
    },
}
