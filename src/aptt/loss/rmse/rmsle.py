"""Root mean squared error of logarithms.

    RMSLE  = sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: as in the Kaggle competitions that spread it; it is RMSE after ``log1p``.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.rmse.root import Pool, check_options, root_loss

__all__ = ["RMSLELoss", "rmsle_loss"]


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
        ValueError: shapes that differ, an unknown option, numbers of -1 or less that count (on CPU;
            elsewhere the loss is not finite there).

    The gradient goes to ``prediction``, and to targets and weights that ask for it. A root cannot
    be split: micro-batches are exact with ``pool="sample"`` only.

    Use when:
        Ratios matter rather than differences: counts, prices, energies.

    Elsewhere:
        scikit-learn ``root_mean_squared_log_error``.

    Differs from:
        Clamped forms: a prediction of -1 or less is refused rather than clamped, which would leave
            it without a gradient.
        ``log1p(x) - log1p(t)``: the digits are kept where the two are close.

    Example:
        >>> import torch
        >>> round(rmsle_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0])).item(), 4)
        0.4901
    """
    return root_loss(prediction, target, weight, pool, reduction, "rmsle", log=True)


class RMSLELoss(LossModule):
    """Module form of :func:`rmsle_loss`; same options, same defaults."""

    def __init__(self, pool: Pool = "batch", reduction: Reduction = "mean") -> None:
        check_options(pool, reduction)
        super().__init__(pool=pool, reduction=reduction)

    def forward(
        self, prediction: Tensor, target: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``prediction`` against ``target``."""
        return rmsle_loss(prediction, target, weight=weight, **self.options())
