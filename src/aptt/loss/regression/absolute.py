"""Absolute and squared error, the mean of each by weight.

    L1    = sum w |x - t| / sum w
    MSE   = sum w (x - t)**2 / sum w

Axes: prediction x and target t of any equal shape.
From: Legendre 1805 and Laplace 1793; the mean minimises the one, the median the other.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.numbers import ABSOLUTE, SQUARED, elementwise
from aptt.core.reduction import Reduction
from aptt.loss.regression.module import NumberLoss

__all__ = ["L1Loss", "MSELoss", "l1_loss", "mse_loss"]


def l1_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean absolute error: its minimum is the median, which outliers do not move.

        sum w |x - t| / sum w

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or with ``"none"`` the
        shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: -1 or 1 times
    the weight, and 0 where the two are equal.

    Use when:
        Errors count alike, large ones too, and the median is what is wanted.

    Elsewhere:
        torch ``l1_loss``, scikit-learn ``mean_absolute_error``; MAE.

    Differs from:
        torch: takes shapes that broadcast, after a warning: a column against a row is compared with
            every number of it. NaN in what weighs 0 stays NaN there.
        ``mean_absolute_percentage_error``: is this loss with ``weight=1 / |t|``, up to the mean.

    Example:
        >>> import torch
        >>> x, t = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])
        >>> l1_loss(x, t).item(), l1_loss(x, t, weight=[3.0, 1.0]).item()
        (1.5, 0.75)
    """
    return elementwise(ABSOLUTE, prediction, target, weight=weight, reduction=reduction, term="l1")


def mse_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean squared error: its minimum is the mean.

        sum w (x - t)**2 / sum w

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the square of the prediction's units: a scalar, or with ``"none"``
        the shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: twice the
    error, times the weight.

    Use when:
        The mean is what is wanted, and there are no outliers.

    Elsewhere:
        torch ``mse_loss``, scikit-learn ``mean_squared_error``.

    Differs from:
        torch: in half precision an error of 300 is infinite there, squared; shapes that broadcast
            are taken, after a warning; NaN in what weighs 0 stays NaN.

    Example:
        >>> import torch
        >>> x, t = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])
        >>> mse_loss(x, t).item(), mse_loss(x, t, weight=[3.0, 1.0]).item()
        (4.5, 2.25)
    """
    return elementwise(SQUARED, prediction, target, weight=weight, reduction=reduction, term="mse")


class L1Loss(NumberLoss):
    """Module form of :func:`l1_loss`; same options, same defaults."""

    _function = staticmethod(l1_loss)

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)


class MSELoss(NumberLoss):
    """Module form of :func:`mse_loss`; same options, same defaults."""

    _function = staticmethod(mse_loss)

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
