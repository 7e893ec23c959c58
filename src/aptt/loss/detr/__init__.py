"""Set loss of a detector: each object is one query's, and every other query says "nothing"."""

from __future__ import annotations

from aptt.loss.detr.loss import DETRLoss, detr_loss
from aptt.loss.detr.masks import mask_match_cost, point_mask_terms
from aptt.loss.detr.terms import detr_terms

__all__ = ["DETRLoss", "detr_loss", "detr_terms", "mask_match_cost", "point_mask_terms"]
