"""Signal-to-noise ratios as losses: minus the decibels by which a signal stands above its error.

    d = e - s        a = <e, s> / <s, s>        t = 10**(-cap / 10)

    SNR      10 log10 (|d|**2 + t |s|**2) / |s|**2
    SI-SDR   10 log10 (|e - a s|**2 + t |a s|**2) / (|a s|**2 + t |e - a s|**2)
    SI-SNR   SI-SDR of the signals less their means
    SD-SDR   10 log10 (|d|**2 + t |a s|**2) / |a s|**2

Axes: estimate e and target s ``(..., T)``, one value for each signal of T samples.
From: SI-SDR and SD-SDR, Le Roux et al. 2019, arXiv:1811.02508, eq. 3, 5 and 9, negated; the soft
cap as Wisdom et al. 2020 (MixIT), arXiv:2006.12701, eq. 2; permutations, Yu et al. 2017,
arXiv:1607.00325.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_choice, check_floating, check_number, check_shapes
from aptt.core.signals import check_signals, count_samples, inside
from aptt.core.streaming import Formula, Work, evaluate, widen

__all__ = [
    "PermutationInvariantLoss",
    "SDSDRLoss",
    "SISDRLoss",
    "SISNRLoss",
    "SNRLoss",
    "best_permutation",
    "permutation_invariant_loss",
    "sd_sdr_loss",
    "si_sdr_loss",
    "si_snr_loss",
    "snr_loss",
]

Silent = Literal["level", "skip"]
Kind = Literal["snr", "si_sdr", "sd_sdr"]


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
    return _ratio("snr", estimate, target, lengths, zero_mean, cap, silent, reduction)


def si_sdr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
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
    direction that could be turned.

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
    return _ratio("si_sdr", estimate, target, lengths, zero_mean, cap, silent, reduction)


def si_snr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
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
    return _ratio("si_sdr", estimate, target, lengths, zero_mean, cap, silent, reduction, "si_snr")


def sd_sdr_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
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
    return _ratio("sd_sdr", estimate, target, lengths, zero_mean, cap, silent, reduction)


def _ratio(
    kind: Kind,
    estimate: Tensor,
    target: Tensor,
    lengths: Tensor | None,
    zero_mean: bool,
    cap: float,
    silent: Silent,
    reduction: Reduction,
    term: str | None = None,
) -> Tensor:
    _check_options(cap, silent, reduction)
    check_signals(estimate, target, lengths)
    shape = estimate.shape[:-1]
    x, t = (v.reshape(math.prod(shape), 1, v.shape[-1]) for v in (estimate, target))
    n = count_samples(estimate, lengths)
    mask = None if lengths is None else inside(n, x.shape[-1]).unsqueeze(1)
    sums = evaluate(
        _SUMS,
        x,
        t,
        mask,
        gather="samples",
        cross=kind != "snr",
        means=zero_mean,
        size=x.shape[-1],
    )
    value, counted = _decibels(kind, sums, n.to(sums.dtype), zero_mean, cap, silent)
    value = value.to(widen(x[:0]).dtype)
    if reduction == "none":
        return value.reshape(shape)
    return normalize(value.sum(), counted.sum(), reduction, term=term or kind)


def _decibels(
    kind: Kind, sums: Tensor, n: Tensor, zero_mean: bool, cap: float, silent: Silent
) -> tuple[Tensor, Tensor]:
    """The loss of each signal from its sums, and which signals count."""
    noise, power, cross, energy, along, bias, mean = sums.unbind(-1)
    near = 4 * noise < power
    some = n > 0
    full, n = power, torch.where(some, n, 1)
    if zero_mean:
        noise = (noise - bias.square() / n).clamp(min=0)
        power = power - mean.square() / n
        cross = cross - bias * mean / n
        energy = energy - (bias + mean).square() / n
        along = along - (bias + mean) * mean / n
    t = 10 ** (-cap / 10)
    heard = power > _ROUNDING * full if zero_mean else power > 0
    # in units of the target, so that nothing below depends on its level
    unit = torch.where(heard, power, 1)
    # near the target its difference is what must not be lost, elsewhere the estimate itself
    d, p, e = noise / unit, cross / unit, energy / unit
    a = torch.where(near, 1 + p, along / unit).square()
    if kind == "snr":
        error, signal = d + t, torch.ones_like(d)
    elif kind == "sd_sdr":
        error, signal = d + t * a, a + _UNHEARD
    else:
        residual = torch.where(near, d - p.square(), e - a).clamp(min=0)
        both = t / (1 - t) * (a + residual)
        error, signal = residual + both + _UNHEARD, a + both + t * _UNHEARD
    ratio = torch.where(heard, error / signal, 1)
    # the noise is the estimate where the target is silent
    level = torch.where(heard | ~some, 1, noise / n + t)
    value = _DECIBEL * (ratio.log() + level.log())
    counted = some if silent == "level" else some & heard
    return torch.where(counted, value, 0 * value), counted


def _sums(
    x: Tensor, t: Tensor, mask: Tensor | None, *, cross: bool, means: bool, size: int
) -> Tensor:
    """Of each signal: |d|**2, |s|**2, <d, s>, |e|**2, <e, s>, and the sums of d and of s."""
    x, t = _wide(x), _wide(t)
    if mask is not None:
        x, t = x.masked_fill(~mask, 0), t.masked_fill(~mask, 0)
    d = x - t
    none = d.new_zeros(d.shape[0])
    return torch.stack(
        (
            d.square().sum((1, 2)),
            t.square().sum((1, 2)),
            (d * t).sum((1, 2)) if cross else none,
            x.square().sum((1, 2)) if cross else none,
            (x * t).sum((1, 2)) if cross else none,
            d.sum((1, 2)) if means else none,
            t.sum((1, 2)) if means else none,
        ),
        -1,
    )


def _wide(x: Tensor) -> Tensor:
    """In a dtype that any square fits, and in which sums may cancel."""
    return x if x.device.type == "mps" else x.double()


def _sums_forward(
    x: Tensor,
    work: Work,
    t: Tensor,
    mask: Tensor | None,
    *,
    cross: bool,
    means: bool,
    size: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    def in_double() -> tuple[Tensor, tuple[Tensor, ...]]:
        sums = _sums(x, t, mask, cross=cross, means=means, size=size)
        return sums, (sums,)

    whole = mask is None and x.shape[2] == size
    if not whole or x.dtype != torch.float32 or x.device.type != "cpu":
        return in_double()
    d, product = torch.sub(x, t, out=work("difference", x)), work("product", x)
    noise = torch.mul(d, d, out=product).sum((1, 2)).double()
    power = torch.mul(t, t, out=product).sum((1, 2)).double()
    fine = _held_by_singles(noise, power)
    none = torch.zeros_like(noise)
    both, bias, mean = [none] * 3, none, none
    if fine and cross:
        both, fine = _cross(x, t, d, product, noise, power)
    if fine and means:
        n = size
        bias, mean = (v.sum((1, 2), dtype=torch.float32).double() for v in (d, t))
        fine = bool((n * noise >= 2 * bias.square()).all() & (n * power >= 2 * mean.square()).all())
    if not fine:  # too small, too large, or about to cancel
        return in_double()
    sums = torch.stack((noise, power, *both, bias, mean), -1)
    return sums, (sums,)


def _cross(
    x: Tensor, t: Tensor, d: Tensor, product: Tensor, noise: Tensor, power: Tensor
) -> tuple[list[Tensor], bool]:
    """<d, s>, |e|**2 and <e, s> in single precision, and whether what they make keeps it."""
    near = 4 * noise < power
    both, energy, along = torch.zeros_like(noise), torch.ones_like(noise), torch.ones_like(noise)
    if bool(near.any()):
        both = torch.mul(d, t, out=product).sum((1, 2)).double()
    if not bool(near.all()):
        energy = torch.mul(x, x, out=product).sum((1, 2)).double()
        along = torch.mul(x, t, out=product).sum((1, 2)).double()
        both = torch.where(near, both, along - power)
    apart = torch.where(near, both.square() / noise, along.square() / energy)
    fine = (energy > 1e-24) & (energy < 1e30) & (apart <= 0.75 * power)
    fine &= near | (1e3 * x.shape[2] * apart >= power)
    return [both, energy, along], bool(fine.all())


def _held_by_singles(*squares: Tensor) -> bool:
    """Whether sums of squares, added up in single precision, left neither end of its range."""
    return all(bool(((v > 1e-24) & (v < 1e30)).all()) for v in squares)


def _sums_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    mask: Tensor | None,
    *,
    cross: bool,
    means: bool,
    size: int,
) -> None:
    up = up.unsqueeze(1)
    on_noise, _, on_cross, on_energy, on_along, on_1, _ = up.split(1, -1)
    on_d, on_t = 2 * (on_noise + on_energy), on_cross + on_along + 2 * on_energy
    least = torch.where(on_d == 0, 1, on_d).abs().amin()
    noise, power, both = kept[0][:, None, :3].split(1, -1)
    parts = on_d.square() * noise + on_t.square() * power
    fine = (up.abs().amax() < 1e30) & (least > 1e-30)
    fine = fine & (parts + 2 * on_d * on_t * both >= 1e-4 * parts).all()  # or they cancel
    if x.device.type != "cpu" or not bool(fine):  # looking elsewhere would be a host sync
        x, t = _wide(x), _wide(t)
    like = out if out.dtype == x.dtype else work("slope", x)
    d = torch.sub(x, t, out=like).mul_(on_d.to(x.dtype))
    if cross:
        d.addcmul_(t, on_t.to(x.dtype).expand_as(t))
    if means:
        d.add_(on_1.to(x.dtype))
    if mask is not None:
        d.masked_fill_(~mask, 0)
    if d is not out:
        out.copy_(d)


_SUMS = Formula(_sums, _sums_forward, _sums_backward)
_DECIBEL = 10 / math.log(10)
_UNHEARD = 1e-30  # of the target's energy: an estimate this quiet is as bad as none
_ROUNDING = 1e-13  # what is left of a constant, in double precision, less its mean


def _check_options(cap: float, silent: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_number("cap", cap, 1.0, 120.0)
    check_choice("silent", silent, ("level", "skip"))


class SNRLoss(LossModule):
    """Module form of :func:`snr_loss`; same options, same defaults."""

    def __init__(
        self,
        zero_mean: bool = False,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(cap, silent, reduction)
        super().__init__(zero_mean=zero_mean, cap=cap, silent=silent, reduction=reduction)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return snr_loss(estimate, target, lengths=lengths, **self.options())


class SISDRLoss(LossModule):
    """Module form of :func:`si_sdr_loss`; same options, same defaults."""

    def __init__(
        self,
        zero_mean: bool = False,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(cap, silent, reduction)
        super().__init__(zero_mean=zero_mean, cap=cap, silent=silent, reduction=reduction)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return si_sdr_loss(estimate, target, lengths=lengths, **self.options())


class SISNRLoss(LossModule):
    """Module form of :func:`si_snr_loss`; same options, same defaults."""

    def __init__(
        self,
        zero_mean: bool = True,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(cap, silent, reduction)
        super().__init__(zero_mean=zero_mean, cap=cap, silent=silent, reduction=reduction)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return si_snr_loss(estimate, target, lengths=lengths, **self.options())


class SDSDRLoss(LossModule):
    """Module form of :func:`sd_sdr_loss`; same options, same defaults."""

    def __init__(
        self,
        zero_mean: bool = False,
        cap: float = 100.0,
        silent: Silent = "level",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(cap, silent, reduction)
        super().__init__(zero_mean=zero_mean, cap=cap, silent=silent, reduction=reduction)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return sd_sdr_loss(estimate, target, lengths=lengths, **self.options())


def permutation_invariant_loss(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
    reduction: Reduction = "mean",
) -> Tensor:
    """A loss between sources in no particular order: that of the best assignment.

        min over permutations P of the mean over i of loss(e_i, s_P(i))

    Args:
        estimate: ``(N, K, ..., T)``, K sources, at most 4; any floating dtype.
        target: the same shape.
        lengths: ``(N,)``, handed to ``loss``, how many of the T samples are signal; 0 removes.
        loss: a function of two sources ``(N, ..., T)`` with ``reduction="none"``, such as
            ``snr_loss`` or ``functools.partial(mel_loss, sample_rate=16000)``.
        reduction: over the N: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss of the best assignment: a scalar, or with ``"none"`` one value for each of N.

    Raises:
        ValueError: shapes that differ, more than 4 sources, an unknown option.

    The gradient goes to ``estimate``, and to targets that ask for it, through the best assignment
    alone. :func:`aptt.loss.snr.best_permutation` tells which one it is.

    Use when:
        A model separates sources of one kind, say speakers, and no output belongs to one of them.

    Elsewhere:
        asteroid ``PITLossWrapper``, torchmetrics ``permutation_invariant_training`` (higher is
        better there).

    Differs from:
        Both: exact for 4 sources and no more, without a detour over scipy.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1.0, -2.0, 3.0, 0.0], [2.0, 1.0, 0.0, 1.0]]])
        >>> round(permutation_invariant_loss(target.flip(1) + 0.1, target).item(), 2)
        -26.49
    """
    _check_sources(estimate, target, loss, reduction)
    order = best_permutation(estimate, target, lengths=lengths, loss=loss)
    matched = target.gather(1, order.view(order.shape + (1,) * (target.ndim - 2)).expand_as(target))
    extra = {} if lengths is None else {"lengths": lengths}
    each = [
        _per_sample(loss(e, s, reduction="none", **extra))
        for e, s in zip(estimate.unbind(1), matched.unbind(1), strict=True)
    ]
    value = torch.stack(each, 1).mean(1)
    if reduction == "none":
        return value
    some = torch.ones_like(value) if lengths is None else lengths > 0
    return normalize(value.sum(), some.sum(), reduction, term="permutation_invariant")


def best_permutation(
    estimate: Tensor,
    target: Tensor,
    *,
    lengths: Tensor | None = None,
    loss: Callable[..., Tensor] = si_sdr_loss,
) -> Tensor:
    """Which target belongs to each estimate: ``(N, K)``, ``target[n, order[n, i]]`` to source i.

    The assignment that :func:`permutation_invariant_loss` takes, with its arguments; no gradient.
    """
    _check_sources(estimate, target, loss, "mean")
    extra = {} if lengths is None else {"lengths": lengths}
    sources = range(estimate.shape[1])
    with torch.no_grad():
        pairs = [
            [
                _per_sample(loss(estimate[:, i], target[:, k], reduction="none", **extra))
                for k in sources
            ]
            for i in sources
        ]
        ways = list(permutations(sources))
        costs = [torch.stack([pairs[i][k] for i, k in enumerate(way)]).sum(0) for way in ways]
        best = torch.stack(costs, 1).argmin(1)
        return torch.tensor(ways, device=estimate.device)[best]


def _per_sample(value: Tensor) -> Tensor:
    return value if value.ndim == 1 else value.flatten(1).mean(1)


_MOST_SOURCES = 4


def _check_sources(
    estimate: Tensor, target: Tensor, loss: Callable[..., Tensor], reduction: Reduction
) -> None:
    check_reduction(reduction)
    if not callable(loss):
        raise TypeError(f"loss: got {loss!r}, wanted a function such as snr_loss")
    check_floating(estimate=estimate)
    check_shapes(estimate=(estimate, "N K *S"), target=(target, "N K *S"))
    if estimate.ndim < 3 or not 1 <= estimate.shape[1] <= _MOST_SOURCES:
        raise ValueError(
            f"estimate: got {tuple(estimate.shape)}, wanted (N, K, ..., T) with 1 to "
            f"{_MOST_SOURCES} sources K"
        )


class PermutationInvariantLoss(LossModule):
    """Module form of :func:`permutation_invariant_loss`; same options, same defaults."""

    def __init__(
        self, loss: Callable[..., Tensor] = si_sdr_loss, reduction: Reduction = "mean"
    ) -> None:
        check_reduction(reduction)
        super().__init__(loss=loss, reduction=reduction)

    def forward(self, estimate: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss of ``estimate`` against ``target``."""
        return permutation_invariant_loss(estimate, target, lengths=lengths, **self.options())
