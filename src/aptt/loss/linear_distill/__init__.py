"""Distillation from the hidden states and heads of student and teacher, without any logits.

    linear_distillation_loss     the loss, in one walk over both heads
    linear_distillation_terms    its soft and its hard term, from one walk

Axes: hidden ``(..., D)``; weight ``(V, D)``; the teacher's alike, with a D of its own.
"""

from __future__ import annotations

from aptt.loss.linear_distill.distillation import (
    linear_distillation_loss,
    linear_distillation_terms,
)
from aptt.loss.linear_distill.module import LinearDistillationLoss

__all__ = ["LinearDistillationLoss", "linear_distillation_loss", "linear_distillation_terms"]
