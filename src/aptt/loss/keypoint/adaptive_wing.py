"""Adaptive wing loss: a wing that is sharp where the target is 1 and smooth where it is 0.

    loss = omega log(1 + |d / epsilon|**(alpha - y)) below theta, linear from there on

Axes: any shape.
From: Wang et al., ICCV 2019, arXiv:1904.07399, eq. 3.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_number,
    check_range,
)
from aptt.core.module import LossModule
from aptt.core.numbers import against, reduced
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.wing import ADAPTIVE_WING, check_wing

__all__ = ["AdaptiveWingLoss", "adaptive_wing_loss"]


def adaptive_wing_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Adaptive wing loss: sharp where the target is 1, smooth where it is 0.

        omega log(1 + |(x - y) / epsilon|**(alpha - y)) below theta, linear from there on

    Args:
        prediction: any shape, any floating dtype: the values of a heat map.
        target: the same shape, from 0 to 1.
        weight: the same shape; multiplies and is counted, and 0 removes. The paper weighs pixels
            in and near a peak 11 times.
        alpha: exponent where the target is 0, at least 2.
        omega: scale, above 0.
        epsilon: the error at which the logarithm is log 2, above 0.
        theta: the error from which on the loss is linear, above 0.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, targets out of range (on CPU), an unknown option.

    The gradient goes to ``prediction``, and to targets and weights that ask for it. It has no
    slope of its own exactly at the target: the second derivative is infinite there for targets
    above ``alpha - 2``.

    Use when:
        Regressing heat maps whose peaks should be exact though most pixels are background.

    Elsewhere:
        mmpose ``AdaptiveWingLoss``.

    Differs from:
        mmpose: a weight multiplies the loss; there it multiplies both heat maps, and with them
            the exponent.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([0.2, 1.0]), torch.tensor([0.0, 1.0])
        >>> round(adaptive_wing_loss(x, y).item(), 4)
        0.2344
    """
    check_wing(omega=omega, epsilon=epsilon, theta=theta)
    check_number("alpha", alpha, 2.0)
    check_reduction(reduction)
    target, weight = against(prediction, target, weight)
    check_range(target, 0, 1, keep=None if weight is None else weight != 0)
    return reduced(
        ADAPTIVE_WING, prediction.reshape(-1), target, weight=weight, reduction=reduction,
        term="adaptive_wing", alpha=alpha, omega=omega, epsilon=epsilon, theta=theta,
    )  # fmt: skip


class AdaptiveWingLoss(LossModule):
    """Module form of :func:`adaptive_wing_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        reduction: Reduction = "mean",
    ) -> None:
        check_wing(omega=omega, epsilon=epsilon, theta=theta)
        check_number("alpha", alpha, 2.0)
        check_reduction(reduction)
        super().__init__(
            alpha=alpha, omega=omega, epsilon=epsilon, theta=theta, reduction=reduction
        )

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return adaptive_wing_loss(prediction, target, weight=weight, **self.options())
