"""Losses of numbers: errors, quantiles, and distributions that a prediction stands for.

    L1, MSE, Huber, smooth L1, Charbonnier, log-cosh     of an error d = x - t
    quantile                                             of one output for each quantile
    Gaussian and Laplace likelihood, Gaussian CRPS       of a prediction and its width
    ensemble CRPS                                        of several members

Axes: predictions and targets of any equal shape; quantiles and members on one more, the last.
"""

from __future__ import annotations

from aptt.loss.regression.absolute import L1Loss, MSELoss, l1_loss, mse_loss
from aptt.loss.regression.crps import (
    EnsembleCRPSLoss,
    GaussianCRPSLoss,
    ensemble_crps_loss,
    gaussian_crps_loss,
)
from aptt.loss.regression.huber import HuberLoss, SmoothL1Loss, huber_loss, smooth_l1_loss
from aptt.loss.regression.likelihood import (
    GaussianNLLLoss,
    LaplaceNLLLoss,
    gaussian_nll_loss,
    laplace_nll_loss,
)
from aptt.loss.regression.quantile import QuantileLoss, quantile_loss
from aptt.loss.regression.smooth import (
    CharbonnierLoss,
    LogCoshLoss,
    charbonnier_loss,
    log_cosh_loss,
)

__all__ = [
    "CharbonnierLoss",
    "EnsembleCRPSLoss",
    "GaussianCRPSLoss",
    "GaussianNLLLoss",
    "HuberLoss",
    "L1Loss",
    "LaplaceNLLLoss",
    "LogCoshLoss",
    "MSELoss",
    "QuantileLoss",
    "SmoothL1Loss",
    "charbonnier_loss",
    "ensemble_crps_loss",
    "gaussian_crps_loss",
    "gaussian_nll_loss",
    "huber_loss",
    "l1_loss",
    "laplace_nll_loss",
    "log_cosh_loss",
    "mse_loss",
    "quantile_loss",
    "smooth_l1_loss",
]
