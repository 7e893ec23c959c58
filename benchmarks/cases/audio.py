"""Losses of signals: ratios of energies, and spectra at several resolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import aptt.loss
from benchmarks.case import OURS, Case, Contender, Loss
from benchmarks.peers import asteroid_sdr

__all__ = ["CASES"]


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Estimates at some 6 dB."""
    target = torch.randn(size)
    return 0.8 * target + 0.45 * torch.randn(size), target


def plain(x: Tensor, t: Tensor, kind: str) -> Tensor:
    """Le Roux et al. 2019, arXiv:1811.02508, eq. 1 and 3, negated."""
    goal = t
    if kind == "sisdr":
        goal = t * (x * t).sum(-1, keepdim=True) / t.square().sum(-1, keepdim=True)
    return 10 * torch.log10((x - goal).square().sum(-1) / goal.square().sum(-1)).mean()


def _auraloss(name: str) -> Loss:
    import auraloss.time

    loss: Loss = getattr(auraloss.time, name)(zero_mean=False)
    return loss


def _torchmetrics(name: str) -> Loss:
    import torchmetrics.functional.audio as audio

    ratio = getattr(audio, name)
    return lambda x, t: -ratio(x, t).mean()


def _asteroid(kind: str) -> Loss:
    loss = asteroid_sdr().SingleSrcNegSDR(kind, zero_mean=False, reduction="mean")
    return lambda x, t: loss(x, t)


def _ratio(name: str, uses: str, kind: str, auraloss: str, torchmetrics: str) -> Case:
    formula = partial(plain, kind=kind)
    return Case(
        name,
        uses,
        _inputs,
        size=(32, 64_000),
        quick=(2, 2**14),
        contenders=(
            Contender(OURS, lambda: getattr(aptt.loss, uses)),
            Contender("plain, compiled", lambda: formula, compiled=True),
            Contender("plain", lambda: formula),
            Contender("auraloss, compiled", lambda: _auraloss(auraloss), compiled=True),
            Contender("auraloss", lambda: _auraloss(auraloss)),
            Contender("torchmetrics, compiled", lambda: _torchmetrics(torchmetrics), compiled=True),
            Contender("torchmetrics", lambda: _torchmetrics(torchmetrics)),
            Contender("asteroid", lambda: _asteroid(kind)),
        ),
    )


def plain_stft(x: Tensor, t: Tensor) -> Tensor:
    """Yamamoto et al. 2019, arXiv:1910.11480, eq. 3 to 6, the ratio for each signal."""
    total = x.new_zeros(())
    for n_fft, hop, win in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        window = torch.hann_window(win, device=x.device)
        a, b = (
            torch.stft(v, n_fft, hop, win, window, return_complex=True).abs().clamp(min=1e-4)
            for v in (x, t)
        )
        ratio = torch.linalg.vector_norm(a - b, dim=(1, 2)) / torch.linalg.vector_norm(
            b, dim=(1, 2)
        )
        total = total + (ratio.mean() + (a.log() - b.log()).abs().mean()) / 3
    return total


def _auraloss_stft() -> Loss:
    """Its ratio is that of the whole batch, which for signals of one level is nearly the same."""
    import auraloss.freq

    loss = auraloss.freq.MultiResolutionSTFTLoss()
    return lambda x, t: loss(x.unsqueeze(1), t.unsqueeze(1))


def _ours_stft() -> Callable[..., Tensor]:
    return partial(aptt.loss.multi_resolution_stft_loss, preset="auraloss")


CASES = (
    _ratio("snr", "snr_loss", "snr", "SNRLoss", "signal_noise_ratio"),
    _ratio(
        "si_sdr", "si_sdr_loss", "sisdr", "SISDRLoss", "scale_invariant_signal_distortion_ratio"
    ),
    Case(
        "multi_resolution_stft",
        "multi_resolution_stft_loss",
        _inputs,
        size=(16, 64_000),
        quick=(2, 2**14),
        contenders=(
            Contender(OURS, _ours_stft),
            Contender("plain, compiled", lambda: plain_stft, compiled=True, tolerance=1e-3),
            Contender("plain", lambda: plain_stft, tolerance=1e-3),
            Contender("auraloss, compiled", _auraloss_stft, compiled=True, tolerance=2e-2),
            Contender("auraloss", _auraloss_stft, tolerance=2e-2),
        ),
    ),
)
