"""Quantile loss: each output is to be exceeded by the target as often as its quantile says.

    d      = t - x_q
    loss   = max(q d, (q - 1) d) = q relu(d) + (1 - q) relu(-d)

Axes: predictions ``(..., Q)``, one for each of Q quantiles; targets ``(...)``.
From: Koenker and Bassett, "Regression Quantiles", Econometrica 46 (1978),
https://doi.org/10.2307/1913643.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from aptt.core.checks import Numbers, as_weight
from aptt.core.formula import Formula, Kept
from aptt.core.memory import brought
from aptt.core.numbers import against, reduced
from aptt.core.precision import wide
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.shapes import check_shapes
from aptt.loss.regression.module import NumberLoss

__all__ = ["QuantileLoss", "quantile_loss"]


def quantile_loss(
    prediction: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    reduction: Reduction = "mean",
) -> Tensor:
    """Quantile or pinball loss: an error below costs q, one above 1 - q.

        max(q d, (q - 1) d), with d = t - x_q

    Args:
        prediction: ``(..., Q)``, one number for each quantile, any floating dtype.
        target: ``(...)``.
        weight: ``(...)`` or ``(..., Q)``; multiplies and is counted, and 0 removes.
        quantiles: Q numbers between 0 and 1, ascending: 0.1 is exceeded in nine of ten cases.
        reduction: ``"mean"``, over targets and quantiles, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, in the units of the prediction: a scalar, or with ``"none"`` the
        shape ``(..., Q)``. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, quantiles that are not ascending between 0 and 1,
            weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction``, and to targets and weights that ask for it: ``-q`` or ``1 -
    q``, and 0 where the two are equal. Quantiles that cross are not penalised: sort them
    afterwards, or predict the lowest and positive steps.

    Use when:
        A forecast should say how sure it is, without a shape for its distribution.

    Elsewhere:
        pytorch-forecasting ``QuantileLoss``, darts ``QuantileRegression``, scikit-learn
        ``mean_pinball_loss``.

    Differs from:
        pytorch-forecasting: twice this, and 0.5 must be among the quantiles there.
        darts: sums over the quantiles, so that one more raises the loss.

    Example:
        >>> import torch
        >>> x, t = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([2.0])
        >>> loss = quantile_loss(x, t, quantiles=(0.1, 0.5, 0.9), reduction="none")
        >>> [round(value, 4) for value in loss[0].tolist()]
        [0.1, 0.5, 0.9]
    """
    check_reduction(reduction)
    shares = _checked(quantiles)
    target, _ = against(prediction, target, None, each="Q")
    if prediction.shape[-1] != len(shares):
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, wanted (..., {len(shares)}), one "
            f"number for each of quantiles={shares}"
        )
    q, each = brought(shares, prediction, wide(prediction.dtype)), prediction.shape
    if weight is not None:
        weight = as_weight("weight", weight, prediction)
        if weight.ndim != prediction.ndim:
            weight = weight.unsqueeze(-1).expand(*weight.shape, len(shares))
        check_shapes(prediction=(prediction, "*N Q"), weight=(weight, "*N Q"))
    return reduced(
        PINBALL,
        prediction.reshape(-1),
        target.unsqueeze(-1).expand(each),
        q.expand(each).reshape(-1),
        weight=weight,
        reduction=reduction,
        term="quantile",
    )


def _pinball(x: Tensor, kept: Kept, t: Tensor, q: Tensor) -> Tensor:
    d = t - x
    return q * d.relu() + (1 - q) * (-d).relu()


def _pinball_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, q: Tensor
) -> tuple[Tensor, Tensor]:
    # -q where the target is above, 1 - q where it is below
    d = x - t
    slope = (d > 0).to(d.dtype).sub_(q).mul_(d != 0)
    return slope * d, slope.mul_(up)


PINBALL = Formula(_pinball, _pinball_step, ahead=True)


def _checked(quantiles: Sequence[float]) -> tuple[float, ...]:
    try:
        shares = tuple(float(q) for q in quantiles)
    except (TypeError, ValueError):
        raise TypeError(f"quantiles: got {quantiles!r}, wanted numbers, one per output") from None
    ascending = all(low < high for low, high in pairwise((0.0, *shares, 1.0)))
    if not shares or not ascending:
        raise ValueError(
            f"quantiles: got {quantiles!r}, wanted numbers between 0 and 1, in ascending order, as "
            "the outputs are"
        )
    return shares


class QuantileLoss(NumberLoss):
    """Module form of :func:`quantile_loss`; same options, same defaults."""

    _function = staticmethod(quantile_loss)

    def __init__(
        self, quantiles: Sequence[float] = (0.1, 0.5, 0.9), reduction: Reduction = "mean"
    ) -> None:
        super().__init__(quantiles=_checked(quantiles), reduction=reduction)
