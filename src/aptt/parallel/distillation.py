"""Distillation where each rank holds some of the classes of student and teacher.

For each chunk of rows the ranks tell each other the largest logits and a few sums of its rows, and
each computes the same loss; the gradient of a rank's own logits needs no message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aptt.core.checks import check_chunk, check_floating, check_indices, check_tensors
from aptt.core.distillation import Divergence, check_heads, checked_form
from aptt.core.divergence import BY_NAME, Form
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.linear import Head, HeadFormula
from aptt.core.linear.tokens import put_back
from aptt.core.ordinary import bare
from aptt.core.precision import widen
from aptt.core.reduction import Reduction, normalize
from aptt.core.vocabulary import Form as Hard
from aptt.core.vocabulary import Stats, finish, slope
from aptt.parallel.linear import SpreadRun, refuse_twice, rows_of
from aptt.parallel.ranks import Group, group_of
from aptt.parallel.spread import OverRanks, Place, local, measured, merged, place

__all__ = ["vocab_parallel_distillation_loss", "vocab_parallel_linear_distillation_loss"]


def vocab_parallel_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    hard_targets: Tensor | None = None,
    group: Group = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    soft_weight: float | None = None,
    hard_weight: float | None = None,
    divergence: Divergence = "forward_kl",
    beta: float = 0.5,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distillation over classes that are spread over ranks.

        loss = alpha * T**2 * KL(p || q) + (1 - alpha) * cross_entropy(student, hard_targets)
        p = softmax(teacher / T), q = softmax(student / T), over the classes of all ranks

    Args:
        student_logits: ``(..., C_r)``, the classes of this rank, those of rank 0 first; the shards
            may differ in size, and one may be empty. Or a ``DTensor`` with ``Shard(-1)``.
        teacher_logits: the same classes of the same rows. They get no gradient.
        hard_targets: ``(...)``, class indices of the whole vocabulary, the same on every rank; may
            be left out if ``hard_weight`` is 0.
        group: the ranks that the vocabulary is spread over: a process group, a device mesh of one
            dimension, or None for all. A ``DTensor`` knows its own.
        temperature: T, above 0. With the next five, as in ``distillation_loss``.
        alpha: the share of the soft term.
        soft_weight: instead of ``alpha``, the factor of the soft term.
        hard_weight: instead of ``1 - alpha``, the factor of the hard term.
        divergence: ``"forward_kl"``, ``"reverse_kl"`` or ``"jsd"``.
        beta: the teacher's share in the mixture of ``"jsd"``.
        sample_weight: ``(...)``, one weight a row; multiplies and is counted, and 0 removes.
        ignore_index: the target that removes its row, from both terms; None: none does.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            such as :func:`global_mean` of the data-parallel ranks.

    Returns:
        The loss of the dense logits, the same on every rank of ``group``: float32 for half types.

    Raises:
        TypeError: hard targets that are no class indices.
        ValueError: shapes that do not fit, options out of range, a class out of range (on CPU),
            other rows on another rank.

    The gradient goes to this rank's ``student_logits``; the hidden states before them pass through
    :func:`replicated`. There is no second derivative, and ``torch.func`` does not go through.

    Use when:
        The heads of student and teacher are both split over ranks by column parallelism.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[3.0, 1.0, -4.0]])
        >>> target = torch.tensor([0])  # a world of one rank
        >>> loss = vocab_parallel_distillation_loss(student, teacher, hard_targets=target)
        >>> round(loss.item(), 4)
        0.5445
    """
    form = checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
    given = group
    student_logits, group = local("student_logits", student_logits, -1, given, wanted="Shard(-1)")
    teacher_logits, _ = local("teacher_logits", teacher_logits, -1, given, wanted="Shard(-1)")
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    if student_logits.shape != teacher_logits.shape or student_logits.ndim == 0:
        raise ValueError(
            f"teacher_logits: got shape {tuple(teacher_logits.shape)}, wanted that of "
            f"student_logits, {tuple(student_logits.shape)}: the same classes on each rank"
        )
    *shape, classes = student_logits.shape
    where = place(student_logits, -1, math.prod(shape), group_of(group))
    y, rows = _targets(
        student_logits, shape, hard_targets, sample_weight, where, ignore_index, form
    )
    x = student_logits.reshape(math.prod(shape), classes)
    t = teacher_logits.detach().reshape(x.shape)
    keep = None if rows is None else rows != 0
    options = {"of": divergence, "form": form, "where": where}
    values: Tensor = _OfLogits.apply(bare(x), bare(t), y if form.hard else None, keep, options)
    if rows is not None:
        values = values * rows
    if reduction == "none":
        return values.reshape(shape)
    count = len(x) if rows is None else rows.sum()
    return normalize(values.sum(), count, reduction, term="distillation")


