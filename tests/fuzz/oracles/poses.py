"""SimCC, residual log-likelihood and DSNT."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import costs, reduced, scattered, softplus

__all__ = ["dsnt_loss", "dsnt_terms", "rle_loss", "simcc_loss"]


def _weights(a: Any, shape: Any) -> Tensor:
    w = torch.ones(shape).double() if a.weight is None else a.weight.double()
    return w if a.visibility is None else torch.where(a.visibility > 0, w, 0.0)


def _sigma(a: Any, i: int) -> float:
    return a.sigma if isinstance(a.sigma, float) else a.sigma[i]


def _far(y: Tensor, bins: int, sigma: float) -> Tensor:
    return (y < -3 * sigma) | (y > bins - 1 + 3 * sigma)


def _shifted(x: Tensor) -> Tensor:
    """Rows with a largest logit of 0, whose digits a softmax loses."""
    return x - x.detach().amax(1, keepdim=True) if len(x) else x


def _label(y: Tensor, bins: int, sigma: float) -> Tensor:
    """The logarithm of a Gaussian on a grid, of points ``(n,)``; its sum is 1."""
    squared = (torch.arange(bins).double() - y[:, None]) ** 2 / (2 * sigma**2)
    return -squared - (-squared).logsumexp(1, keepdim=True)


def simcc_loss(a: Any) -> Tensor:
    """Li et al. 2022 (arXiv:2107.03332): sum t log(t / p) of each coordinate."""
    w = _weights(a, a.target.shape[:-1])
    y = a.target.double() * a.split
    for i, x in enumerate(a.logits_list):
        w = torch.where(_far(y[..., i], x.shape[-1], _sigma(a, i)), 0.0, w)
    keep = w != 0
    w = w[keep]
    values = torch.zeros(int(keep.sum())).double()
    for i, x in enumerate(a.logits_list):
        log_t = _label(y[keep][:, i], x.shape[-1], _sigma(a, i))
        nll = costs(_shifted(x[keep]) / a.temperature)
        values = values + (log_t.exp() * (log_t + nll)).sum(1)
    return reduced(scattered(w * values, keep), w.sum(), a.reduction, "simcc")


def rle_loss(a: Any) -> Tensor:
    """Li et al. 2021 (arXiv:2107.11291): -log Q(e) - log G(e) + log scale."""
    w = _weights(a, a.target.shape[:-1])
    keep = w != 0
    w, s = w[keep], a.log_scale[keep]
    e = (a.prediction[keep] - a.target[keep].double()) * (-s).exp()
    if a.distribution == "gaussian":
        values, peak = e.square() / 2 + math.log(2 * math.pi) / 2, math.log(2 * math.pi) / 2
    else:
        values, peak = e.abs() + math.log(2), math.log(2)
    values = (values + s).sum(-1)
    if a.least_scale is not None:
        values = values - e.shape[-1] * (peak + math.log(a.least_scale))
    if a.flow is not None:
        values = values - a.flow(e)
    return reduced(scattered(w * values, keep), w.sum(), a.reduction, "rle")


def _positions(a: Any, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the maps that count, and the columns and rows of their cells."""
    n, k, height, width = a.logits.shape
    cell = torch.arange(height * width)
    x = _shifted(a.logits.reshape(n * k, height * width)[keep.flatten()])
    return -costs(x / a.temperature), cell % width, cell // width


def dsnt_terms(a: Any) -> dict[str, Tensor]:
    """Nibali et al. 2018 (arXiv:1801.07372), section 4."""
    w = _weights(a, a.target.shape[:-1])
    keep = w != 0
    w = w[keep]
    height, width = a.logits.shape[2:]
    log_p, column, row = _positions(a, keep)
    p = log_p.exp()
    t = a.target[keep].double()
    x, y = (p * column).sum(1), (p * row).sum(1)
    across, down = x - t[:, 0], y - t[:, 1]
    if a.unit == "map":
        across, down = across * 2 / width, down * 2 / height
    far = across.abs() + down.abs()
    if a.distance == "euclidean":
        some = far != 0
        safe = [torch.where(some, v, 1.0) for v in (across, down)]
        far = torch.where(some, (safe[0] ** 2 + safe[1] ** 2).sqrt(), 0.0)
    if a.regularizer == "variance":
        of_columns = (p * (column - x[:, None]) ** 2).sum(1)
        of_rows = (p * (row - y[:, None]) ** 2).sum(1)
        held = (of_columns - a.sigma**2) ** 2 + (of_rows - a.sigma**2) ** 2
    else:
        log_q = _label(t[:, 1], height, a.sigma)[:, :, None]
        log_q = (log_q + _label(t[:, 0], width, a.sigma)[:, None]).flatten(1)
        held = (_against_mean(log_p, log_q) + _against_mean(log_q, log_p)) / 2
    terms = {"distance": far, "regularizer": held}
    return {
        name: reduced(scattered(w * v, keep), w.sum(), a.reduction, name)
        for name, v in terms.items()
    }


def _against_mean(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || (p + q) / 2) = sum p (log 2 - log(1 + q / p))."""
    return (log_p.exp() * (math.log(2) - softplus(log_q - log_p))).sum(1)


def dsnt_loss(a: Any) -> Tensor:
    terms = dsnt_terms(a)
    return terms["distance"] + a.regularizer_weight * terms["regularizer"]
