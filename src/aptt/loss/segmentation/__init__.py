"""Region losses for segmentation: overlap of whole areas, and its compounds.

    I = sum min(p, t)    FP = sum p - I    FN = sum t - I       over the pixels that are pooled

    Tversky      1 - (I + s) / (I + alpha FP + beta FN + s)
    Dice         alpha = beta = 1/2:    1 - 2 I / (sum p + sum t)
    IoU          alpha = beta = 1:      1 - I / (sum p + sum t - I)     (Jaccard)
    focal        (Tversky loss)**gamma, of each class
    generalised  1 - 2 sum_c v I / sum_c v (sum p + sum t)     v = 1 / (sum t)**2, of each class
    Lovasz       IoU loss of hard masks, made convex in the errors

averaged over the classes that are present (``absent`` says what becomes of the others).

Axes: logits ``(N, C, ...)``; target ``(N, ...)`` class indices, or like the logits.
From: Dice, Drozdzal et al. 2016, arXiv:1608.04117, and squared, Milletari et al. 2016 (V-Net),
arXiv:1606.04797, section 3; Tversky, Salehi et al. 2017,
arXiv:1706.05721, eq. 3; focal, Abraham and Khan 2018, arXiv:1810.07842, eq. 4; generalised, Sudre
et al. 2017, arXiv:1707.03237, section 2.1; Lovasz, Berman et al. 2018, arXiv:1705.08790, eq. 8, 9.
"""

from aptt.loss.segmentation.dice import DiceLoss, dice_loss
from aptt.loss.segmentation.dice_ce import DiceCELoss, dice_ce_loss, dice_ce_terms
from aptt.loss.segmentation.dice_focal import DiceFocalLoss, dice_focal_loss, dice_focal_terms
from aptt.loss.segmentation.focal_tversky import FocalTverskyLoss, focal_tversky_loss
from aptt.loss.segmentation.generalized import GeneralizedDiceLoss, generalized_dice_loss
from aptt.loss.segmentation.iou import IoULoss, mask_iou_loss
from aptt.loss.segmentation.lovasz import LovaszLoss, lovasz_loss
from aptt.loss.segmentation.mcc import MCCLoss, mcc_loss
from aptt.loss.segmentation.partial import merge_unlabelled
from aptt.loss.segmentation.tversky import TverskyLoss, tversky_loss
from aptt.loss.segmentation.wasserstein import WassersteinDiceLoss, wasserstein_dice_loss

__all__ = [
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "LovaszLoss",
    "MCCLoss",
    "TverskyLoss",
    "WassersteinDiceLoss",
    "dice_ce_loss",
    "dice_ce_terms",
    "dice_focal_loss",
    "dice_focal_terms",
    "dice_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "lovasz_loss",
    "mask_iou_loss",
    "mcc_loss",
    "merge_unlabelled",
    "tversky_loss",
    "wasserstein_dice_loss",
]
