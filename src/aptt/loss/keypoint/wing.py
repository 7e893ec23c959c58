"""Wing loss: a logarithm near the target, so that small errors keep counting.

    loss = w log(1 + |d| / epsilon) below w, |d| - c from there on

Axes: any shape.
From: Feng et al., CVPR 2018, arXiv:1711.06753, eq. 5.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import (
    Numbers,
)
from aptt.core.module import LossModule
from aptt.core.numbers import elementwise
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.wing import WING, check_wing

__all__ = ["WingLoss", "wing_loss"]


def wing_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    width: float = 10.0,
    epsilon: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Wing loss: a logarithm near the target, so that small errors keep counting.

        width log(1 + |x - t| / epsilon) below width, |x - t| - c from there on, c for continuity

    Args:
        prediction: any shape, any floating dtype, in pixels.
        target: the same shape.
        weight: the same shape; multiplies and is counted, and 0 removes.
        width: the error from which on the loss is linear, above 0.
        epsilon: how sharp the bend at 0 is, above 0.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that differ, an unknown option.

    The gradient goes to ``prediction``, and to targets and weights that ask for it: ``width /
    epsilon`` near the target, down to ``width / (epsilon + width)`` at ``width``, and 1 from there.

    Use when:
        Landmarks are regressed directly and should end within a pixel.

    Elsewhere:
        mmpose ``WingLoss``, pytorch-toolbelt ``WingLoss``.

    Differs from:
        mmpose: the mean is over coordinates, not the sum over them; a weight multiplies the loss,
            there the coordinates inside the logarithm.

    Example:
        >>> import torch
        >>> round(wing_loss(torch.tensor([2.0, 30.0]), torch.tensor([0.0, 0.0])).item(), 4)
        22.4245
    """
    check_wing(width=width, epsilon=epsilon)
    return elementwise(
        WING, prediction, target, weight=weight, reduction=reduction, term="wing", width=width,
        curvature=epsilon,
    )  # fmt: skip


class WingLoss(LossModule):
    """Module form of :func:`wing_loss`; same options, same defaults."""

    def __init__(
        self, width: float = 10.0, epsilon: float = 2.0, reduction: Reduction = "mean"
    ) -> None:
        check_wing(width=width, epsilon=epsilon)
        check_reduction(reduction)
        super().__init__(width=width, epsilon=epsilon, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return wing_loss(prediction, target, weight=weight, **self.options())
