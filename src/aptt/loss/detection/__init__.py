"""Detection: which prediction answers for which object, and how well it does."""

from __future__ import annotations

from aptt.loss.detection.loss import DetectionLoss, detection_loss
from aptt.loss.detection.task_aligned import TaskAlignedAssigner
from aptt.loss.detection.terms import detection_terms
from aptt.loss.matching import Assignment

__all__ = [
    "Assignment",
    "DetectionLoss",
    "TaskAlignedAssigner",
    "detection_loss",
    "detection_terms",
]
