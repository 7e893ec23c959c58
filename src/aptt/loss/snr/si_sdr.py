"""Scale-invariant ratios: the level of the estimate does not matter, nor its sign.

    SI-SDR   10 log10 (|r|**2 + t |a s|**2) / (|a s|**2 + t |r|**2)    r = e - a s
    SI-SNR   SI-SDR of the signals less their means

    a = <e, s> / <s, s>    t = 10**(-cap / 10)

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: SI-SDR, Le Roux et al. 2019, arXiv:1811.02508, eq. 3 and 5, negated; the soft cap as Wisdom et
al. 2020 (MixIT), arXiv:2006.12701, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.formula import by_row
from aptt.core.reduction import Reduction
from aptt.core.signals import Pair, present, products
from aptt.loss.snr.decibels import (
    DECIBEL,
    RatioModule,
    Silent,
    evaluated,
    from_energies,
    less_mean,
    samples,
)

__all__ = ["SISDRLoss", "SISNRLoss", "si_sdr_loss", "si_snr_loss"]


def si_sdr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    zero_mean: bool = False,
    cap: float = 100.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the scale-invariant signal-to-distortion ratio in dB: the level does not matter.

        10 log10 (|r|**2 + t |a s|**2) / (|a s|**2 + t |r|**2)      r = e - a s

    where ``a = <e, s> / <s, s>`` and ``t = 10**(-cap / 10)``.

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        zero_mean: whether to subtract the mean of each signal first.
        cap: the best that can be reached, in dB, at most 120, and minus it the worst.
        silent: a target without energy: ``"level"`` takes the level of the estimate instead, in dB
            of full scale (root mean square 1), at least ``-cap``; ``"skip"`` removes the signal.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss in dB, from ``-cap`` to ``cap``, lower is better: a scalar, or with ``"none"`` the
        shape of the signals without T. float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it; it is orthogonal to the
    estimate. Times the estimate's root mean square it is at most
    ``10**(cap / 20) * 4.35 / sqrt(T)``, for a cap of 30 dB or more. An
    estimate that is exactly silent costs the most, ``cap``, and has a gradient of 0: it has no
    direction that could be turned. The sums are in double precision: ``(|r|**2 + t |a s|**2) /
    |e|**2`` is exact within ``1e-15``. Of the gradient a share of ``1e-15`` over that ratio may be
    wrong: 1e-5 at most where the cap is 100 dB, 1e-3 at 120. Signals that are in proportion but for
    this rounding have a gradient of noise, under ``1e-9`` of the bound. Both grow with the squared
    ratio of a mean that is subtracted to what is left, where that is above 1.

    Use when:
        Separation or enhancement is judged by SI-SDR. The sign of the estimate is as free as its
        level: -s is perfect. Where the level matters, take ``snr_loss``.

    Elsewhere:
        torchmetrics ``ScaleInvariantSignalDistortionRatio`` (positive), auraloss ``SISDRLoss``,
        asteroid ``SingleSrcNegSDR("sisdr")``.

    Differs from:
        All three: the same value at any level; a silent target has a gradient. auraloss and
            asteroid subtract means by default.
        torchmetrics: higher is better there, and a silent estimate scores 0 dB, above a poor one.

    Example:
        >>> import torch
        >>> estimate = torch.tensor([2.5, 0.0, 2.0, 8.0])
        >>> target = torch.tensor([3.0, -0.5, 2.0, 7.0])
        >>> round(si_sdr_loss(estimate, target).item(), 4)
        -18.403
    """
    return evaluated(
        _SI_SDR,
        estimate,
        target,
        lengths=lengths,
        zero_mean=zero_mean,
        cap=cap,
        silent=silent,
        reduction=reduction,
        term="si_sdr",
    )


