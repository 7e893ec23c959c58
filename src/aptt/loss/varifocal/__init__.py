"""Varifocal and quality focal loss: class scores that also say how good the box is.

    varifocal       q nll                     where positive
                    alpha p**gamma nll        elsewhere, with q = 0
    quality focal   |q - p|**beta nll

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality.
From: varifocal, Zhang et al. 2021, arXiv:2008.13367; quality focal, Li et al. 2020,
arXiv:2006.04388.
"""

from aptt.loss.varifocal.quality_focal import QualityFocalLoss, quality_focal_loss
from aptt.loss.varifocal.varifocal import VariFocalLoss, varifocal_loss

__all__ = ["QualityFocalLoss", "VariFocalLoss", "quality_focal_loss", "varifocal_loss"]
