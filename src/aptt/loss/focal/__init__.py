"""Focal loss: cross-entropy that fades on examples the model already gets right.

    focal_loss     of independent questions by a sigmoid, or of classes by a softmax

Axes: sigmoid, logits and target ``*N``; softmax, logits ``(N, C, ...)`` or ``(..., C)``, target
the same without C, or of the same shape.
"""

from __future__ import annotations

from aptt.loss.focal.focal import FocalLoss, focal_loss

__all__ = ["FocalLoss", "focal_loss"]
