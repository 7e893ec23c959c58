"""Root mean squared error of many numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import aptt.loss
from benchmarks.case import OURS, Case, Contender

__all__ = ["CASES"]


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(size), torch.randn(size)


def plain(x: Tensor, t: Tensor) -> Tensor:
    """The root of torch's mean squared error."""
    return F.mse_loss(x, t).sqrt()


CASES = (
    Case(
        "rmse",
        "rmse_loss",
        _inputs,
        size=(64_000_000,),
        quick=(2**15,),
        contenders=(
            Contender(OURS, lambda: aptt.loss.rmse_loss),
            Contender("plain, compiled", lambda: plain, compiled=True),
            Contender("plain", lambda: plain),
        ),
    ),
)
