"""Distances of spectra."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned
from tests.fuzz.draws.signals import inside
from tests.fuzz.oracles import spectra as oracle

__all__ = ["LOSSES"]


def _spectral(name: str) -> Any:
    multi, mel, terms = name.startswith("multi"), name.startswith("mel"), name.endswith("terms")

    def draw(d: Draw) -> Call:
        presets = {
            "mel": ("hifigan", "pwg", "audiocraft", "audiocraft_multiscale", "dac", "auraloss"),
            "multi": ("auraloss", "pwg", "dac", None),
        }.get(name.split("_")[0])
        preset = None
        options: dict[str, Any] = {}
        if presets and d.chance("by preset", 8):
            preset = d.pick("preset", presets)
            options["preset"] = preset
            length, least = 2400, 1200
        else:
            sizes = d.pick("n_fft", ((32,), (64,), (32, 64)) if multi or mel else ((32,), (64,)))
            several = (multi or mel) and d.pick("as list", (False, True))
            least, length = 70, d.pick("samples", (128, 200))
            options["n_fft"] = list(sizes) if several or len(sizes) > 1 else sizes[0]
            options["hop_length"] = d.pick("hop_length", (None, 8, 5))
            options["win_length"] = d.pick("win_length", (None, 32, 20))
            if several:
                options |= {
                    key: [options[key]] for key in ("hop_length", "win_length") if options[key]
                }
            options["framing"] = d.pick("framing", ("center", "tight", "full"))
            options |= dict(
                power=d.pick("power", (1, 2)),
                window=d.pick("window", ("hann", "hamming", "blackman")),
                log=d.pick("log", ("log", "log10")),
                log_distance=d.pick("log_distance", ("l1", "l2")),
                floor=d.pick("floor", (1e-5, 1e-2)),
                floor_by=d.pick("floor_by", ("add", "clamp")),
                linear_distance=d.pick("linear_distance", ("l1", "l2")),
            )
            wins = options["win_length"]
            if wins is not None and d.chance("numbers for a window", 8):
                win = wins[0] if isinstance(wins, list) else wins
                options["window"] = d.normal("window numbers", (win,)).abs().float()
            weighing = (None, "a", "numbers") if len(sizes) == 1 else (None, "a")
            options["frequency_weight"] = d.pick("frequency_weight", weighing)
            if not mel and (
                options["frequency_weight"] == "a" or d.chance("a rate for nothing", 4)
            ):
                options["sample_rate"] = 16000.0
            if options["frequency_weight"] == "numbers":
                options["frequency_weight"] = (
                    d.normal("frequencies", (sizes[0] // 2 + 1,)).abs().float()
                )
            if not terms:
                options |= dict(
                    log_weight=d.pick("log_weight", (1.0, 0.0, 0.3)),
                    linear_weight=d.pick("linear_weight", (0.5, 0.0)),
                    convergence_weight=d.pick("convergence_weight", (1.0, 0.0)),
                )
                if not any(options[f"{k}_weight"] for k in ("log", "linear", "convergence")):
                    options["log_weight"] = 1.0
                if len(sizes) > 1 and d.chance("a weight for each", 3):
                    options["log_weight"] = [options["log_weight"], 0.5]
            if multi or mel:
                options["combine"] = d.pick("combine", ("mean", "sum"))
            if mel:
                options |= dict(
                    sample_rate=d.pick("sample_rate", (16000.0, 8000.0)),
                    n_mels=[4] * len(sizes) if several else 4,
                    f_min=d.pick("f_min", (0.0, 80.0)),
                    f_max=d.pick("f_max", (None, 4000.0)),
                    mel_scale=d.pick("mel_scale", ("slaney", "htk")),
                    norm=d.pick("norm", ("slaney", "none")),
                    empty_filters=d.pick("empty_filters", ("keep", "refuse")),
                )
                if options["empty_filters"] == "refuse":
                    options |= dict(n_mels=2, f_min=0.0)
        stereo = d.pick("stereo", ("channels", "sum_difference"))
        options["pre_emphasis"] = d.pick("pre_emphasis", (0.0, 0.85))
        options["stereo_weight"] = (1.0, 1.0)
        if stereo != "channels":
            options["stereo_weight"] = d.pick("stereo_weight", ((1.0, 1.0), (0.5, 2.0), (1.0, 0.0)))
        shape = (d.pick("signals", (2, 1, 0)), *((2,) if stereo != "channels" else ()), length)
        t = d.normal("target", shape)
        x = t + d.normal("estimate", shape, d.pick("noise", (1.0, 0.1)))
        if d.chance("equal", 8):
            x = t
        if d.chance("level", 16):  # bands without anything in them
            x = torch.full_like(t, d.pick("estimate level", (0.5, 0.01)))
        n = d.maybe(
            "lengths",
            lambda: torch.where(
                d.mask("heard", shape[:1], 0.7),
                torch.randint(least, length + 1, shape[:1], generator=d.stream("lengths")),
                0,
            ),
        )
        keep = inside(shape, n)
        x, t = poisoned(d, x, keep, "estimate"), poisoned(d, t, keep, "target")
        dtype = d.dtype("estimate")
        return d.call(
            name,
            options
            | dict(
                estimate=d.tensor("estimate", x, dtype),
                target=d.tensor("target", t, dtype),
                lengths=n,
                stereo=stereo,
                reduction=d.reduction(),
            ),
            "estimate",
        )

    return draw


def _complex(d: Draw, name: str) -> Call:
    shape = (d.pick("signals", (2, 1, 0)), d.pick("samples", (128, 200)))
    t = d.normal("target", shape)
    x = t + d.normal("estimate", shape, d.pick("noise", (1.0, 0.1)))
    n = d.maybe(
        "lengths",
        lambda: (
            torch.randint(70, shape[1] + 1, shape[:1], generator=d.stream("lengths"))
            * d.mask("heard", shape[:1], 0.7)
        ),
    )
    keep = inside(shape, n)
    x, t = poisoned(d, x, keep, "estimate"), poisoned(d, t, keep, "target")
    dtype = d.dtype("estimate")
    options: dict[str, Any] = {}
    if name == "complex_stft_loss":
        options["complex_weight"] = d.pick("complex_weight", (0.3, 0.0, 1.0))
    return d.call(
        name,
        options
        | dict(
            estimate=d.tensor("estimate", x, dtype),
            target=d.tensor("target", t, dtype),
            lengths=n,
            n_fft=d.pick("n_fft", (32, 64)),
            hop_length=d.pick("hop_length", (None, 8, 5)),
            win_length=d.pick("win_length", (None, 32, 20)),
            framing=d.pick("framing", ("center", "tight", "full")),
            compression=d.pick("compression", (0.3, 0.5, 1.0)),
            floor=d.pick("floor", (1e-5, 1e-2)),
            reduction=d.reduction(),
        ),
        "estimate",
    )


WRONG = {
    "floor": (0.0, -1.0, NAN),
    "power": (3,),
    "pre_emphasis": (-0.1, 1.1, NAN),
    "stereo_weight": ((1.0,), (1.0, -1.0), "both"),
    "n_fft": (0, 2.5),
    "hop_length": (0, 2.5),
    "win_length": (0, 2.5),
}
WEIGHTS = {"log_weight": (-1.0, NAN, math.inf), "linear_weight": (-1.0,)}
LOSSES = {
    name: Loss(
        _spectral(name),
        getattr(oracle, name),
        rows=-1,
        kinked=True,
        slack=64.0,
        rigid=("estimate", "target"),
        conceded=lambda call: {"estimate", "target"},
        wrong=WRONG | ({} if name.endswith("terms") else WEIGHTS),
    )
    for name in (
        "stft_loss",
        "stft_terms",
        "multi_resolution_stft_loss",
        "multi_resolution_stft_terms",
        "mel_loss",
        "mel_terms",
    )
} | {
    name: Loss(
        partial(_complex, name=name),
        getattr(oracle, name),
        rows=-1,
        slack=64.0,
        rigid=("estimate", "target"),
        conceded=lambda call: {"estimate", "target"},
        wrong={"floor": (0.0, -1.0, NAN), "compression": (0.0, 1.1, NAN)} | wrong,
    )
    for name, wrong in (
        ("complex_stft_loss", {"complex_weight": (-0.1, 1.1, NAN)}),
        ("complex_stft_terms", {}),
    )
}
