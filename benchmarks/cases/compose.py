"""A small training step with three losses: what names, an account and balancing cost beside a sum.

Forward and backward through twelve layers of 384, with a batch of 128. Balancers compute something
else than a bare sum, so each is held to itself: compare its milliseconds, not its ratio.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aptt.loss
from aptt.compose import Balance, GradShare, Uncertainty, WeightedSum
from benchmarks.case import OURS, Case, Contender, Loss

__all__ = ["CASES"]

_WEIGHTS = {"rmse": 1.0, "l1": 0.3, "huber": 2.0}


def _model(width: int) -> nn.Module:
    """The same for every contender."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        return nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(width, width), nn.ReLU())))


def _terms(out: Tensor, target: Tensor) -> dict[str, Tensor | None]:
    return {
        "rmse": aptt.loss.rmse_loss(out, target),
        "l1": F.l1_loss(out, target),
        "huber": F.huber_loss(out, target),
    }


def _inputs(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.randn(size), torch.randn(size)


def _bare() -> Loss:
    models: dict[int, nn.Module] = {w: _model(w) for w in (_SIZE[1], _QUICK[1])}

    def loss(x: Tensor, target: Tensor) -> Tensor:
        out = models[x.shape[1]](x)
        terms = _terms(out, target)
        return sum(weight * terms[name] for name, weight in _WEIGHTS.items())

    return loss


def _mixed(balance: Balance | None = None, *, recording: bool = True) -> Loss:
    models: dict[int, nn.Module] = {w: _model(w) for w in (_SIZE[1], _QUICK[1])}
    mix = WeightedSum(_WEIGHTS, balance=balance)
    # no optimizer here, so nothing moves
    warnings.filterwarnings("ignore", message="the weights of Uncertainty have not moved")
    if not recording:
        mix.record.add = lambda *step: None

    def loss(x: Tensor, target: Tensor) -> Tensor:
        out = models[x.shape[1]](x)
        return mix(_terms(out, target), at=out)

    return loss


_SIZE, _QUICK = (128, 384), (512, 64)

CASES = (
    Case(
        "compose",
        "rmse_loss",
        _inputs,
        size=_SIZE,
        quick=_QUICK,
        contenders=(
            Contender(OURS, _mixed),
            Contender("bare sum, compiled", _bare, compiled=True),
            Contender("bare sum", _bare),
            Contender("no recorder", lambda: _mixed(recording=False)),
            Contender("Uncertainty", lambda: _mixed(Uncertainty()), against="Uncertainty"),
            Contender("GradShare", lambda: _mixed(GradShare()), against="GradShare"),
        ),
        compiles=False,
    ),
)
