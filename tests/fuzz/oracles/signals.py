"""Ratios of energies, in decibels, and root mean squared errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced

__all__ = [
    "mixture_invariant_loss",
    "permutation_invariant_loss",
    "rmse_loss",
    "rmsle_loss",
    "sa_sdr_loss",
    "sd_sdr_loss",
    "si_sdr_loss",
    "si_snr_loss",
    "snr_loss",
]

DECIBEL = 10 / math.log(10)


def _signals(a: Any) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Estimate and target ``(n, T)`` with 0 in the padding, and how many samples each has."""
    shape, length = a.estimate.shape[:-1], a.estimate.shape[-1]
    size = torch.full(shape, length)
    if a.lengths is not None:
        size = a.lengths.long().reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    size = size.reshape(-1)
    inside = torch.arange(length) < size[:, None]
    x, t = (torch.where(inside, v.reshape(len(size), length), 0.0) for v in (a.estimate, a.target))
    if getattr(a, "zero_mean", False):
        n = size.clamp(min=1)[:, None]  # of two samples the mean is taken off without rounding
        x, t = (torch.where(inside, v - v[:, :1], 0.0) for v in (x, t))
        x, t = (torch.where(inside, v - v.sum(1, keepdim=True) / n, 0.0) for v in (x, t))
    return x, t, size, shape


def _ratio(a: Any, term: str, values: Callable[..., Tensor]) -> Tensor:
    x, t, size, shape = _signals(a)
    power = t.square().sum(1)
    silent = (power == 0).detach()
    keep = (size > 0) & ~(silent & (a.silent == "skip"))
    least, n = 10 ** (-a.cap / 10), size.clamp(min=1)
    # a silent target: the level of the estimate, of full scale
    level = DECIBEL * (x.square().sum(1) / n + least).log()
    one = torch.where(silent[:, None], 1.0, t)  # anything, where it is not looked at
    value = torch.where(silent, level, values(x, one, one.square().sum(1), least))
    value = torch.where(keep, value, 0.0).reshape(shape)
    return reduced(value, keep.sum(), a.reduction, term)


def snr_loss(a: Any) -> Tensor:
    """10 log10 |e - s|**2 / |s|**2, softly capped as Wisdom et al. 2020 (arXiv:2006.12701)."""

    def values(x: Tensor, t: Tensor, power: Tensor, least: float) -> Tensor:
        return DECIBEL * ((x - t).square().sum(1) / power + least).log()

    return _ratio(a, "snr", values)


def si_sdr_loss(a: Any, term: str = "si_sdr") -> Tensor:
    """Le Roux et al. 2019 (arXiv:1811.02508), eq. 3 and 5, negated, capped at either end."""

    def values(x: Tensor, t: Tensor, power: Tensor, least: float) -> Tensor:
        mute = (x == 0).all(1)  # no direction: the most, without a slope
        x = torch.where(mute[:, None], 1.0, x)
        x = x / x.detach().norm(torch.inf, 1, keepdim=True) if x.numel() else x
        along = ((x * t).sum(1) / power)[:, None] * t
        noise, signal = (x - along).square().sum(1), along.square().sum(1)
        value = DECIBEL * ((noise + least * signal) / (signal + least * noise)).log()
        same = noise <= 1e-29 * signal  # in proportion, but for the rounding of float64
        value = torch.where(same, DECIBEL * math.log(least), value)
        return torch.where(mute, -DECIBEL * math.log(least), value)

    return _ratio(a, term, values)


def si_snr_loss(a: Any) -> Tensor:
    """The same, of signals less their means."""
    return si_sdr_loss(a, "si_snr")


def sd_sdr_loss(a: Any) -> Tensor:
    """Le Roux et al. 2019, section 3: SD-SDR, negated; nothing of the target costs 300 dB."""

    def values(x: Tensor, t: Tensor, power: Tensor, least: float) -> Tensor:
        along = (x * t).sum(1).square() / power
        noise = (x - t).square().sum(1)
        return DECIBEL * ((noise + least * along) / (along + 1e-30 * power)).log()

    return _ratio(a, "sd_sdr", values)


def permutation_invariant_loss(a: Any) -> Tensor:
    """Yu et al. 2017 (arXiv:1607.00325), eq. 7: the least mean over the permutations."""
    oracle = globals()[a.loss.__name__]
    sources, targets = a.estimate.shape[1], a.target.shape[1]
    keep = torch.ones(len(a.estimate), dtype=torch.bool) if a.lengths is None else a.lengths > 0

    def pair(i: int, j: int | None, there: Tensor) -> Tensor:
        e = a.estimate[:, i]
        t = torch.zeros_like(e)
        if j is not None:
            shown = there[:, j].reshape(-1, *[1] * (e.ndim - 1))
            t, e = torch.where(shown, a.target[:, j].double(), t), torch.where(shown, e, 0.0)
        value = oracle(
            SimpleNamespace(
                estimate=e,
                target=t,
                lengths=a.lengths,
                cap=100.0,
                silent="level",
                zero_mean=a.loss.__name__ == "si_snr_loss",
                reduction="none",
            )
        )
        return value.flatten(1).mean(1) if value.ndim > 1 else value

    there = torch.ones(len(keep), targets, dtype=torch.bool) if a.active is None else a.active
    each = [[pair(i, j, there) for j in range(targets)] for i in range(sources)]
    alone = [pair(i, None, there) for i in range(sources)]
    silence = a.unmatched == "silence"
    size = torch.full((len(keep),), sources) if silence else there.sum(1)
    totals = []
    for order in itertools.permutations(range(sources), targets):
        total = torch.zeros(len(keep), dtype=torch.float64)
        for j, i in enumerate(order):
            off = alone[i] if silence else 0.0
            total = total + torch.where(there[:, j], each[i][j], off)
        rest = [i for i in range(sources) if i not in order] if silence else []
        totals.append(total + sum(alone[i] for i in rest))
    value = torch.stack(totals).amin(0) / size.clamp(min=1)
    keep = keep & (size > 0)
    value = torch.where(keep, value, 0.0)
    return reduced(value, keep.sum(), a.reduction, "permutation_invariant")


