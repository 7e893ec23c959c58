"""Negative log likelihoods: a prediction that says how wide its error is.

    d         = x - t
    Gaussian  = (s + d**2 exp(-s)) / 2        s = log variance; + log(2 pi) / 2 with ``full``
    Laplace   = log 2 + s + |d| exp(-s)       s = log b, b the mean of |d|

Axes: prediction x, its log variance or log scale s, and target t of any equal shape.
From: Nix and Weigend, "Estimating the mean and variance of the target probability distribution",
ICNN 1994, https://doi.org/10.1109/ICNN.1994.374138; beta, Seitzer et al., ICLR 2022,
arXiv:2203.09168, section 4.
"""

from __future__ import annotations

import math

from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_number
from aptt.core.formula import Formula
from aptt.core.likelihood import GAUSSIAN, LAPLACE
from aptt.core.module import LossModule
from aptt.core.numbers import against, reduced, spread
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.regression.module import SpreadLoss

__all__ = ["GaussianNLLLoss", "LaplaceNLLLoss", "gaussian_nll_loss", "laplace_nll_loss"]


def gaussian_nll_loss(
    prediction: Tensor,
    target: Numbers,
    log_variance: Tensor,
    *,
    weight: Numbers | None = None,
    beta: float = 0.0,
    full: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of a normal distribution, from its mean and log variance.

        (s + d**2 exp(-s)) / 2, with d = x - t

    Args:
        prediction: the mean; any shape, any floating dtype.
        target: the same shape.
        log_variance: s, the same shape; an output of the model, of any sign.
        weight: the same shape; multiplies and is counted, and 0 removes.
        beta: multiplies the loss by the variance to this power, as a constant: 0.5 gives hard
            examples the part that a likelihood takes from them, 1 that of a squared error.
        full: add ``log(2 pi) / 2``, which changes no gradient.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, negative where the variance is below 1 and right: a scalar, or with ``"none"`` the
        shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, a negative beta, weights that are negative or infinite
            (on CPU).

    The gradient goes to ``prediction`` and ``log_variance``, ``d exp(-s)`` and ``(1 - d**2 exp(-s))
    / 2``, and to targets and weights that ask for it. Nothing flows through the factor of ``beta``.
    A log variance far below that of the errors costs what it costs: bound it in the model.

    Use when:
        The noise differs from input to input, or the uncertainty itself is wanted.

    Elsewhere:
        torch ``gaussian_nll_loss``, which takes the variance.

    Differs from:
        torch: no clamp of the variance, whose gradient there is wrong below ``eps``; a variance per
            row is not taken for one per element; one graph under ``torch.compile``.

    Example:
        >>> import torch
        >>> mean, s = torch.tensor([1.0]), torch.tensor([0.0])
        >>> gaussian_nll_loss(mean, torch.tensor([0.0]), s).item()
        0.5
    """
    check_number("beta", beta)
    check_flags(full=full)
    return _likelihood(
        GAUSSIAN, prediction, target, weight, reduction, "gaussian_nll", log_variance=log_variance,
        beta=beta, constant=math.log(2 * math.pi) / 2 if full else 0.0,
    )  # fmt: skip


def laplace_nll_loss(
    prediction: Tensor,
    target: Numbers,
    log_scale: Tensor,
    *,
    weight: Numbers | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Negative log likelihood of a Laplace distribution, from its median and log scale.

        log 2 + s + |d| exp(-s), with d = x - t

    Args:
        prediction: the median; any shape, any floating dtype.
        target: the same shape.
        log_scale: s, the log of the mean absolute error b, the same shape; an output of the model.
        weight: the same shape; multiplies and is counted, and 0 removes.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, negative where the scale is below 1/2 and right: a scalar, or with ``"none"`` the
        shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, weights that are negative or infinite (on CPU).

    The gradient goes to ``prediction`` and ``log_scale``, ``sign(d) exp(-s)`` and ``1 - |d|
    exp(-s)``, and to targets and weights that ask for it.

    Use when:
        As the normal one, with outliers: trajectories, optical flow, depth.

    Elsewhere:
        torch-geometric examples, QCNet ``LaplaceNLLLoss``, ``torch.distributions.Laplace``.

    Differs from:
        ``-Laplace(x, b).log_prob(t)``: the same number, from the log of the scale, which no
            exponential rounds to 0.

    Example:
        >>> import torch
        >>> median, s = torch.tensor([1.0]), torch.tensor([0.0])
        >>> round(laplace_nll_loss(median, torch.tensor([0.0]), s).item(), 6)
        1.693147
    """
    return _likelihood(
        LAPLACE, prediction, target, weight, reduction, "laplace_nll", log_scale=log_scale,
        constant=math.log(2),
    )  # fmt: skip


def _likelihood(
    formula: Formula,
    prediction: Tensor,
    target: Numbers,
    weight: Numbers | None,
    reduction: Reduction,
    term: str,
    *,
    constant: float,
    beta: float | None = None,
    **width: Tensor,
) -> Tensor:
    check_reduction(reduction)
    target, weight = against(prediction, target, weight)
    x = spread(prediction, **width)
    options = {"constant": constant} | ({} if beta is None else {"beta": beta})
    return reduced(formula, x, target, weight=weight, reduction=reduction, term=term, **options)


class GaussianNLLLoss(SpreadLoss):
    """Module form of :func:`gaussian_nll_loss`; same options, same defaults."""

    _function = staticmethod(gaussian_nll_loss)

    def __init__(
        self, beta: float = 0.0, full: bool = False, reduction: Reduction = "mean"
    ) -> None:
        check_number("beta", beta)
        check_flags(full=full)
        super().__init__(beta=beta, full=full, reduction=reduction)


class LaplaceNLLLoss(LossModule):
    """Module form of :func:`laplace_nll_loss`; same options, same defaults."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        check_reduction(reduction)
        super().__init__(reduction=reduction)

    def forward(
        self,
        prediction: Tensor,
        target: Numbers,
        log_scale: Tensor,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of medians and log scales against ``target``."""
        return laplace_nll_loss(prediction, target, log_scale, weight=weight, **self.options())
