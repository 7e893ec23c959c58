"""Wing and adaptive wing: logarithmic near the target, linear far from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import check_positive
from aptt.core.formula import Formula, Kept

__all__ = ["ADAPTIVE_WING", "WING", "check_wing"]


def _wing(x: Tensor, kept: Kept, t: Tensor, *, width: float, curvature: float) -> Tensor:
    """``width * ln(1 + |x - t| / curvature)``, from ``width`` on linear."""
    off = (x - t).abs()
    near = off.clamp(max=width)
    return width * torch.log1p(near / curvature) + torch.relu(off - width)


def _adaptive_wing(
    x: Tensor, kept: Kept, t: Tensor, *, alpha: float, omega: float, epsilon: float, theta: float
) -> Tensor:
    """``omega * ln(1 + |(x - t) / epsilon|**(alpha - t))``, from ``theta`` on linear."""
    off, power = (x - t).abs(), alpha - t
    near = off.clamp(max=theta)
    slope = omega * power * torch.sigmoid(power * math.log(theta / epsilon)) / theta
    return omega * torch.log1p((near / epsilon) ** power) + slope * torch.relu(off - theta)


WING = Formula(_wing, ahead=True, block=2**17)
ADAPTIVE_WING = Formula(_adaptive_wing, ahead=True, block=2**17)


def check_wing(**options: float) -> None:
    """Hold the options of a wing to finite numbers above 0, in float32 too."""
    for name, value in options.items():
        check_positive(name, value)
    edge = options.get("theta", 0.0) / options.get("epsilon", 1.0)
    if edge > _STEEPEST:
        raise ValueError(
            f"epsilon: got {options['epsilon']} with theta={options['theta']}, wanted at least "
            f"theta / {_STEEPEST:g}, whose powers are finite"
        )


_STEEPEST = 1e12
