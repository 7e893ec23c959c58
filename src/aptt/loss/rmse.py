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
    target: Tensor,
    *,
    weight: Tensor | None = None,
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
    each = pool == "sample"
    x, t, w = _samples(prediction, each), _samples(target, each), None
    if weight is not None:
        check_shapes(prediction=(prediction, "*N"), weight=(weight, "*N"))
        w = _samples(weight.to(widen(x[:0]).dtype), each)
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


def _samples(t: Tensor, each: bool) -> Tensor:
    """``(N, 1, S)``: each sample by itself, or all as one."""
    samples = t.shape[0] if each and t.ndim else 1
    return t.reshape(samples, 1, t.numel() // samples if samples else math.prod(t.shape[1:]))


def _error(x: Tensor, t: Tensor, *, log: bool) -> Tensor:
    return torch.log1p(x) - torch.log1p(t) if log else x - t


def _wide(error: Tensor) -> Tensor:
    """In a dtype that its square fits, large or small."""
    return error if error.device.type == "mps" else error.double()


def _held_by_singles(slope: Tensor) -> bool:
    low, high = slope.abs().aminmax()
    return bool((low > 1e-30) & (high < 1e30))


def _squares(x: Tensor, t: Tensor, w: Tensor | None, *, log: bool) -> Tensor:
    if w is not None:
        x, t = x.masked_fill(w == 0, 0.0), t.masked_fill(w == 0, 0)
    squares = _wide(_error(x, t, log=log)).square()
    return (squares if w is None else squares * w).sum((1, 2))


def _squares_forward(
    x: Tensor, work: Work, t: Tensor, w: Tensor | None, *, log: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if log or w is not None or x.device.type != "cpu":
        return _squares(x, t, w, log=log), ()
    error = torch.sub(x, t, out=work("error", x))
    low, high = error.aminmax()
    if 1e-12 < max(-low.item(), high.item()) < 1e12:  # single precision holds the squares
        return error.square_().sum((1, 2)).double(), ()
    return _wide(error).square().sum((1, 2)), ()


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
    slope = 2 * up.view(-1, 1, 1)
    if log or w is not None or x.device.type != "cpu" or not _held_by_singles(slope):
        error = _wide(_error(x, t, log=log)).mul_(slope)
        if log:
            error.div_(1 + x)
        if w is not None:
            error = error.mul_(w).masked_fill_(w == 0, 0.0)
        out.copy_(error)
    else:
        torch.sub(x, t, out=out).mul_(slope.to(x.dtype))


_SQUARES = Formula(_squares, _squares_forward, _squares_backward)


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
