"""Knowledge distillation: a student learns from what a teacher says of the same inputs.

    distillation_loss    the teacher's soft answers, and the hard targets

Axes: logits ``(N, C, ...)`` or ``(..., C)``, teacher alike; targets the same without C.
"""

from __future__ import annotations

from aptt.loss.distill.distillation import distillation_loss, distillation_terms
from aptt.loss.distill.module import DistillationLoss

__all__ = ["DistillationLoss", "distillation_loss", "distillation_terms"]
