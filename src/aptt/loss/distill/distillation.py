"""Knowledge distillation: a student learns the soft answers of a teacher, and the hard ones.

    p     = softmax(teacher / T)    q = softmax(student / T)    m = beta * p + (1 - beta) * q
    D     = sum p * log(p / q)                                           forward_kl
          = sum q * log(q / p)                                           reverse_kl
          = beta * sum p * log(p / m) + (1 - beta) * sum q * log(q / m)  jsd
    loss  = soft_weight * T**2 * D + hard_weight * cross_entropy(student, hard_targets)

T**2 keeps the soft gradient at one size, whatever the temperature. ``standardize`` takes
``(z - mean z) / std z`` of each row in place of both logits in D. The terms of the other libraries,
in ours; mean over positions, from student logits s, teacher logits t and targets y:

    mdistiller KD(CE_WEIGHT=a, KD_WEIGHT=b, T)     hard_weight=a, soft_weight=b
    Keras Distiller(student_loss_weight=a), T**2   alpha=1 - a
    DeiT (soft, alpha=a, tau), divided by numel    soft_weight=a / C, hard_weight=1 - a
    NeMo KDLoss(temperature), T**2                 alpha=1.0
    torchtune ForwardKLLoss, cross-entropy form    alpha=1.0, temperature=1.0, + H(p)
    torchtune ReverseKLLoss                        alpha=1.0, temperature=1.0, "reverse_kl"
    Liger JSD, TRL GKD (beta, temperature), no T**2
        beta = 0                                   soft_weight=1 / T**2, hard_weight=0
        beta = 1                                   the same, divergence="reverse_kl"
        between                                    the same, divergence="jsd", beta=beta
    Liger chunked (weight_hard=a, weight_soft=b)   hard_weight=a, soft_weight=b / T**2

Axes: logits ``(N, C, ...)`` or ``(..., C)``, teacher alike; targets the same without C.
From: Hinton et al. 2015, arXiv:1503.02531, section 2 (forward_kl, T**2); Agarwal et al. 2024
(GKD), arXiv:2306.13649, eq. 1 (jsd, reverse_kl); Sun et al. 2024, arXiv:2403.01427 (standardize).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_flags,
    check_floating,
    check_index,
    check_number,
)
from aptt.core.distillation import Divergence, check_spread, checked_form
from aptt.core.hard import CHOSEN, STANDARD, WHOLE
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, count_of, named, reduce
from aptt.core.shapes import check_sample_weight, check_vector
from aptt.loss.classification import cross_entropy
from aptt.loss.distill.rows import student_rows, teacher_rows

__all__ = ["distillation_loss", "distillation_terms"]


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Numbers,
    *,
    hard_targets: Numbers | None = None,
    teacher_indices: Numbers | None = None,
    sample_weight: Numbers | None = None,
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
) -> Tensor:
    """Distillation from a teacher's logits, with the hard targets mixed in.

        loss = alpha * T**2 * KL(p || q) + (1 - alpha) * cross_entropy(student, hard_targets)
        p = softmax(teacher / T), q = softmax(student / T)

    Args:
        student_logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        teacher_logits: the same shape. With ``teacher_indices``, log-probabilities of k classes,
            in the same shape with k in place of C.
        hard_targets: class indices, shaped like the logits without the class axis; or soft ones,
            floating and shaped like the logits, as mixup makes them. May be left out if
            ``hard_weight`` is 0; indices that are given all the same say what to ignore.
        teacher_indices: the k distinct classes whose log-probabilities, at the same temperature,
            ``teacher_logits`` holds, in its shape. The rest of either model's mass is one more
            class; k = C has no rest, and is the whole.
        sample_weight: shaped like the targets; multiplies and is counted, and 0 removes.
        temperature: T, above 0; softens both sides of the soft term, never the hard one.
        alpha: the share of the SOFT term, in [0, 1]; the hard one has ``1 - alpha``.
        soft_weight: instead of ``alpha``, the factor of the soft term, T**2 not included.
        hard_weight: instead of ``1 - alpha``, the factor of the hard term.
        divergence: ``"forward_kl"`` covers all that the teacher finds likely, ``"reverse_kl"``
            settles on some of it, ``"jsd"`` lies between.
        beta: the teacher's share in the mixture of ``"jsd"``, between 0 and 1, both excluded. The
            divergence goes to 0 at either end; it does not become a KL there.
        standardize: take from each row of logits its mean, and divide it by its standard deviation,
            on both sides, before the temperature: the student learns how the teacher's logits lie
            to each other, and not how large they are. The hard term is of the logits that came.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one, as
            between models that teach each other. It changes neither the value nor the student's
            gradient.
        class_weight: ``(C,)``, one weight per class, of the hard term alone, whose mean then counts
            it, as in :func:`cross_entropy`.
        ignore_index: the target that removes its position, from both terms; None: none does.
        label_smoothing: the share of the hard targets' mass spread evenly over the classes.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the positions that count, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``, called once, for ``"distillation"``; with class weights,
            smoothing or soft hard targets for ``"soft"``, and for ``"hard"`` unless it weighs 0,
            each with its count.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value per position. float32 for half
        types.

    Raises:
        ValueError: shapes or vocabularies that differ, a single class, or two where they are
            standardised, a temperature or beta out of range, hard targets missing, or out of range
            like weights (both on CPU).
        TypeError: hard targets that are neither class indices nor shaped like the logits.

    The gradient goes to ``student_logits``, and to a teacher that is not detached. Where one model
    masks a class by -inf that the other gives mass, the KL is infinite by definition; here the
    ratio of the two has the logarithm 1e4. So vocabularies of two sizes are cut to the classes
    that they share, never padded with -inf. Loss and gradient have the digits of the differences
    of the logits, where student and teacher are nearly equal too. But ``"forward_kl"`` is rounded
    beside 1 on an accelerator: in float32 it is off by up to ``1e-6 * T**2``, and its gradient by
    ``1e-6 * T`` of each probability. Standardised, masked classes have no part in mean and spread,
    and a row of equal logits, as a head that begins with 0 makes, has no gradient from the soft
    term: it has no spread by which the teacher's could be told.

    Use when:
        A small model is to imitate a large one. Cached teachers store the k likeliest classes:
        ``teacher_indices``. To keep old tasks while learning a new one, see :func:`lwf_loss`.

    Elsewhere:
        mdistiller ``KD``, Keras ``Distiller``, Liger ``LigerFusedLinearJSD``, TRL ``GKDTrainer``,
        NeMo ``KDLoss``, torchtune ``ForwardKLLoss``. A table at the top of the file says how to
        set ours to compute each of them.

    Differs from:
        Liger, TRL: T**2 always multiplies the soft term.
        DeiT: the mean is over positions, not over positions x classes, so the soft term is C times
            as large.
        torchtune: a student that equals its teacher has a loss of 0, not the teacher's entropy.
        F.kl_div: classes masked in both models count 0, not NaN. ``"none"`` is a value per
            position, not per class; a table of classes is a program of the docs, under methods.
        Sun et al., standardised: their program divides by the deviation of a sample, ``C - 1`` in
            place of C, and adds 1e-7 to it: our temperature is theirs times ``sqrt(C / (C - 1))``.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[3.0, 1.0, -4.0]])
        >>> round(distillation_loss(student, teacher, hard_targets=torch.tensor([0])).item(), 4)
        0.5445
    """
    form = checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_flags(detach_teacher=detach_teacher, standardize=standardize)
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    check_floating(student_logits=student_logits)
    if hard_targets is None and form.hard is not None:
        raise ValueError(
            f"hard_targets: got None with a hard_weight of {form.hard:g}; pass the targets, or "
            "alpha=1.0 (or hard_weight=0) for the soft term alone"
        )
    if hard_targets is not None:
        hard_targets = as_tensor("hard_targets", hard_targets, student_logits)
    if class_weight is not None or label_smoothing or _is_soft(hard_targets):
        return _in_two(
            student_logits,
            teacher_logits,
            hard_targets,
            reduction,
            hard_weight=form.hard,
            cross={"weight": class_weight, "label_smoothing": label_smoothing},
            soft={
                "teacher_indices": teacher_indices,
                "temperature": temperature,
                "soft_weight": alpha if soft_weight is None else soft_weight,
                "divergence": divergence,
                "beta": beta,
                "standardize": standardize,
                "detach_teacher": detach_teacher,
            },
            both={
                "sample_weight": sample_weight,
                "ignore_index": ignore_index,
                "class_dim": class_dim,
            },
        )
    x, y, keep, axis, shape = student_rows(student_logits, hard_targets, ignore_index, class_dim)
    weight = keep
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, student_logits=student_logits)
        weight = sample_weight.reshape(len(x), *x.shape[2:])
        weight = weight if keep is None else torch.where(keep, weight, 0.0)
    keep = None if weight is None else weight != 0
    teacher = as_tensor("teacher_logits", teacher_logits, student_logits)
    teacher = teacher.detach() if detach_teacher else teacher
    if teacher_indices is not None:
        teacher_indices = as_tensor("teacher_indices", teacher_indices, student_logits)
    t, chosen = teacher_rows(student_logits, teacher, teacher_indices, axis, x, keep)
    if standardize:
        check_spread("student_logits", x.shape[1], chosen)
    formulas = STANDARD if standardize else WHOLE if chosen is None else CHOSEN
    loss = reduce(
        formulas[divergence],
        x,
        t,
        None if form.hard is None else y,
        chosen,
        weight=weight,
        weight_name="sample_weight",
        count=lambda: count_of(x[:, 0], weight),
        reduction=reduction,
        term="distillation",
        form=form,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _is_soft(targets: Tensor | None) -> bool:
    return targets is not None and targets.is_floating_point()


def _in_two(
    student: Tensor,
    teacher: Numbers,
    targets: Tensor | None,
    reduction: Reduction,
    *,
    hard_weight: float | None,
    cross: dict[str, Any],
    soft: dict[str, Any],
    both: dict[str, Any],
) -> Tensor:
    """Soft and hard term apart: what they count differs, and so does what they take."""
    if targets is None:
        given = "label_smoothing" if cross["weight"] is None else "class_weight"
        raise ValueError(f"hard_targets: got None with {given}, which is theirs; wanted some")
    if _is_soft(targets) and targets.shape != student.shape:
        raise TypeError(
            f"hard_targets: got {targets.dtype} of shape {tuple(targets.shape)}, wanted class "
            f"indices, or soft targets of the shape of student_logits, {tuple(student.shape)}"
        )
    x = widen(student)  # the gradients of both terms meet there, to be rounded once
    indices = None if _is_soft(targets) else targets
    if cross["weight"] is not None:
        rows = student_rows(x, indices, both["ignore_index"], both["class_dim"])
        cross["weight"] = check_vector("class_weight", cross["weight"], rows.x)
    told = named(reduction, "soft")
    loss = distillation_loss(
        x, teacher, hard_targets=indices, hard_weight=0.0, reduction=told, **soft, **both
    )
    if hard_weight is None:
        return loss
    told = named(reduction, "hard")
    return loss + hard_weight * cross_entropy(x, targets, reduction=told, **cross, **both)


def distillation_terms(
    student_logits: Tensor,
    teacher_logits: Numbers,
    *,
    hard_targets: Numbers | None = None,
    teacher_indices: Numbers | None = None,
    sample_weight: Numbers | None = None,
    temperature: float = 4.0,
    divergence: Divergence = "forward_kl",
    beta: float = 0.5,
    standardize: bool = False,
    detach_teacher: bool = True,
    class_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`distillation_loss` by name, without their weights.

        soft = T**2 * D        hard = cross_entropy(student, hard_targets)

    Args are those of :func:`distillation_loss`; a normalizer is told ``"soft"`` and ``"hard"``.

    Returns:
        ``{"soft": ..., "hard": ...}``, without ``"hard"`` where there are no hard targets.

    Use when:
        Each term is to be logged, or weighted by something that changes.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[3.0, 1.0, -4.0]])
        >>> terms = distillation_terms(student, teacher, hard_targets=torch.tensor([0]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'soft': 0.9191, 'hard': 0.1698}
    """
    both: dict[str, Any] = {
        "sample_weight": sample_weight,
        "ignore_index": ignore_index,
        "class_dim": class_dim,
    }
    terms = {
        "soft": distillation_loss(
            student_logits,
            teacher_logits,
            hard_targets=hard_targets,
            alpha=1.0,
            temperature=temperature,
            divergence=divergence,
            beta=beta,
            standardize=standardize,
            teacher_indices=teacher_indices,
            detach_teacher=detach_teacher,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            reduction=named(reduction, "soft"),
            **both,
        )
    }
    if hard_targets is not None:
        terms["hard"] = cross_entropy(
            student_logits,
            hard_targets,
            weight=class_weight,
            label_smoothing=label_smoothing,
            reduction=named(reduction, "hard"),
            **both,
        )
    return terms