def vocab_parallel_linear_distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    hard_targets: Tensor | None = None,
    group: Group = None,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    soft_weight: float | None = None,
    hard_weight: float | None = None,
    divergence: Divergence = "forward_kl",
    beta: float = 0.5,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    chunk: int | None = None,
    sum_hidden: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distillation from hidden states and this rank's parts of both heads, without the logits.

        loss = distillation_loss(hidden @ whole_weight.T, teacher_hidden @ whole_teacher_weight.T)

    Args:
        hidden: ``(..., D)``, the student's, the same on every rank of ``group``.
        weight: ``(V_r, D)``, the classes of this rank, those of rank 0 first; the parts may differ
            in size, and one may be empty. Or a ``DTensor`` with ``Shard(0)``.
        teacher_hidden: ``(..., E)``, the teacher's, of the same tokens.
        teacher_weight: ``(V_r, E)``, the same classes of the teacher's head. The teacher gets no
            gradient.
        hard_targets: ``(...)``, class indices of the whole vocabulary, the same on every rank; may
            be left out if ``hard_weight`` is 0.
        group: the ranks that the vocabulary is spread over: a process group, a device mesh of one
            dimension, or None for all. A ``DTensor`` knows its own.
        bias: ``(V_r,)``, of this rank's classes; -inf masks a class.
        teacher_bias: ``(V_r,)``, of the teacher's.
        temperature: T, above 0. With the next five, as in ``distillation_loss``.
        alpha: the share of the soft term.
        soft_weight: instead of ``alpha``, the factor of the soft term.
        hard_weight: instead of ``1 - alpha``, the factor of the hard term.
        divergence: ``"forward_kl"``, ``"reverse_kl"`` or ``"jsd"``.
        beta: the teacher's share in the mixture of ``"jsd"``.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        ignore_index: the target that removes its token, from both terms; None: none does.
        chunk: tokens in a chunk, the same on every rank; None: as many as D allows.
        sum_hidden: the gradient of ``hidden`` is whole on every rank. False: each has its own
            classes' share, where what made ``hidden`` adds them up, as :func:`gather` does.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            such as :func:`global_mean` of the data-parallel ranks.

    Returns:
        The loss of the dense logits, the same on every rank of ``group``: float32 for half types.

    Raises:
        TypeError: hard targets that are no class indices.
        ValueError: shapes that do not fit, options out of range, a class out of range (on CPU),
            other tokens on another rank.
        RuntimeError: a second derivative.

    The gradient goes to ``hidden``, ``weight`` and ``bias``. Each chunk sends 3 messages (4 for
    ``"reverse_kl"`` and ``"jsd"``, and 1 more for the hard targets), of 6 or 8 numbers a token in
    all, and 3 for the targets.

    Use when:
        The heads of student and teacher are both split over ranks by column parallelism.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> loss = vocab_parallel_linear_distillation_loss(
        ...     hidden, weight, hidden, 2 * weight, alpha=1.0  # a world of one rank
        ... )
        >>> round(loss.item(), 4)
        0.1995
    """
    form = checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
    check_chunk(chunk)
    given = group
    weight, group = local("weight", weight, 0, given, wanted="Shard(0)")
    teacher_weight, _ = local("teacher_weight", teacher_weight, 0, given, wanted="Shard(0)")
    if bias is not None:
        bias, _ = local("bias", bias, 0, given, wanted="Shard(0)")
    if teacher_bias is not None:
        teacher_bias, _ = local("teacher_bias", teacher_bias, 0, given, wanted="Shard(0)")
    student = Head(hidden, weight, bias)
    teacher = Head(teacher_hidden, teacher_weight, teacher_bias)
    shape = check_heads(*student, *teacher, some_classes=True)
    where = place(weight, 0, math.prod(shape), group_of(group))
    y, rows = _targets(hidden, shape, hard_targets, sample_weight, where, ignore_index, form)
    states = hidden.reshape(math.prod(shape), hidden.shape[-1])
    taught = teacher_hidden.detach().reshape(len(states), teacher_hidden.shape[-1])
    count = len(states) if rows is None else rows.sum()
    chosen = None
    if rows is not None:
        chosen = rows.nonzero().squeeze(1)
        states, taught, rows = states[chosen], taught[chosen], rows[chosen]
        y = None if y is None else y[chosen]
    value = SpreadRun.of(
        _FORMULA,
        student._replace(hidden=states),
        Head(
            taught, teacher_weight.detach(), None if teacher_bias is None else teacher_bias.detach()
        ),
        [y if form.hard else None],
        None if rows is None else rows.to(widen(states[:0]).dtype),
        where,
        gather="values" if reduction == "none" else "total",
        scale=1.0,
        chunk=chunk,
        sum_hidden=sum_hidden,
        of=divergence,
        form=form,
    )
    if reduction == "none":
        return put_back(value, chosen, shape)
    return normalize(value, count, reduction, term="distillation")


def _targets(
    like: Tensor,
    shape: Sequence[int],
    targets: Tensor | None,
    sample_weight: Tensor | None,
    where: Place,
    ignore_index: int | None,
    form: Form,
) -> tuple[Tensor | None, Tensor | None]:
    """Class indices one after the other, if there are any, and what each row weighs."""
    if targets is None:
        if form.hard:
            raise ValueError(
                f"hard_targets: got None with a hard_weight of {form.hard:g}; pass the targets, or "
                "alpha=1.0 (or hard_weight=0) for the soft term alone"
            )
        none = torch.zeros(tuple(shape), dtype=torch.long, device=like.device)
        return None, rows_of(like, none, sample_weight, where, None)[1]
    check_tensors(hidden=like, hard_targets=targets)
    check_indices(hard_targets=targets)
    if targets.shape != tuple(shape):
        raise ValueError(f"hard_targets: got shape {tuple(targets.shape)}, wanted {tuple(shape)}")
    return rows_of(like, targets, sample_weight, where, ignore_index, "hard_targets")


# ------------------------------------------------------------------------------ over ranks

_HARD = Hard()


def _stats(x: Tensor, t: Tensor, y: Tensor | None, *, of: str, form: Form, where: Place) -> Kept:
    refuse_twice(x)
    sums = BY_NAME[of].sums(x, t, form, OverRanks(where.group))
    if y is None:
        return sums
    return (*sums, *merged(measured(x, y, None, _HARD, where.start), where.group)[:3])


def _result(
    x: Tensor, kept: Kept, t: Tensor, y: Tensor | None, *, of: str, form: Form, where: Place
) -> Tensor:
    value = BY_NAME[of].value(kept if y is None else kept[:-3], form)
    loss = (form.soft * value.clamp(min=0)).squeeze(1)
    if y is None:
        return loss
    return loss + (form.hard or 0.0) * finish(Stats(*kept[-3:]), None, form=_HARD)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    y: Tensor | None,
    *,
    of: str,
    form: Form,
    where: Place,
) -> tuple[None, Tensor]:
    if x.shape[1] == 0:
        return None, x
    up = by_row(up)
    soft = kept if y is None else kept[:-3]
    dx = BY_NAME[of].slope(x, t, soft, up * (form.soft / form.temperature), form)
    if y is not None:
        how: dict[str, Any] = {"class_weight": None, "form": _HARD, "start": where.start}
        dx += slope(x, y, Stats(*kept[-3:]), up * (form.hard or 0.0), None, **how)
    return None, dx


_FORMULA = HeadFormula("distillation over ranks", Formula(_result, _step, _stats))


class _OfLogits(torch.autograd.Function):
    """The loss of each row, from the classes of this rank and what the others say of theirs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        t: Tensor,
        y: Tensor | None,
        keep: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        z, taught = _clean(x, keep), _clean(t, keep).to(widen(x[:0]).dtype)
        kept = _stats(z, taught, y, **options)
        ctx.options, ctx.keep, ctx.there = options, keep, y is not None
        ctx.save_for_backward(x, t, *([] if y is None else [y]), *kept)
        return _result(z, kept, taught, y, **options)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        x, t, *kept = ctx.saved_tensors
        y = kept.pop(0) if ctx.there else None
        z, taught = _clean(x, ctx.keep), _clean(t, ctx.keep).to(widen(x[:0]).dtype)
        _, dx = _step(z, up, tuple(kept), taught, y, **ctx.options)
        return _clean(dx, ctx.keep).to(x.dtype), None, None, None, None


def _clean(x: Tensor, keep: Tensor | None) -> Tensor:
    """In the dtype of the computation, with 0 where a row is not looked at."""
    return widen(x) if keep is None else widen(x).masked_fill(~keep.unsqueeze(1), 0.0)
