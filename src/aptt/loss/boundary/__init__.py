"""Losses that ask how far from the boundary a mistake is.

    boundary     mean of |phi| |p - t|         phi: the distance to the boundary of the target
    Hausdorff    mean of (p - t)**2 d**2       d: the same, or with the prediction's beside it

over pixels and classes. Region losses count mistakes; these weigh each by its distance, and so care
where the outline of a mask is. Both are totals: micro-batches and ranks add up exactly.

Axes: logits ``(N, C, *S)``; target ``(N, *S)`` class indices, or like the logits; maps ``(N, C,
*S)``.
From: boundary loss, Kervadec et al. 2019, arXiv:1812.07032, section 2; Hausdorff distance loss,
Karimi and Salcudean 2019, arXiv:1904.10030, section II.
"""

from aptt.loss.boundary.hausdorff import HausdorffLoss, hausdorff_loss
from aptt.loss.boundary.kervadec import BoundaryLoss, boundary_loss
from aptt.loss.boundary.signed import signed_distance

__all__ = [
    "BoundaryLoss",
    "HausdorffLoss",
    "boundary_loss",
    "hausdorff_loss",
    "signed_distance",
]
