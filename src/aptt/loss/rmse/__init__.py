"""Root mean squared error, also of logarithms.

    RMSE   = sqrt(sum w (x - t)**2 / sum w)
    RMSLE  = sqrt(sum w (log(1 + x) - log(1 + t))**2 / sum w)

Axes: prediction x and target t of any equal shape, the first axis the samples.
From: RMSLE as in the Kaggle competitions that spread it; it is RMSE after ``log1p``.
"""

from aptt.loss.rmse.rmse import RMSELoss, rmse_loss
from aptt.loss.rmse.rmsle import RMSLELoss, rmsle_loss
from aptt.loss.rmse.root import Pool

__all__ = ["Pool", "RMSELoss", "RMSLELoss", "rmse_loss", "rmsle_loss"]
