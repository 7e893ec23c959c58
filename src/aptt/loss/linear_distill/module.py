"""The module form."""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_chunk, check_flags, check_index, check_number
from aptt.core.distillation import Divergence, checked_form
from aptt.core.linear import Projection
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.linear_distill.distillation import (
    linear_distillation_loss,
    linear_distillation_terms,
)
from aptt.loss.linear_distill.formulas import checked_bend

__all__ = ["LinearDistillationLoss"]


class LinearDistillationLoss(LossModule):
    """Module form of :func:`linear_distillation_loss`; same options, same defaults."""

    terms_function = staticmethod(linear_distillation_terms)

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.5,
        soft_weight: float | None = None,
        hard_weight: float | None = None,
        divergence: Divergence = "forward_kl",
        beta: float = 0.5,
        standardize: bool = False,
        detach_teacher: bool = True,
        class_weight: Numbers | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        softcap: float | None = None,
        teacher_softcap: float | None = None,
        scale: float = 1.0,
        teacher_scale: float = 1.0,
        chunk: int | None = None,
        drop_ignored: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
        check_flags(
            detach_teacher=detach_teacher, drop_ignored=drop_ignored, standardize=standardize
        )
        check_number("label_smoothing", label_smoothing, 0.0, 1.0)
        checked_bend(softcap, teacher_softcap, scale, teacher_scale)
        check_chunk(chunk)
        check_index(ignore_index=ignore_index)
        super().__init__(
            temperature=temperature,
            alpha=alpha,
            soft_weight=soft_weight,
            hard_weight=hard_weight,
            divergence=divergence,
            beta=beta,
            standardize=standardize,
            detach_teacher=detach_teacher,
            class_weight=per_class(class_weight, "class_weight"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            softcap=softcap,
            teacher_softcap=teacher_softcap,
            scale=scale,
            teacher_scale=teacher_scale,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor | Projection,
        teacher_hidden: Tensor | None,
        teacher_weight: Tensor | Projection | None,
        *,
        hard_targets: Numbers | None = None,
        bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
        teacher_logits: Numbers | None = None,
        teacher_indices: Numbers | None = None,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of the student's head against the teacher's and the targets."""
        return linear_distillation_loss(
            hidden,
            weight,
            teacher_hidden,
            teacher_weight,
            hard_targets=hard_targets,
            bias=bias,
            teacher_bias=teacher_bias,
            teacher_logits=teacher_logits,
            teacher_indices=teacher_indices,
            sample_weight=sample_weight,
            **self.options(),
        )
