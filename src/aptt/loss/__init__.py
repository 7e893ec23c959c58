"""Training losses for PyTorch: functions, and modules that hold their options."""

from aptt.loss.bbox import GIoULoss, giou_loss
from aptt.loss.classification import CrossEntropyLoss, cross_entropy
from aptt.loss.focal import FocalLoss, focal_loss
from aptt.loss.rmse import RMSELoss, RMSLELoss, rmse_loss, rmsle_loss
from aptt.loss.segmentation import DiceLoss, dice_loss

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "GIoULoss",
    "RMSELoss",
    "RMSLELoss",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "giou_loss",
    "rmse_loss",
    "rmsle_loss",
]
