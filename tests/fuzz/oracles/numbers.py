"""Losses of numbers: errors, quantiles and distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced, scattered

__all__ = [
    "charbonnier_loss",
    "ensemble_crps_loss",
    "gaussian_crps_loss",
    "gaussian_nll_loss",
    "huber_loss",
    "l1_loss",
    "laplace_nll_loss",
    "log_cosh_loss",
    "mse_loss",
    "quantile_loss",
    "smooth_l1_loss",
]


def _kept(a: Any, shape: Any) -> tuple[Tensor, Tensor]:
    w = torch.ones(shape).double() if a.weight is None else a.weight.double()
    keep = w != 0
    return keep, w[keep]


def _each(a: Any, term: str, value: Any, *others: str) -> Tensor:
    """The mean of ``value(d)`` over what counts, by weight."""
    keep, w = _kept(a, a.target.shape)
    d = a.prediction[keep] - a.target[keep].double()
    values = w * value(d, *(getattr(a, name)[keep].double() for name in others))
    return reduced(scattered(values, keep), w.sum(), a.reduction, term)


def l1_loss(a: Any) -> Tensor:
    return _each(a, "l1", torch.abs)


def mse_loss(a: Any) -> Tensor:
    return _each(a, "mse", torch.square)


def _huber(d: Tensor, delta: float) -> Tensor:
    """Huber 1964; its two branches."""
    off = d.abs()
    return torch.where(off < delta, d**2 / 2, delta * (off - delta / 2))


def huber_loss(a: Any) -> Tensor:
    return _each(a, "huber", lambda d: _huber(d, a.delta))


def smooth_l1_loss(a: Any) -> Tensor:
    """Girshick 2015 (arXiv:1504.08083), eq. 3, with its 1 as beta."""
    form = (lambda d: _huber(d, a.beta) / a.beta) if a.beta else torch.abs
    return _each(a, "smooth_l1", form)


def charbonnier_loss(a: Any) -> Tensor:
    """sqrt(d**2 + epsilon**2) - epsilon, as its conjugate."""
    e = a.epsilon
    return _each(a, "charbonnier", lambda d: d**2 / ((d**2 + e**2).sqrt() + e))


def log_cosh_loss(a: Any) -> Tensor:
    """Near 0 by its series, whose next term is 2e-16 of it there; else log(cosh d)."""

    def form(d: Tensor) -> Tensor:
        near = d.abs() < 0.03
        x = torch.where(near, d, 0.0) ** 2
        series = x / 2 - x**2 / 12 + x**3 / 45 - 17 * x**4 / 2520 + 31 * x**5 / 14175
        off = torch.where(near, 1.0, d).abs()
        return torch.where(near, series, off + torch.log1p(torch.exp(-2 * off)) - math.log(2))

    return _each(a, "log_cosh", form)


def quantile_loss(a: Any) -> Tensor:
    """Koenker and Bassett 1978: an error below costs q, one above 1 - q."""
    shape = a.prediction.shape
    keep, w = _kept(a, shape[:-1])
    if keep.ndim < len(shape):
        full = torch.zeros(keep.shape).double().masked_scatter(keep, w)[..., None].expand(shape)
        keep, w = full != 0, full[full != 0]
    q = torch.tensor(a.quantiles, dtype=torch.float64).expand(shape)[keep]
    d = a.target.double()[..., None].expand(shape)[keep] - a.prediction[keep]
    cost = torch.where(d > 0, q * d, torch.where(d < 0, (q - 1) * d, 0.0))
    return reduced(scattered(w * cost, keep), w.sum(), a.reduction, "quantile")


def gaussian_nll_loss(a: Any) -> Tensor:
    """-log N(t; x, exp s), its constant only if it is full; beta of Seitzer et al. 2022."""
    constant = math.log(2 * math.pi) / 2 if a.full else 0.0

    def form(d: Tensor, s: Tensor) -> Tensor:
        nll = d**2 * torch.exp(-s) / 2 + s / 2 + constant
        return nll * torch.exp(a.beta * s.detach())

    return _each(a, "gaussian_nll", form, "log_variance")


def laplace_nll_loss(a: Any) -> Tensor:
    """-log of exp(-|d| / b) / (2 b)."""
    return _each(
        a, "laplace_nll", lambda d, s: d.abs() * torch.exp(-s) + math.log(2) + s, "log_scale"
    )


def gaussian_crps_loss(a: Any) -> Tensor:
    """Gneiting et al. 2005, with 2 Phi(z) - 1 = erf(z / sqrt 2)."""

    def form(d: Tensor, s: Tensor) -> Tensor:
        sigma = torch.exp(s / 2)
        z = d / sigma
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return d * torch.erf(z / math.sqrt(2)) + sigma * (2 * density - 1 / math.sqrt(math.pi))

    return _each(a, "gaussian_crps", form, "log_variance")


def ensemble_crps_loss(a: Any) -> Tensor:
    """Ferro 2014, pair by pair; |a| + |b| - |a - b| is twice the lesser, if on one side, or 0."""
    keep, w = _kept(a, a.target.shape)
    x = a.prediction[keep]
    off = x - a.target[keep].double()[:, None]
    m = off.shape[-1]
    of_pairs = a.fair / (m * (m - 1)) if a.fair else 0.0
    pairs = (x[:, :, None] - x[:, None, :]).abs().sum((1, 2))
    slopes = off.abs().mean(1) - ((1 - a.fair) / m**2 + of_pairs) / 2 * pairs
    one_side = off.sign()[:, :, None] * off.sign()[:, None, :] > 0
    least = torch.minimum(off.abs()[:, :, None], off.abs()[:, None, :]) * one_side
    others = least.masked_fill(torch.eye(m, dtype=torch.bool), 0.0).sum((1, 2))
    value = least.sum((1, 2)) * ((1 - a.fair) / m**2) + others * of_pairs
    values = w * (value.detach() + slopes - slopes.detach())
    return reduced(scattered(values, keep), w.sum(), a.reduction, "ensemble_crps")
