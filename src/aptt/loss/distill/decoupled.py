"""Decoupled knowledge distillation: how sure the teacher is, and what it says beside that.

    b     = (p[y], 1 - p[y])                 p^ = softmax(z / T) without class y
    loss  = target_weight * T**2 * KL(b_t || b_s) + others_weight * T**2 * KL(p^_t || p^_s)

In the divergence of :func:`distillation_loss` the second part is weighed by ``1 - p_t[y]``, and so
fades where the teacher is sure, though it is there that the other classes tell most. The published
names are TCKD, weighed by alpha, and NCKD, weighed by beta.

Axes: logits ``(N, C, ...)`` or ``(..., C)``, teacher alike; target the same without C.
From: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_flags,
    check_floating,
    check_index,
    check_number,
    check_positive,
)
from aptt.core.decoupled import DECOUPLED, Parts
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, named, reduce
from aptt.core.shapes import check_sample_weight
from aptt.loss.distill.rows import student_rows, teacher_rows

__all__ = [
    "DecoupledDistillationLoss",
    "decoupled_distillation_loss",
    "decoupled_distillation_terms",
]


def decoupled_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Numbers,
    target: Numbers,
    *,
    sample_weight: Numbers | None = None,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    others_weight: float = 8.0,
    detach_teacher: bool = True,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """DKD: the right class against the rest, and the rest among themselves, each by its weight.

        loss = T**2 * (target_weight * KL(b_t || b_s) + others_weight * KL(p^_t || p^_s))

    Args:
        student_logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        teacher_logits: the same shape.
        target: class indices, shaped like the logits without the class axis.
        sample_weight: shaped like the target; multiplies and is counted, and 0 removes.
        temperature: T, above 0; softens both sides.
        target_weight: what the divergence of ``(p[y], 1 - p[y])`` weighs; alpha in the paper.
        others_weight: what that of the other classes weighs; beta in the paper.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        ignore_index: the target that removes its position; None: none does.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the positions that count, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value per position. float32 for half
        types. It has no hard term: add :func:`cross_entropy`, with a weight of 1 in the paper.

    Raises:
        ValueError: shapes that differ, a single class, options out of range, a class out of range
            (on CPU).
        TypeError: a target that is not class indices.

    The gradient goes to ``student_logits``, and to a teacher that is not detached. With two
    classes, the second part is exactly 0. Masked classes and digits are as in
    :func:`distillation_loss`.

    Use when:
        The teacher is sure of nearly everything, and plain distillation adds little to the labels.
        ``others_weight`` is worth tuning: the paper takes 1 to 10. It raises the weight of both
        from 0 over the first 20 epochs: :class:`aptt.compose.Ramp`.

    Elsewhere:
        mdistiller ``DKD(ALPHA, BETA, T)``, mmrazor ``DKDLoss``, torchdistill ``DKDLoss``.

    Differs from:
        mdistiller: takes the logarithm of a softmax, infinite where a class underflows (a student
            logit of 900 in float32, of 80 in float16), with a gradient of NaN even with a weight
            of 0. It masks the right class by 1000, which leaves of it what a logit of 1000 is.

    Example:
        >>> import torch
        >>> teacher, student = (torch.tensor([p]).log() for p in ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]))
        >>> loss = decoupled_distillation_loss(student, teacher, [0], temperature=1.0)
        >>> round(loss.item(), 5)  # 0.020411 + 8 * 0.009712
        0.09811
    """
    _check_options(temperature, target_weight, others_weight, reduction)
    check_flags(detach_teacher=detach_teacher)
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    check_floating(student_logits=student_logits)
    rows = student_rows(student_logits, target, ignore_index, class_dim, name="target")
    x, y, keep, axis, shape = rows
    weight = keep
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, student_logits=student_logits)
        weight = sample_weight.reshape(len(x), *x.shape[2:])
        weight = weight if keep is None else torch.where(keep, weight, 0.0)
    teacher = as_tensor("teacher_logits", teacher_logits, student_logits)
    teacher = teacher.detach() if detach_teacher else teacher
    t, _ = teacher_rows(student_logits, teacher, None, axis, x, None)
    factor = temperature**2
    loss = reduce(
        DECOUPLED,
        x,
        t,
        y,
        weight=weight,
        weight_name="sample_weight",
        count=lambda: count_of(x[:, 0], weight),
        reduction=reduction,
        term="decoupled_distillation",
        parts=Parts(temperature, target_weight * factor, others_weight * factor),
    )
    return loss.reshape(shape) if reduction == "none" else loss


def decoupled_distillation_terms(
    student_logits: Tensor,
    teacher_logits: Numbers,
    target: Numbers,
    *,
    sample_weight: Numbers | None = None,
    temperature: float = 4.0,
    detach_teacher: bool = True,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`decoupled_distillation_loss` by name, without their weights.

        target = T**2 * KL(b_t || b_s)        others = T**2 * KL(p^_t || p^_s)

    Args are those of :func:`decoupled_distillation_loss`; a normalizer is told ``"target"`` and
    ``"others"``.

    Returns:
        ``{"target": ..., "others": ...}``.

    Use when:
        Each term is to be logged, or weighted by something that changes.

    Example:
        >>> import torch
        >>> teacher, student = (torch.tensor([p]).log() for p in ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]))
        >>> terms = decoupled_distillation_terms(student, teacher, [0], temperature=1.0)
        >>> {name: round(term.item(), 5) for name, term in terms.items()}
        {'target': 0.02041, 'others': 0.00971}
    """

    def term(name: str) -> Tensor:
        return decoupled_distillation_loss(
            student_logits,
            teacher_logits,
            target,
            sample_weight=sample_weight,
            temperature=temperature,
            target_weight=float(name == "target"),
            others_weight=float(name == "others"),
            detach_teacher=detach_teacher,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=named(reduction, name),
        )

    return {name: term(name) for name in ("target", "others")}


def _check_options(
    temperature: float, target_weight: float, others_weight: float, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_positive("temperature", temperature)
    check_number("target_weight", target_weight)
    check_number("others_weight", others_weight)


class DecoupledDistillationLoss(LossModule):
    """Module form of :func:`decoupled_distillation_loss`; same options, same defaults."""

    terms_function = staticmethod(decoupled_distillation_terms)

    def __init__(
        self,
        temperature: float = 4.0,
        target_weight: float = 1.0,
        others_weight: float = 8.0,
        detach_teacher: bool = True,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(temperature, target_weight, others_weight, reduction)
        check_flags(detach_teacher=detach_teacher)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            temperature=temperature,
            target_weight=target_weight,
            others_weight=others_weight,
            detach_teacher=detach_teacher,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Numbers,
        target: Numbers,
        *,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``student_logits`` against the teacher's, around the right classes."""
        return decoupled_distillation_loss(
            student_logits, teacher_logits, target, sample_weight=sample_weight, **self.options()
        )
