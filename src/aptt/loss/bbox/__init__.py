"""Box regression losses: how far a predicted box is from its target.

    IoU, GIoU, DIoU, CIoU, EIoU, SIoU   of boxes along the axes; each, to a power, alpha-IoU
    ProbIoU                             of rotated boxes

Axes: predictions and targets ``(..., 4)``, rotated ``(..., 5)``, aligned row by row.
"""

from __future__ import annotations

from aptt.loss.bbox.ciou import CIoULoss, ciou_loss
from aptt.loss.bbox.diou import DIoULoss, diou_loss
from aptt.loss.bbox.eiou import EIoULoss, eiou_loss
from aptt.loss.bbox.giou import GIoULoss, giou_loss
from aptt.loss.bbox.iou import BoxIoULoss, box_iou_loss
from aptt.loss.bbox.probiou import ProbIoULoss, probiou_loss
from aptt.loss.bbox.siou import SIoULoss, siou_loss

__all__ = [
    "BoxIoULoss",
    "CIoULoss",
    "DIoULoss",
    "EIoULoss",
    "GIoULoss",
    "ProbIoULoss",
    "SIoULoss",
    "box_iou_loss",
    "ciou_loss",
    "diou_loss",
    "eiou_loss",
    "giou_loss",
    "probiou_loss",
    "siou_loss",
]
