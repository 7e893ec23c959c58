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
from aptt.loss.centernet import (
    CenterNetLoss,
    centernet_decode,
    centernet_loss,
    centernet_targets,
    centernet_terms,
)
from aptt.loss.classification import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
)
from aptt.loss.detection import (
    DetectionLoss,
    TaskAlignedAssigner,
    detection_loss,
    detection_terms,
)
from aptt.loss.focal import FocalLoss, focal_loss
from aptt.loss.heat import HeatmapLoss, decode_heatmaps, heatmap_loss, render_heatmaps
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
    "CenterNetLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DetectionLoss",
    "DiceLoss",
    "EIoULoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "HeatmapLoss",
    "IoULoss",
    "RMSELoss",
    "RMSLELoss",
    "SIoULoss",
    "TaskAlignedAssigner",
    "TverskyLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "centernet_decode",
    "centernet_loss",
    "centernet_targets",
    "centernet_terms",
    "ciou_loss",
    "cross_entropy",
    "decode_heatmaps",
    "detection_loss",
    "detection_terms",
    "dice_loss",
    "diou_loss",
    "eiou_loss",
    "focal_loss",
    "focal_tversky_loss",
    "giou_loss",
    "heatmap_loss",
    "mask_iou_loss",
    "render_heatmaps",
    "rmse_loss",
    "rmsle_loss",
    "siou_loss",
    "tversky_loss",
]
