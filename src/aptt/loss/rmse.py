"""Root mean squared error, also of logarithms.

    RMSE   = sqrt(sum w (x - t)**2 / sum w)
    RMSLE  = sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: RMSLE as in the Kaggle competitions that spread it; it is RMSE after ``log1p``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_choice,
    check_floating,
    check_weight,
)
from aptt.core.engine import evaluate
from aptt.core.formula import Formula, Kept, widen
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.signals import stretched, wide

__all__ = ["Pool", "RMSELoss", "RMSLELoss", "rmse_loss", "rmsle_loss"]

Pool = Literal["batch", "sample"] | Callable[[Tensor], Tensor]


def rmse_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error: 0, with a gradient of 0, where the two are equal.

        sqrt(sum w (x - t)**2 / sum w)

    Args:
        prediction: any shape, the first axis the samples; any floating dtype.
        target: the same shape.
        weight: the same shape; the part of each element in the mean, and 0 removes it.
        pool: the elements under one root: ``"batch"``, ``"sample"``, or a callable that sums the
            batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over the samples: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or one value per sample
        with ``pool="sample", reduction="none"``. float32 for half types.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. A root cannot
    be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        The error should be read in the units of the target, or every signal count alike.

    Elsewhere:
        scikit-learn ``root_mean_squared_error``, torchmetrics ``MeanSquaredError(squared=False)``.

    Differs from:
        ``sqrt(mse)``, ``sqrt(mse + eps)``: exact at 0, and no NaN or bias there; errors from 1e-38
            to 1e38 in float32.

    Example:
        >>> import torch
        >>> round(rmse_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item(), 4)
        2.1213
    """
    return _root(prediction, target, weight, pool, reduction, "rmse", log=False)


def rmsle_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    pool: Pool = "batch",
    reduction: Reduction = "mean",
) -> Tensor:
    """Root mean squared error of ``log(1 + x)``, for quantities that span magnitudes.

        sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

    Args:
        prediction: any shape, the first axis the samples; any floating dtype.
        target: the same shape. Both above -1.
        weight: the same shape; the part of each element in the mean, and 0 removes it.
        pool: the elements under one root: ``"batch"``, ``"sample"``, or a callable that sums the
            batch's sums over ranks, such as ``aptt.parallel.world_sum``.
        reduction: over the samples: ``"mean"``, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or one value per sample with ``pool="sample",
        reduction="none"``. float32 for half types.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. A root cannot
    be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Ratios matter rather than differences: counts, prices, energies.

    Elsewhere:
        scikit-learn ``root_mean_squared_log_error``.

    Differs from:
        Clamped forms: a prediction at or below -1 is not clamped; its loss is not finite.

    Example:
        >>> import torch
        >>> round(rmsle_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item(), 4)
        0.4901
    """
    return _root(prediction, target, weight, pool, reduction, "rmsle", log=True)


def _root(
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    pool: Pool,
    reduction: Reduction,
    term: str,
    *,
    log: bool,
) -> Tensor:
    _check_options(pool, reduction)
    check_floating(prediction=prediction)
    target = as_tensor("target", target, prediction)
    check_shapes(prediction=(prediction, "*N"), target=(target, "*N"))
    each = pool == "sample"
    x, t, w = _samples(prediction, each), _samples(target, each), None
    if weight is not None:
        weight = as_tensor("weight", weight, prediction)
        check_shapes(prediction=(prediction, "*N"), weight=(weight, "*N"))
        check_weight("weight", weight)
        w = _samples(weight.to(widen(x[:0]).dtype), each)
    squares = evaluate(_SQUARES, x, t, w, gather="samples", log=log)
    if w is None and not callable(pool):
        counts: Tensor | float = x.shape[2]
        counted: Tensor | float = len(x) if x.shape[2] else 0
    else:
        counts = x.new_full((len(x),), x.shape[2]) if w is None else w.sum((1, 2))
        if callable(pool):
            both = torch.stack((squares, counts.to(squares.dtype)))
            squares, counts = pool(both.sum(1)).unbind(0)
        counted = (counts > 0).sum()
        counts = torch.where(counts > 0, counts, 1)
    mean = squares / (counts or 1 if isinstance(counts, int) else counts)
    root = mean.sqrt().to(widen(x[:0]).dtype)
    if not each:
        root = root.reshape(())
    if reduction == "none":
        return root
    total = root.sum() if each else root
    return normalize(total, counted, reduction, term=term, kind="ratios", splits=each)


def _samples(t: Tensor, each: bool) -> Tensor:
    """``(N, 1, S)``: each sample by itself, or all as one."""
    samples = t.shape[0] if each and t.ndim else 1
    return t.reshape(samples, 1, t.numel() // samples if samples else math.prod(t.shape[1:]))


def _error(x: Tensor, t: Tensor, *, log: bool) -> Tensor:
    return torch.log1p(x) - torch.log1p(t) if log else x - t


def _stats(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Kept:
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0.0)
    d = wide(_error(x, t, log=log))
    squares = d * d
    return ((squares if w is None else squares * w).sum((1, 2)),)


def _result(x: Tensor, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    # at 0 the root that follows has an infinite slope, of which nothing may come back
    (squares,) = kept
    return squares.masked_fill(squares == 0, 0.0)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[None, Tensor]:
    # d sum w e**2 = 2 w e de, where de = dx, or dx / (1 + x) of logarithms
    slope = torch.where(kept[0] == 0, 0.0, 2 * up).unsqueeze(1)
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0.0)
    if log:
        dx = wide(_error(x, t, log=True)) * slope.unsqueeze(1) / (1 + x)
    else:
        dx = stretched(x, t, slope)
    return None, dx if w is None else dx * w


_SQUARES = Formula(_result, _step, _stats)


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
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmse_loss(prediction, target, weight=weight, **self.options())


class RMSLELoss(LossModule):
    """Module form of :func:`rmsle_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        _check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmsle_loss(prediction, target, weight=weight, **self.options())