def si_snr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
    zero_mean: bool = True,
    cap: float = 100.0,
    silent: Silent = "level",
    reduction: Reduction = "mean",
) -> Tensor:
    """Minus the scale-invariant signal-to-noise ratio in dB: SI-SDR of signals less their means.

        10 log10 (|r|**2 + t |a s|**2) / (|a s|**2 + t |r|**2)      r = e - a s, of mean 0

    Args:
        estimate: ``(..., T)``, any floating dtype.
        target: the same shape.
        lengths: how many of the T samples are signal, ``(N,)`` for ``(N, ..., T)``; the rest is
            padding, and 0 removes a whole signal.
        zero_mean: whether to subtract the mean of each signal first.
        cap: the best that can be reached, in dB, at most 120, and minus it the worst.
        silent: a target without energy: ``"level"`` takes the level of the estimate instead, in dB
            of full scale (root mean square 1), at least ``-cap``; ``"skip"`` removes the signal.
        reduction: over the signals: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss in dB, from ``-cap`` to ``cap``, lower is better: a scalar, or with ``"none"`` the
        shape of the signals without T. float32 for half types.

    Raises:
        ValueError: shapes that differ, lengths beyond T (on CPU), an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it; it is orthogonal to the
    estimate and sums to 0. Its bound, and silence, are as in ``si_sdr_loss``, of what is left of
    the signals without their means.

    Use when:
        A constant offset should not count, as in most papers on speech separation.

    Elsewhere:
        torchmetrics ``ScaleInvariantSignalNoiseRatio`` (positive), speechbrain ``get_si_snr``.

    Differs from:
        speechbrain: it takes the target first, and ignores the padding in the mean only in part.
        audiocraft ``SISNR``: short clips are padded there before the mean is taken.

    Example:
        >>> import torch
        >>> estimate = torch.tensor([2.5, 0.0, 2.0, 8.0])
        >>> target = torch.tensor([3.0, -0.5, 2.0, 7.0])
        >>> round(si_snr_loss(estimate, target).item(), 4)
        -15.0918
    """
    return evaluated(
        _SI_SDR,
        estimate,
        target,
        lengths=lengths,
        zero_mean=zero_mean,
        cap=cap,
        silent=silent,
        reduction=reduction,
        term="si_snr",
    )


def _ratio(
    p: Pair, x: Tensor, t: Tensor, n: Tensor | None, means: bool, least: float
) -> tuple[Tensor, ...]:
    # With q = <e, s>**2 / |e|**2 |s|**2 and k = t / (1 - t), all of it relative to |e|**2,
    #     value = D log((1 - q + k) / (q + k))    d value / d q = -D (1 + 2 k) / (product of both)
    # and q goes along e by 2 q (s / <e, s> - e / |e|**2). Where 1 - q is the rounding of its sums,
    # the two are in proportion: the value is the cap, and nothing is left to gain.
    energy, power, cross = products(p)
    size, tiny = samples(energy, x, n), torch.finfo(energy.dtype).tiny
    rounding: Tensor | float = torch.finfo(energy.dtype).eps
    if means:
        of_x, of_t, whole = p.x.sum(1), p.t.sum(1), (energy, power)
        energy, power = less_mean(energy, of_x, x, n), less_mean(power, of_t, t, n)
        rounding = rounding / 2 * (whole[0] / (energy + tiny) + whole[1] / (power + tiny))
        cross = (cross - of_x * of_t / size).masked_fill((energy == 0) | (power == 0), 0.0)
    mute, k = power == 0, least / (1 - least)
    some = (energy != 0) & ~mute
    power = power + tiny
    back = cross / (energy + tiny)
    q = cross / power * back
    if x.dtype == energy.dtype:  # whose products are rounded: of the residual they are not
        rest = p.x - p.t * by_row(cross / power)
        if means:
            rest = present(rest - by_row(rest.sum(1) / size), n)
        miss = (rest.square().sum(1) / (energy + tiny)).masked_fill(energy == 0, 1.0)
        rounding = 4 * rounding * torch.finfo(energy.dtype).eps
        same = some & (miss <= rounding)
    else:
        miss = (1 - q).relu() if means else 1 - q  # q is above 1 by rounding alone
        same = some & (size <= 1 + means)  # so few have no other direction
    miss, q = miss.masked_fill(same, 0.0), q.masked_fill(same, 1.0)
    error = torch.where(mute, energy / size + least, miss + k)
    signal = (q + k).masked_fill(mute, 1.0)
    value = DECIBEL * (error / signal).log()
    on_t = (-2 * DECIBEL * (1 + 2 * k)) / (error * signal) * back.masked_fill(same, 0.0) / power
    on_x = torch.where(mute, 2 * DECIBEL / (error * size), -on_t * back)
    if not means:
        return value, on_x, on_t
    return value, on_x, on_t, -(on_x * of_x + on_t * of_t) / size


_SI_SDR = from_energies(_ratio)


class SISDRLoss(RatioModule):
    """Module form of :func:`si_sdr_loss`; same options, same defaults."""

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return si_sdr_loss(estimate, target, lengths=lengths, **self.options())


class SISNRLoss(RatioModule):
    """Module form of :func:`si_snr_loss`; same options, same defaults."""

    def __init__(
        self,
        zero_mean: bool = True,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(zero_mean, cap, silent, reduction)

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return si_snr_loss(estimate, target, lengths=lengths, **self.options())
