"""Signal-to-noise ratio: every difference of two signals is noise, a wrong level too.

    SNR   10 log10 (|d|**2 + t |s|**2) / |s|**2    d = e - s    t = 10**(-cap / 10)

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: the soft cap as Wisdom et al. 2020 (MixIT), arXiv:2006.12701, eq. 2, negated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept
from aptt.core.reduction import Reduction
from aptt.core.signals import centred, inner, present, stretched, wide
from aptt.loss.snr.decibels import DECIBEL, RatioModule, Silent, evaluated, samples

__all__ = ["SNRLoss", "snr_loss"]


def snr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    zero_mean: bool = False,
    cap: float = 100.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the signal-to-noise ratio in dB: every difference is noise, a wrong level too.

        10 log10 (|e - s|**2 + t |s|**2) / |s|**2      t = 10**(-cap / 10)

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        zero_mean: whether to subtract the mean of each signal first.
        cap: the best that can be reached, in dB, at most 120; the gradient fades towards it.
        silent: a target without energy: ``"level"`` takes the level of the estimate instead, in dB
            of full scale (root mean square 1), at least ``-cap``; ``"skip"`` removes the signal.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss in dB, at least ``-cap``, lower is better: a scalar, or with ``"none"`` the shape
        of the signals without T. float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it. Times the target's root mean
    square it is at most ``10**(cap / 20) * 4.35 / sqrt(T)``. A silent target has one that leads to
    silence; an estimate that is exactly silent has one that leads to the target.

    Use when:
        The level has to be right: enhancement, coding, or separation whose parts add up.

    Elsewhere:
        torchmetrics ``SignalNoiseRatio`` (positive), auraloss ``SNRLoss``, asteroid
        ``SingleSrcNegSDR("snr")``.

    Differs from:
        All three: guards relative to the target, so the same value at any level; a silent target
            has a gradient. auraloss and asteroid subtract means by default.
        torchmetrics: higher is better there.

    Example:
        >>> import torch
        >>> target = torch.tensor([1.0, -2.0, 3.0])
        >>> round(snr_loss(0.5 * target, target).item(), 4)
        -6.0206
    """
    return evaluated(
        _SNR,
        estimate,
        target,
        lengths=lengths,
        zero_mean=zero_mean,
        cap=cap,
        silent=silent,
        reduction=reduction,
        term="snr",
    )


def _stats(x: Tensor, t: Tensor, n: Tensor | None, *, means: bool, least: float) -> Kept:
    # value = D log(|d|**2 / |s|**2 + t), and along d it is 2 D d / (|d|**2 + t |s|**2);
    # a silent target counts as one of full scale, and the noise is the estimate
    x, t = present(x, n), present(t, n)
    d, t = wide(x) - wide(t) if means else wide(x - t), wide(t)
    size, noise, power = samples(t, x, n), inner(d, d), inner(t, t)
    if means:
        bias = d.sum(1)
        noise, power = centred(noise, bias, size), centred(power, t.sum(1), size)
    signal = torch.where(power == 0, size, power)
    value = DECIBEL * (noise / signal + least).log()
    slope = 2 * DECIBEL / (noise + least * signal)
    if not means:
        return value, slope.detach()
    return value, torch.where(noise == 0, 0.0, slope).detach(), (bias / size).detach()


def _result(x: Tensor, kept: Kept, t: Tensor, n: Tensor | None, **_: object) -> Tensor:
    return kept[0].to(x.dtype)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, n: Tensor | None, **_: object
) -> tuple[None, Tensor]:
    slope, *centre = kept[1:]
    dx = stretched(present(x, n), present(t, n), slope * up, *centre)
    return None, dx if n is None else present(dx, n)


_SNR = Formula(_result, _step, _stats, block=2**18)


class SNRLoss(RatioModule):
    """Module form of :func:`snr_loss`; same options, same defaults."""

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return snr_loss(estimate, target, lengths=lengths, **self.options())
