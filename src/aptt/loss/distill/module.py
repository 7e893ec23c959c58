"""The module form."""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_index, check_number
from aptt.core.distillation import Divergence, checked_form
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.distill.distillation import distillation_loss, distillation_terms

__all__ = ["DistillationLoss"]


class DistillationLoss(LossModule):
    """Module form of :func:`distillation_loss`; same options, same defaults."""

    terms_function = staticmethod(distillation_terms)

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
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
        check_flags(detach_teacher=detach_teacher, standardize=standardize)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        check_number("label_smoothing", label_smoothing, 0.0, 1.0)
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
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Numbers,
        *,
        hard_targets: Numbers | None = None,
        teacher_indices: Numbers | None = None,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``student_logits`` against teacher and targets."""
        return distillation_loss(
            student_logits,
            teacher_logits,
            hard_targets=hard_targets,
            teacher_indices=teacher_indices,
            sample_weight=sample_weight,
            **self.options(),
        )
