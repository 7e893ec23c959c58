"""Root mean squared error.

    RMSE   = sqrt(sum w (x - t)**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae" (1823), where it is
called the mean error.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.rmse.root import Pool, check_options, root_loss

__all__ = ["RMSELoss", "rmse_loss"]


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
    return root_loss(prediction, target, weight, pool, reduction, "rmse", log=False)


class RMSELoss(LossModule):
    """Module form of :func:`rmse_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmse_loss(prediction, target, weight=weight, **self.options())
