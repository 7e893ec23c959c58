"""Wing and adaptive wing: logarithmic near the target, linear far from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["adaptive_wing", "wing"]


def wing(x: Tensor, t: Tensor, *, width: float, curvature: float) -> Tensor:
    """``width * ln(1 + |x - t| / curvature)``, from ``width`` on linear."""
    off = (x - t).abs()
    bend = width - width * math.log1p(width / curvature)
    near = width * torch.log1p(off.clamp_max(width) / curvature)
    return torch.where(off < width, near, off - bend)


def adaptive_wing(
    x: Tensor, t: Tensor, *, alpha: float, omega: float, epsilon: float, theta: float
) -> Tensor:
    """``omega * ln(1 + |(x - t) / epsilon|**(alpha - t))``, from ``theta`` on linear."""
    off, power = (x - t).abs(), alpha - t
    inside = off < theta
    near = torch.where(inside, off, theta) / epsilon
    edge = (theta / epsilon) ** power
    slope = omega * power * edge / (1 + edge) / theta
    return omega * torch.log1p(near**power) + torch.where(inside, 0.0, slope * (off - theta))
