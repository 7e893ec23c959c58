"""Box regression losses: how far a predicted box is from its target.

    IoU, GIoU, DIoU, CIoU, EIoU, SIoU   of boxes along the axes; each, to a power, alpha-IoU
    IoU, GIoU                           of rotated boxes, exactly
    ProbIoU, KLD                        of rotated boxes, as Gaussians
    NWD                                 of boxes along the axes, as Gaussians: tiny ones
    L1                                  of the numbers, smooth near the target if so wanted

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; rotated ``(..., 5)``, and
cuboids 7; aligned row by row.
"""

from __future__ import annotations

from aptt.loss.bbox.ciou import CIoULoss, ciou_loss
from aptt.loss.bbox.diou import DIoULoss, diou_loss
from aptt.loss.bbox.eiou import EIoULoss, eiou_loss
from aptt.loss.bbox.giou import GIoULoss, giou_loss
from aptt.loss.bbox.iou import BoxIoULoss, box_iou_loss
from aptt.loss.bbox.kld import KLDLoss, kld_loss
from aptt.loss.bbox.l1 import BoxL1Loss, box_l1_loss
from aptt.loss.bbox.nwd import NWDLoss, nwd_loss
from aptt.loss.bbox.probiou import ProbIoULoss, probiou_loss
from aptt.loss.bbox.rotated import (
    RotatedGIoULoss,
    RotatedIoULoss,
    rotated_giou_loss,
    rotated_iou_loss,
)
from aptt.loss.bbox.siou import SIoULoss, siou_loss

__all__ = [
    "BoxIoULoss",
    "BoxL1Loss",
    "CIoULoss",
    "DIoULoss",
    "EIoULoss",
    "GIoULoss",
    "KLDLoss",
    "NWDLoss",
    "ProbIoULoss",
    "RotatedGIoULoss",
    "RotatedIoULoss",
    "SIoULoss",
    "box_iou_loss",
    "box_l1_loss",
    "ciou_loss",
    "diou_loss",
    "eiou_loss",
    "giou_loss",
    "kld_loss",
    "nwd_loss",
    "probiou_loss",
    "rotated_giou_loss",
    "rotated_iou_loss",
    "siou_loss",
]
