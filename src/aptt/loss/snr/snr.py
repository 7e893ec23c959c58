"""Signal-to-noise ratio: every difference of two signals is noise, a wrong level too.

    SNR   10 log10 (|d|**2 + t |s|**2) / |s|**2    d = e - s    t = 10**(-cap / 10)

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: the soft cap as Wisdom et al. 2020 (MixIT), arXiv:2006.12701, eq. 2, negated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.reduction import Reduction
from aptt.core.signals import energy, pair, present, stretched
from aptt.loss.snr.decibels import (
    DECIBEL,
    RatioModule,
    Silent,
    evaluated,
    less_mean,
    samples,
)

__all__ = ["SNRLoss", "snr_loss"]


def snr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Numbers | None = None,
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


def _difference(x: Tensor, t: Tensor, n: Tensor | None, means: bool) -> tuple[Tensor, Tensor]:
    """The noise and the target, or what they are less their first samples."""
    if means:
        p = pair(x, t, n, means=True)
        return p.x - p.t, p.t
    t = present(t, n)
    return present(x, n) - t, t


def _ratio(
    d: Tensor, s: Tensor, t: Tensor, n: Tensor | None, means: bool, least: float
) -> tuple[Tensor, ...]:
    # value = D log(|d|**2 / |s|**2 + t), and along d it is 2 D d / (|d|**2 + t |s|**2), of whose
    # factor, halved, the root is kept, which the range of d holds; a silent target
    # counts as one of full scale, and the noise is the estimate
    noise, power = energy(d), energy(s)
    size = samples(noise, t, n)
    if means:
        bias = d.sum(1)
        noise, power = noise - bias.square() / size, less_mean(power, s.sum(1), t, n)
    signal = torch.where(power == 0, size, power)
    ratio = noise / signal + least
    value, root = DECIBEL * ratio.log(), (signal * ratio / DECIBEL).rsqrt()
    return (value, root, bias / size) if means else (value, root)


def _stats(x: Tensor, t: Tensor, n: Tensor | None, *, means: bool, least: float) -> Kept:
    return _ratio(*_difference(x, t, n, means), t, n, means, least)


def _result(x: Tensor, kept: Kept, t: Tensor, n: Tensor | None, **_: object) -> Tensor:
    return kept[0].to(x.dtype)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    n: Tensor | None,
    *,
    means: bool,
    least: float,
) -> tuple[Tensor | None, Tensor]:
    if kept and not means:
        _, root = kept
        dx, value = stretched(present(x, n), present(t, n), root, root * up), None
    else:
        dx, s = _difference(x, t, n, means)
        value, root, *centre = kept or _ratio(dx, s, t, n, means, least)
        if means:
            dx = dx.sub_(by_row(centre[0]))
        for factor in (root, root * (2 * up)):
            dx = dx.mul_(by_row(factor.to(dx.dtype)))
        value = value.to(x.dtype)
    return value, dx if n is None else present(dx, n)


_SNR = Formula(_result, _step, _stats, ahead=True)


class SNRLoss(RatioModule):
    """Module form of :func:`snr_loss`; same options, same defaults."""

    def forward(
        self, estimate: Tensor, target: Tensor, *, lengths: Numbers | None = None
    ) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return snr_loss(estimate, target, lengths=lengths, **self.options())
