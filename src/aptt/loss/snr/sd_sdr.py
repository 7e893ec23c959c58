"""Scale-dependent signal-to-distortion ratio: SNR, and a level too low costs twice.

    SD-SDR   10 log10 (|d|**2 + t |a s|**2) / |a s|**2

    d = e - s    a = <e, s> / <s, s>    t = 10**(-cap / 10)

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: SD-SDR, Le Roux et al. 2019, arXiv:1811.02508, eq. 9, negated; the soft cap as Wisdom et al.
2020 (MixIT), arXiv:2006.12701, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.reduction import Reduction
from aptt.core.signals import Pair, energy, products
from aptt.loss.snr.decibels import (
    DECIBEL,
    UNHEARD,
    RatioModule,
    Silent,
    evaluated,
    from_energies,
    less_mean,
    samples,
)

__all__ = ["SDSDRLoss", "sd_sdr_loss"]


def sd_sdr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    zero_mean: bool = False,
    cap: float = 100.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the scale-dependent signal-to-distortion ratio in dB: a level too low costs twice.

        10 log10 (|e - s|**2 + t |a s|**2) / |a s|**2      a = <e, s> / <s, s>

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
        The loss in dB, lower is better: a scalar, or with ``"none"`` the shape of the signals
        without T. float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it: the SNR's, and a push towards
    more of the target. An estimate without any of it costs 300 dB.

    Use when:
        Levels matter, and to be too quiet should not be the safe choice: of all levels that an
        estimate can have, the best is the one at which ``a`` is 1.

    Elsewhere:
        auraloss ``SDSDRLoss``, asteroid ``SingleSrcNegSDR("sdsdr")``.

    Differs from:
        Both: the same value at any level; means are not subtracted by default.

    Example:
        >>> import torch
        >>> target = torch.tensor([1.0, -2.0, 3.0])
        >>> round(sd_sdr_loss(0.5 * target, target).item(), 4)
        0.0
    """
    return evaluated(
        _SD_SDR,
        estimate,
        target,
        lengths=lengths,
        zero_mean=zero_mean,
        cap=cap,
        silent=silent,
        reduction=reduction,
        term="sd_sdr",
    )


def _ratio(
    p: Pair, x: Tensor, t: Tensor, n: Tensor | None, means: bool, least: float
) -> tuple[Tensor, ...]:
    # value = D log(|d|**2 + t |a s|**2) - D log(|a s|**2); along e, |d|**2 goes by 2 d, and
    # |a s|**2 = <e, s>**2 / <s, s> by 2 a s. Kept apart, for d may be nothing beside s
    of_e, power, cross = products(p)
    d, size = p.x - p.t, samples(power, x, n)
    noise = energy(d)
    if means:
        of_x, of_t = p.x.sum(1), p.t.sum(1)
        noise = noise - (of_x - of_t).square() / size
        of_e, power = less_mean(of_e, of_x, x, n), less_mean(power, of_t, t, n)
        cross = torch.where((of_e == 0) | (power == 0), 0.0, cross - of_x * of_t / size)
    heard = power != 0
    a = cross / torch.where(heard, power, 1.0)
    along = a * cross
    # a silent target counts as one of full scale, and the noise is the estimate
    signal = torch.where(heard, along + UNHEARD * power, size)
    error = noise + least * torch.where(heard, along, size)
    value = DECIBEL * (error / signal).log()
    on_d = 2 * DECIBEL / error
    on_t = 2 * DECIBEL * a * (least / error - 1 / signal)
    if not means:
        return value, on_d, on_t
    return value, on_d, on_t, -(on_d * (of_x - of_t) + on_t * of_t) / size


_SD_SDR = from_energies(_ratio, along="error")


class SDSDRLoss(RatioModule):
    """Module form of :func:`sd_sdr_loss`; same options, same defaults."""

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return sd_sdr_loss(estimate, target, lengths=lengths, **self.options())