def _error(a: Any, term: str, form: Any) -> Tensor:
    """Of each signal, from its error, its target and their number of samples."""
    x, t = a.estimate, a.target.double()
    c = getattr(a, "pre_emphasis", 0.0)
    x, t = (torch.cat((v[..., :1], v[..., 1:] - c * v[..., :-1]), -1) if c else v for v in (x, t))
    counts = torch.full(x.shape[:-1], x.shape[-1])
    if a.lengths is not None:
        counts = a.lengths.long().reshape(-1, *[1] * (x.ndim - 2)).expand(x.shape[:-1])
    shown = torch.arange(x.shape[-1]) < counts[..., None]
    x, t = torch.where(shown, x, 0.0), torch.where(shown, t, 0.0)
    power, size = t.square().sum(-1), counts.clamp(min=1).double()
    keep = counts > 0
    if a.silent == "skip":
        keep = keep & (power > 0)
    value = torch.where(keep, form(x - t, torch.where(power > 0, power, size), size), 0.0)
    return reduced(value, keep.sum(), a.reduction, term)


def esr_loss(a: Any) -> Tensor:
    """Wright and Välimäki 2020 (arXiv:1911.08922), section 3."""
    return _error(a, "esr", lambda d, whole, size: d.square().sum(-1) / whole)


def dc_loss(a: Any) -> Tensor:
    return _error(a, "dc", lambda d, whole, size: d.sum(-1) ** 2 / size / whole)


def sa_sdr_loss(a: Any) -> Tensor:
    """von Neumann et al. 2022 (arXiv:2110.15581): the energies of all sources in one ratio."""
    x, t = a.estimate, a.target.double()
    n, sources, size = x.shape[0], x.shape[1], x.shape[-1]
    counts = torch.full((n,), size) if a.lengths is None else a.lengths.long()
    shown = (torch.arange(size) < counts[:, None]).reshape(n, *[1] * (x.ndim - 2), size)
    x, t = torch.where(shown, x, 0.0), torch.where(shown, t, 0.0)
    orders = itertools.permutations(range(sources)) if a.any_order else [tuple(range(sources))]
    noises = [(x - t[:, list(order)]).square().flatten(1).sum(1) for order in orders]
    noise = torch.stack(noises).amin(0) if len(noises) > 1 else noises[0]
    power = t.square().flatten(1).sum(1)
    keep = counts > 0
    if a.silent == "skip":
        keep = keep & (power > 0)
    every = (counts * (x[0].numel() // max(size, 1) if n else 0)).clamp(min=1)
    signal = torch.where(power > 0, power, every.double())
    value = 10 / math.log(10) * torch.log(noise / signal + 10 ** (-a.cap / 10))
    value = torch.where(keep, value, 0.0)
    return reduced(value, keep.sum(), a.reduction, "sa_sdr")


def mixture_invariant_loss(a: Any) -> Tensor:
    """Wisdom et al. 2020 (arXiv:2006.12701), section 3; the mean over mixtures."""
    x = a.estimate
    mixtures, sources = a.target.shape[1], x.shape[1]
    keep = torch.ones(len(x), dtype=torch.bool) if a.lengths is None else a.lengths > 0
    costs = []
    for way in itertools.product(range(mixtures), repeat=sources):
        each = []
        for k in range(mixtures):
            parts = [x[:, i] for i, part in enumerate(way) if part == k]
            value = snr_loss(
                SimpleNamespace(
                    estimate=torch.stack(parts).sum(0) if parts else torch.zeros_like(x[:, 0]),
                    target=a.target[:, k],
                    lengths=a.lengths,
                    cap=a.cap,
                    silent="level",
                    zero_mean=False,
                    reduction="none",
                )
            )
            each.append(value.flatten(1).mean(1) if value.ndim > 1 else value)
        costs.append(sum(each) / mixtures)
    value = torch.where(keep, torch.stack(costs).amin(0), 0.0)
    return reduced(value, keep.sum(), a.reduction, "mixture_invariant")


def _root(a: Any, term: str, error: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    x, t = a.prediction, a.target.double()
    w = torch.ones_like(x) if a.weight is None else a.weight.double()
    samples = (x.shape[0] if x.ndim else 1) if a.pool == "sample" else 1
    keep = w != 0
    w = torch.where(keep, w, 0.0)
    off = error(torch.where(keep, x, 0.0), torch.where(keep, t, 0.0))
    rows = [(v.reshape(samples, -1) if samples else v.reshape(0, 1)) for v in (w * off**2, w)]
    total, size = (v.sum(1) for v in rows)
    some = total > 0  # the root has no slope at 0
    mean = torch.where(some, total, 1.0) / torch.where(size > 0, size, 1.0)
    root = torch.where(some, mean.sqrt(), 0.0)
    counted = (size > 0).sum()
    if a.pool != "sample":
        root = root.reshape(())
    return reduced(root, counted, a.reduction, term)


def rmse_loss(a: Any) -> Tensor:
    return _root(a, "rmse", lambda x, t: x - t)


def rmsle_loss(a: Any) -> Tensor:
    """log(1 + x) - log(1 + t), as the logarithm of their quotient."""
    return _root(a, "rmsle", lambda x, t: torch.log1p((x - t) / (1 + t)))
