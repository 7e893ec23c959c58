"""Squared near the target, absolute far from it.

    d        = x - t,  c = d held to [-delta, delta]
    Huber    = c (d - c / 2)                  d**2 / 2 within delta, delta (|d| - delta / 2) beyond
    smooth   = Huber / beta, with delta = beta; at beta = 0 it is |d|

Axes: prediction x and target t of any equal shape.
From: Huber, Annals of Mathematical Statistics 35 (1964), https://doi.org/10.1214/aoms/1177703732;
smooth L1, Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, eq. 3, where beta is 1.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_positive
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.numbers import ABSOLUTE, elementwise
from aptt.core.reduction import Reduction
from aptt.loss.regression.module import NumberLoss

__all__ = ["HuberLoss", "SmoothL1Loss", "huber_loss", "smooth_l1_loss"]


def huber_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Huber loss: half the squared error within delta, linear beyond, with a slope of delta.

        d**2 / 2 where |d| <= delta, delta (|d| - delta / 2) beyond, with d = x - t

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        delta: the error from which on the loss is linear, in the units of the prediction, above 0.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types. It is ``delta`` times ``smooth_l1_loss(beta=delta)``.

    Raises:
        ValueError: shapes that differ, delta of 0 or less, weights that are negative or infinite
            (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: the error, held
    to ``[-delta, delta]``.

    Use when:
        A few targets are wrong, and the mean of the others is wanted: temporal differences, depth.

    Elsewhere:
        torch ``huber_loss``, Keras ``Huber``.

    Differs from:
        torch: its ``weight`` multiplies and is not counted, so that a weight of 0 lowers the mean.

    Example:
        >>> import torch
        >>> huber_loss(torch.tensor([2.0]), torch.tensor([0.0]), delta=0.5).item()
        0.875
    """
    check_positive("delta", delta)
    return elementwise(
        HUBER, prediction, target, weight=weight, reduction=reduction, term="huber", edge=delta,
        unit=1.0,
    )  # fmt: skip


def smooth_l1_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    beta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Smooth L1: the absolute error, rounded off within beta, with a slope of 1.

        d**2 / (2 beta) where |d| <= beta, |d| - beta / 2 beyond, with d = x - t

    Args:
        prediction: any shape, any floating dtype.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        beta: the error from which on the loss is linear, in the units of the prediction; 0 is
            :func:`l1_loss`.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, a negative beta, weights that are negative or infinite
            (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: the error over
    beta, held to [-1, 1].

    Use when:
        Offsets are regressed, as in detectors: an L1 loss that comes to rest at the target.

    Elsewhere:
        torch ``smooth_l1_loss``, mmdetection ``SmoothL1Loss``.

    Differs from:
        mmdetection: there a beta of 0 is refused, and fvcore takes one below 1e-5 for 0.

    Example:
        >>> import torch
        >>> smooth_l1_loss(torch.tensor([2.0]), torch.tensor([0.0]), beta=0.5).item()
        1.75
    """
    check_positive("beta", beta, zero=True)
    if not beta:
        return elementwise(
            ABSOLUTE, prediction, target, weight=weight, reduction=reduction, term="smooth_l1"
        )
    return elementwise(
        HUBER, prediction, target, weight=weight, reduction=reduction, term="smooth_l1", edge=beta,
        unit=beta,
    )  # fmt: skip


def _huber(x: Tensor, kept: Kept, t: Tensor, *, edge: float, unit: float) -> Tensor:
    d = x - t
    near = d.clamp(-edge, edge)
    return near / unit * (d - near / 2)


def _huber_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, edge: float, unit: float
) -> tuple[Tensor, Tensor]:
    # within the edge the slope is d, beyond it the edge; the value is read before it is scaled
    d = x - t
    near = d.clamp(-edge, edge)
    slope = near / unit
    return slope * d.sub_(near, alpha=0.5), scaled_(slope, up)


HUBER = Formula(_huber, _huber_step, ahead=True)


class HuberLoss(NumberLoss):
    """Module form of :func:`huber_loss`; same options, same defaults."""

    _function = staticmethod(huber_loss)

    def __init__(self, delta: float = 1.0, reduction: Reduction = "mean") -> None:
        check_positive("delta", delta)
        super().__init__(delta=delta, reduction=reduction)


class SmoothL1Loss(NumberLoss):
    """Module form of :func:`smooth_l1_loss`; same options, same defaults."""

    _function = staticmethod(smooth_l1_loss)

    def __init__(self, beta: float = 1.0, reduction: Reduction = "mean") -> None:
        check_positive("beta", beta, zero=True)
        super().__init__(beta=beta, reduction=reduction)
