"""Knowledge distillation: a student learns from what a teacher says of the same inputs.

    distillation_loss               the teacher's soft answers, and the hard targets
    decoupled_distillation_loss     the right class, and the others among themselves, by weights
    uld_loss                        answers over another vocabulary
    feature_distillation_loss       the directions of features, or where they are active
    relational_distillation_loss    how samples lie to each other

Axes: logits ``(N, C, ...)`` or ``(..., C)``, teacher alike; features ``(N, D)`` or ``(N, C, ...)``.
"""

from __future__ import annotations

from aptt.loss.distill.decoupled import (
    DecoupledDistillationLoss,
    decoupled_distillation_loss,
    decoupled_distillation_terms,
)
from aptt.loss.distill.distillation import distillation_loss, distillation_terms
from aptt.loss.distill.features import FeatureDistillationLoss, feature_distillation_loss
from aptt.loss.distill.module import DistillationLoss
from aptt.loss.distill.relations import (
    RelationalDistillationLoss,
    relational_distillation_loss,
    relational_distillation_terms,
)
from aptt.loss.distill.uld import ULDLoss, uld_loss

__all__ = [
    "DecoupledDistillationLoss",
    "DistillationLoss",
    "FeatureDistillationLoss",
    "RelationalDistillationLoss",
    "ULDLoss",
    "decoupled_distillation_loss",
    "decoupled_distillation_terms",
    "distillation_loss",
    "distillation_terms",
    "feature_distillation_loss",
    "relational_distillation_loss",
    "relational_distillation_terms",
    "uld_loss",
]
