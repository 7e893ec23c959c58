"""Training losses for PyTorch: functions, and modules that hold their options."""

from aptt.loss.bbox import (
    BoxIoULoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    ProbIoULoss,
    SIoULoss,
    box_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    probiou_loss,
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
from aptt.loss.dfl import (
    DistributionFocalLoss,
    distribution_focal_loss,
    expected_value,
)
from aptt.loss.distill import (
    DistillationLoss,
    distillation_loss,
    distillation_terms,
)
from aptt.loss.focal import (
    FocalLoss,
    focal_loss,
)
from aptt.loss.heat import (
    HeatmapLoss,
    decode_heatmaps,
    heatmap_loss,
    render_heatmaps,
)
from aptt.loss.keypoint import (
    AdaptiveWingLoss,
    KeypointLoss,
    WingLoss,
    adaptive_wing_loss,
    keypoint_loss,
    wing_loss,
)
from aptt.loss.linear import (
    LinearCrossEntropyLoss,
    TokenStats,
    linear_cross_entropy,
    linear_token_stats,
)
from aptt.loss.linear_distill import (
    LinearDistillationLoss,
    linear_distillation,
)
from aptt.loss.lwf import (
    LwFLoss,
    lwf_loss,
    lwf_terms,
)
from aptt.loss.mtp_loss import (
    LinearMTPLoss,
    MTPLoss,
    linear_multi_token_loss,
    multi_token_loss,
    multi_token_terms,
)
from aptt.loss.rmse import (
    RMSELoss,
    RMSLELoss,
    rmse_loss,
    rmsle_loss,
)
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
    "AdaptiveWingLoss",
    "BinaryCrossEntropyLoss",
    "BoxIoULoss",
    "CIoULoss",
    "CenterNetLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DiceLoss",
    "DistillationLoss",
    "DistributionFocalLoss",
    "EIoULoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GIoULoss",
    "HeatmapLoss",
    "IoULoss",
    "KeypointLoss",
    "LinearCrossEntropyLoss",
    "LinearDistillationLoss",
    "LinearMTPLoss",
    "LwFLoss",
    "MTPLoss",
    "ProbIoULoss",
    "QualityFocalLoss",
    "RMSELoss",
    "RMSLELoss",
    "SIoULoss",
    "TokenStats",
    "TverskyLoss",
    "VariFocalLoss",
    "WingLoss",
    "adaptive_wing_loss",
    "binary_cross_entropy",
    "box_iou_loss",
    "centernet_decode",
    "centernet_loss",
    "centernet_targets",
    "centernet_terms",
    "ciou_loss",
    "cross_entropy",
    "decode_heatmaps",
    "dice_loss",
    "diou_loss",
    "distillation_loss",
    "distillation_terms",
    "distribution_focal_loss",
    "eiou_loss",
    "expected_value",
    "focal_loss",
    "focal_tversky_loss",
    "giou_loss",
    "heatmap_loss",
    "keypoint_loss",
    "linear_cross_entropy",
    "linear_distillation",
    "linear_multi_token_loss",
    "linear_token_stats",
    "lwf_loss",
    "lwf_terms",
    "mask_iou_loss",
    "multi_token_loss",
    "multi_token_terms",
    "probiou_loss",
    "quality_focal_loss",
    "render_heatmaps",
    "rmse_loss",
    "rmsle_loss",
    "siou_loss",
    "tversky_loss",
    "varifocal_loss",
    "wing_loss",
]
