"""Contrastive losses: what belongs together lies together, and apart from the rest.

    contrastive_loss    pairs, by a softmax over all candidates: InfoNCE, CLIP, NT-Xent
    siglip_loss         pairs, each asked for by itself
    supcon_loss         classes, by a softmax
    margin_loss         classes that have a direction each, with a margin: CosFace, ArcFace, LDAM
    triplet_loss        classes, by distances and a margin

Axes: embeddings ``(N, D)``. The matrix of all pairs never exists at once.
"""

from __future__ import annotations

from aptt.loss.contrastive.info_nce import ContrastiveLoss, contrastive_loss
from aptt.loss.contrastive.margin import MarginLoss, ldam_margins, margin_loss
from aptt.loss.contrastive.siglip import SigLIPLoss, siglip_loss
from aptt.loss.contrastive.supcon import SupConLoss, supcon_loss
from aptt.loss.contrastive.triplet import TripletLoss, triplet_loss

__all__ = [
    "ContrastiveLoss",
    "MarginLoss",
    "SigLIPLoss",
    "SupConLoss",
    "TripletLoss",
    "contrastive_loss",
    "ldam_margins",
    "margin_loss",
    "siglip_loss",
    "supcon_loss",
    "triplet_loss",
]
