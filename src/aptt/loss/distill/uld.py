"""Universal logit distillation: student and teacher have vocabularies of their own.

    p, q  = softmax(teacher / T), softmax(student / T), each sorted, the narrower padded with 0
    loss  = sum over ranks i of |q[i] - p[i]|

What is compared is how the mass is shared out, not to which classes: the distance of optimal
transport where moving mass costs 1 between any two classes.

Axes: student ``(N, C, ...)`` or ``(..., C)``, teacher alike with a K of its own in place of C.
From: Boizard et al. 2024, arXiv:2402.12030, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from aptt.core.axes import class_axis, split_axis, without_axis
from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_flags,
    check_floating,
    check_index,
    check_positive,
    check_tensors,
)
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.shapes import check_sample_weight

__all__ = ["ULDLoss", "uld_loss"]


def uld_loss(
    student_logits: Tensor,
    teacher_logits: Numbers,
    *,
    sample_weight: Numbers | None = None,
    temperature: float = 1.0,
    detach_teacher: bool = True,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """ULD: how far apart the sorted probabilities are, whatever classes they are of.

        loss = sum over i of |sort(softmax(student / T))[i] - sort(softmax(teacher / T))[i]|

    Args:
        student_logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        teacher_logits: of the same positions, with any number of classes in place of C. Which of
            its positions belongs to which of the student's is the caller's to say: both have one
            row for each pair.
        sample_weight: shaped like the positions; multiplies and is counted, and 0 removes, such as
            a prompt, padding, or a token that the other tokenizer cuts in two.
        temperature: T, above 0; softens both sides. There is no T**2.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        class_dim: the axis of the classes, where the shapes leave it open.
        reduction: ``"mean"`` over the positions that count, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, from 0 to 2: a scalar, or with ``"none"`` one value per position. float32 for
        half types.

    Raises:
        ValueError: positions that differ, options out of range.

    The gradient goes to ``student_logits``, and to a teacher that is not detached: by the sign of
    each difference, so it does not fade near the teacher, but for ranks that agree. Equal
    probabilities are told apart by the order in which they stand. A value is rounded beside 1.

    Use when:
        Teacher and student have different tokenizers. Where they share one, the classes
        themselves say more: :func:`distillation_loss`. The paper adds it to cross-entropy with a
        weight of 1.5. A row is sorted whole: of large vocabularies that is most of the time.

    Elsewhere:
        The authors' llm-recipes, TRL ``GOLDTrainer``.

    Differs from:
        The authors: rows are what the caller pairs; they cut both answers to the shorter one.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.4, 0.6]])
        >>> round(uld_loss(student.log(), teacher.log()).item(), 4)  # 0.1 + 0.1 + 0.2
        0.4
    """
    _check_options(temperature, reduction)
    check_flags(detach_teacher=detach_teacher)
    check_index(class_dim=class_dim)
    check_floating(student_logits=student_logits)
    teacher = as_tensor("teacher_logits", teacher_logits, student_logits)
    check_tensors(student_logits=student_logits, teacher_logits=teacher)
    check_floating(teacher_logits=teacher)
    axis = class_axis(student_logits, class_dim)
    shape = without_axis(student_logits, axis)
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher)):
        same = logits.ndim == student_logits.ndim and without_axis(logits, axis) == shape
        if not same or logits.shape[axis] == 0:
            raise ValueError(
                f"{name}: got {tuple(logits.shape)}, wanted as student_logits, "
                f"{tuple(student_logits.shape)}, but for at least one class on axis {axis}"
            )
    rows = axis == student_logits.ndim - 1
    x, t = (split_axis(logits, axis, rows=rows) for logits in (student_logits, teacher))
    t = t.detach() if detach_teacher else t
    weight = None
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, shape, student_logits=student_logits)
        weight = weight.reshape(len(x), *x.shape[2:])
    loss = reduce(
        _SORTED,
        x,
        t,
        weight=weight,
        weight_name="sample_weight",
        count=lambda: count_of(x[:, 0], weight),
        reduction=reduction,
        term="uld",
        temperature=temperature,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _result(x: Tensor, kept: Kept, t: Tensor, *, temperature: float) -> Tensor:
    q, p, _ = _ranked(x, t, temperature)
    return (q - p).abs().sum(1)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    # q[c] * sum over k of q[k] (sign[c] - sign[k]): the differences are 0, 1 or 2
    q, p, at = _ranked(x, t, temperature)
    off = q - p
    sign = off.sign()
    above, below, level = (
        (q * side).sum(1, keepdim=True) for side in (sign > 0, sign < 0, sign == 0)
    )
    slope = torch.where(sign > 0, 2 * below + level, below - above)
    slope = torch.where(sign < 0, -(2 * above + level), slope).mul_(q).mul_(by_row(up))
    slope = slope.narrow(1, 0, x.shape[1]) / temperature
    return off.abs_().sum(1), torch.zeros_like(x).scatter_(1, at, slope)


def _ranked(x: Tensor, t: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted probabilities of both, of one width, and which classes the student's are of.

    Sorted and padded before they are summed, equal sets have equal sums.
    """
    classes = max(x.shape[1], t.shape[1])
    (x, at), (t, _) = (z.sort(1, descending=True) for z in (x, t))
    q, p = (_padded(z / temperature, classes).softmax(1) for z in (x, t))
    return q, p, at


def _padded(z: Tensor, classes: int) -> Tensor:
    more = (0, 0) * (z.ndim - 2) + (0, classes - z.shape[1])
    return z if z.shape[1] == classes else pad(z, more, value=-torch.inf)


_SORTED = Formula(_result, _step)


def _check_options(temperature: float, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_positive("temperature", temperature)


class ULDLoss(LossModule):
    """Module form of :func:`uld_loss`; same options, same defaults."""

    def __init__(
        self,
        temperature: float = 1.0,
        detach_teacher: bool = True,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(temperature, reduction)
        check_flags(detach_teacher=detach_teacher)
        check_index(class_dim=class_dim)
        super().__init__(
            temperature=temperature,
            detach_teacher=detach_teacher,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Numbers,
        *,
        sample_weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``student_logits`` against the teacher's."""
        return uld_loss(
            student_logits, teacher_logits, sample_weight=sample_weight, **self.options()
        )
