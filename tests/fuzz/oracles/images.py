"""Structural similarity, window by window."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.fuzz.oracles.common import reduced

__all__ = ["ms_ssim_loss", "ssim_loss"]


def _missing(x: Tensor, t: Tensor, a: Any) -> tuple[Tensor, Tensor]:
    """1 - luminance and 1 - contrast of Wang et al. 2004 (doi:10.1109/TIP.2003.819861), eq. 6, 9.

    2 a b is a**2 + b**2 less (a - b)**2, and so of variances.
    """
    axes = range(2, x.ndim)
    at = torch.arange(a.window_size, dtype=torch.float64) - (a.window_size - 1) / 2
    bell = torch.exp(-at.square() / (2 * a.sigma**2))
    weights = torch.ones((), dtype=torch.float64)
    for _ in axes:
        weights = weights[..., None] * bell
    weights = (weights / weights.sum()).flatten()

    def cut(v: Tensor) -> Tensor:
        for axis in axes:
            v = v.unfold(axis, a.window_size, 1)
        return v.flatten(v.ndim - len(axes))

    def variance(v: Tensor) -> tuple[Tensor, Tensor]:
        mean = (v * weights).sum(-1)
        return mean, ((v - mean[..., None]).square() * weights).sum(-1)

    (mean_x, var_x), (mean_t, var_t) = (variance(cut(v)) for v in (x, t))
    mean_off, var_off = variance(cut(x - t))
    c1, c2 = (a.k1 * a.data_range) ** 2, (a.k2 * a.data_range) ** 2
    return mean_off**2 / (mean_x**2 + mean_t**2 + c1), var_off / (var_x + var_t + c2)


def _kept(a: Any) -> tuple[Tensor, Tensor]:
    """The images, 0 where they weigh nothing."""
    if a.weight is None:
        return a.prediction, a.target
    none = (a.weight == 0).reshape(-1, *[1] * (a.prediction.ndim - 1))
    return a.prediction.masked_fill(none, 0.0), a.target.masked_fill(none, 0.0)


def ssim_loss(a: Any) -> Tensor:
    x, t = _kept(a)
    if not len(x):
        return reduced(x.flatten(1).sum(1), 0, a.reduction, "ssim")
    p, q = _missing(x, t, a)
    return _by_image((p + q - p * q).flatten(1).mean(1), a, "ssim")


def _by_image(values: Tensor, a: Any, term: str) -> Tensor:
    if a.weight is None:
        return reduced(values, len(values), a.reduction, term)
    w = a.weight.double()
    values = torch.where(w > 0, values, 0.0) * w
    return reduced(values, w.sum(), a.reduction, term)


def ms_ssim_loss(a: Any) -> Tensor:
    """Wang et al. 2003 (doi:10.1109/ACSSC.2003.1292216), eq. 7, over places as they average."""
    x, t = _kept(a)
    if not len(x):
        return reduced(x.flatten(1).sum(1), 0, a.reduction, "ms_ssim")
    halved = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    logs = torch.zeros(x.shape[:2], dtype=torch.float64)
    for i, w in enumerate(a.scale_weight):
        if i:
            x, t = halved(x, 2), halved(t, 2)
        p, q = _missing(x, t, a)
        q = p + q - p * q if i == len(a.scale_weight) - 1 else q
        off = q.flatten(2).mean(2)
        low = off > 0.99  # as the docstring has it
        beyond = (1e-4 / (0.02 - (1 - torch.where(low, off, 1.0)))).log()
        logs = logs + w * torch.where(low, beyond, torch.log1p(-torch.where(low, 0.0, off)))
    return _by_image(-torch.expm1(logs).mean(1), a, "ms_ssim")
