"""Detection: which prediction answers for which object, and how well it does."""

from __future__ import annotations

from aptt.loss.detection.atss import ATSSAssigner
from aptt.loss.detection.loss import DetectionLoss, detection_loss
from aptt.loss.detection.max_iou import MaxIoUAssigner
from aptt.loss.detection.sim_ota import SimOTAAssigner
from aptt.loss.detection.task_aligned import TaskAlignedAssigner
from aptt.loss.detection.terms import detection_terms
from aptt.loss.matching import Assignment

__all__ = [
    "ATSSAssigner",
    "Assignment",
    "DetectionLoss",
    "MaxIoUAssigner",
    "SimOTAAssigner",
    "TaskAlignedAssigner",
    "detection_loss",
    "detection_terms",
]
