"""The logits that a cross-entropy counts: capped, and adjusted for each class."""

from __future__ import annotations

from torch import Tensor

from aptt.core.softmax import on_class_axis
from aptt.core.vocabulary import Form, cap

__all__ = ["counted_logits"]


def counted_logits(
    x: Tensor, adjustment: Tensor | None, form: Form
) -> tuple[Tensor, Tensor | None]:
    """They, and what was taken off each row: its largest, beside which an adjustment is lost."""
    z = cap(x, form)
    if adjustment is None:
        return z, None
    shift = z.detach().amax(1, keepdim=True)
    return (z - shift) + on_class_axis(adjustment, z), shift
