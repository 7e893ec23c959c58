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
from aptt.loss.dfl import DistributionFocalLoss, distribution_focal_loss, expected_value
from aptt.loss.focal import FocalLoss, focal_loss
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
from aptt.loss.varifocal import (
    QualityFocalLoss,
    VariFocalLoss,
    quality_focal_loss,
    varifocal_loss,
)

__all__ = [
    "BinaryCrossEntropyLoss",
    "BoxIoULoss",
    "CIoULoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "EIoULoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "IoULoss",
    "QualityFocalLoss",
    "RMSELoss",
    "RMSLELoss",
    "SIoULoss",
    "TverskyLoss",
    "VariFocalLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "ciou_loss",
    "cross_entropy",
    "dice_loss",
    "diou_loss",
    "distribution_focal_loss",
    "eiou_loss",
    "expected_value",
    "focal_loss",
    "focal_tversky_loss",
    "giou_loss",
    "mask_iou_loss",
    "quality_focal_loss",
    "rmse_loss",
    "rmsle_loss",
    "siou_loss",
    "tversky_loss",
    "varifocal_loss",
]
