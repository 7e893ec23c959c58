"""Negative log likelihoods of numbers whose width is predicted beside them.

    Gaussian  (s + d**2 exp(-s)) / 2 + constant      s = log variance    d = x - t
    Laplace   |d| exp(-s) + s + constant             s = log scale

Axes: predictions and their widths ``(N, 2)``; targets ``(N,)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, by_row

__all__ = ["GAUSSIAN", "LAPLACE"]


def _gaussian(x: Tensor, kept: Kept, t: Tensor, *, beta: float, constant: float) -> Tensor:
    mean, s = x.unbind(1)
    if not beta:
        half = _root(s, 4)
        return ((mean - t) * half * half).square().add(s) / 2 + constant
    fixed = s.detach()
    half = _root(s - beta * fixed, 4)
    return torch.exp(beta * fixed) * (s / 2 + constant) + ((mean - t) * half * half).square() / 2


def _gaussian_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, beta: float, constant: float
) -> tuple[Tensor, Tensor]:
    # with v = exp(beta s) held constant: v d exp(-s) along the mean, v (1 - d**2 exp(-s)) / 2
    # along s; d meets exp(-s) by its roots, for it may leave the range where d**2 exp(-s) does not
    mean, s = x.unbind(1)
    half = _root((1 - beta) * s, 4)
    z = (mean - t) * half * half
    square = z.square()
    power = torch.exp(beta * s) if beta else 1.0
    along = (power - square) / 2
    v = power * (s / 2 + constant) + square / 2
    return v, torch.stack((z * half * half, along), 1).mul_(by_row(up))


def _laplace(x: Tensor, kept: Kept, t: Tensor, *, constant: float) -> Tensor:
    median, s = x.unbind(1)
    half = _root(s, 2)
    return ((median - t) * half * half).abs() + s + constant


def _laplace_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, constant: float
) -> tuple[Tensor, Tensor]:
    # sign(d) exp(-s) along the median, 1 - |d| exp(-s) along s
    median, s = x.unbind(1)
    half, d = _root(s, 2), median - t
    off = (d * half * half).abs()
    slopes = torch.stack((d.sgn() * half * half, 1 - off), 1)
    return off + s + constant, slopes.mul_(by_row(up))


def _root(s: Tensor, parts: int) -> Tensor:
    """``exp(-s / parts)``, finite: no error that a dtype holds times its powers is less for it."""
    most = math.log(torch.finfo(s.dtype).max) * (1 - 2**-10)
    return torch.exp((s / -parts).clamp(max=most))


GAUSSIAN = Formula(_gaussian, _gaussian_step, ahead=True, block=2**17)
LAPLACE = Formula(_laplace, _laplace_step, ahead=True, block=2**17)
