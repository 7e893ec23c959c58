"""Root mean squared error, also of logarithms.

    RMSE   = sqrt(sum w (x - t)**2 / sum w)
    RMSLE  = sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: RMSLE as in the Kaggle competitions that spread it; it is RMSE after ``log1p``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_choice, check_floating, check_shapes
from aptt.core.streaming import Formula, Work, evaluate, widen

__all__ = ["Pool", "RMSELoss", "RMSLELoss", "rmse_loss", "rmsle_loss"]

Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def rmse_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error: 0, with a gradient of 0, where the two are equal."""
    return _root(prediction, target, weight, pool, reduction, "rmse", log=False)


def rmsle_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error of ``log(1 + x)``, for quantities above -1 that span magnitudes."""
    return _root(prediction, target, weight, pool, reduction, "rmsle", log=True)


def _root(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pool: Pool,
    reduction: Reduction,
    term: str,
    *,
    log: bool,
) -> Tensor:
    _check_options(pool, reduction)
    check_floating(prediction=prediction)
    check_shapes(prediction=(prediction, "*N"), target=(target, "*N"))
    x, t, w = _samples(prediction), _samples(target), None
    if weight is not None:
        check_shapes(prediction=(prediction, "*N"), weight=(weight, "*N"))
        w = _samples(weight.to(widen(x[:0]).dtype))
    squares = evaluate(_SQUARES, x, t, w, gather="samples", log=log)
    counts = x.new_full((len(x),), x.shape[2], dtype=squares.dtype)
    sums = torch.stack((squares, counts if w is None else w.sum((1, 2)).to(squares.dtype)))
    if pool != "sample":
        sums = sums.sum(1)
        if callable(pool):
            sums = pool(sums)
    mean = sums[0] / torch.where(sums[1] > 0, sums[1], 1)
    root = torch.where(mean > 0, torch.where(mean > 0, mean, 1).sqrt(), 0 * mean)
    root = root.to(widen(x[:0]).dtype)
    if reduction == "none":
        return root
    return normalize(root.sum(), (sums[1] > 0).sum(), reduction, term=term)


def _samples(t: Tensor) -> Tensor:
    return t.reshape(t.shape[0] if t.ndim else 1, 1, math.prod(t.shape[1:]))


def _error(x: Tensor, t: Tensor, *, log: bool) -> Tensor:
    error = torch.log1p(x) - torch.log1p(t) if log else x - t
    return error if x.device.type == "mps" else error.double()  # its square fits, large or small


def _squares(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0)
    squares = _error(x, t, log=log).square()
    return (squares if w is None else squares * w).sum((1, 2))


def _squares_backward(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    w: Tensor | None,
    *,
    log: bool,
) -> None:
    slope = _error(x, t, log=log).mul_(2 * up.view(-1, 1, 1))
    if log:
        slope.div_(1 + x)
    if w is not None:
        slope = slope.mul_(w).masked_fill_(w == 0, 0.0)
    out.copy_(slope)


_SQUARES = Formula(_squares, backward=_squares_backward)


def _check_options(pool: Pool, reduction: Reduction) -> None:
    check_reduction(reduction)
    if not callable(pool):
        check_choice("pool", pool, ("batch", "sample"), also="a callable that sums over ranks")


class RMSELoss(LossModule):
    """Module form of :func:`rmse_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        _check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmse_loss(prediction, target, weight=weight, **self.options())


class RMSLELoss(LossModule):
    """Module form of :func:`rmsle_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        _check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmsle_loss(prediction, target, weight=weight, **self.options())
