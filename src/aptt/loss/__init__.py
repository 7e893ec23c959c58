"""Training losses for PyTorch: functions, and modules that hold their options."""

from aptt.loss.bbox import (
    BoxIoULoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    SIoULoss,
    box_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    siou_loss,
)
from aptt.loss.classification import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
)
from aptt.loss.focal import FocalLoss, focal_loss
from aptt.loss.linear import (
    LinearCrossEntropyLoss,
    TokenStats,
    linear_cross_entropy,
    linear_token_stats,
)
from aptt.loss.rmse import RMSELoss, RMSLELoss, rmse_loss, rmsle_loss
from aptt.loss.segmentation import (
    DiceLoss,
    FocalTverskyLoss,
    IoULoss,
    TverskyLoss,
    dice_loss,
    focal_tversky_loss,
    mask_iou_loss,
    tversky_loss,
)

__all__ = [
    "BinaryCrossEntropyLoss",
    "BoxIoULoss",
    "CIoULoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "EIoULoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "IoULoss",
    "LinearCrossEntropyLoss",
    "RMSELoss",
    "RMSLELoss",
    "SIoULoss",
    "TokenStats",
    "TverskyLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "ciou_loss",
    "cross_entropy",
    "dice_loss",
    "diou_loss",
    "eiou_loss",
    "focal_loss",
    "focal_tversky_loss",
    "giou_loss",
    "linear_cross_entropy",
    "linear_token_stats",
    "mask_iou_loss",
    "rmse_loss",
    "rmsle_loss",
    "siou_loss",
    "tversky_loss",
]
