"""Distillation from hidden states: student and teacher heads, and neither's logits.

    loss  = distillation_loss(hidden @ weight.T + bias,
                              teacher_hidden @ teacher_weight.T + teacher_bias, hard_targets)

Student and teacher logits of N tokens over a vocabulary of V are two matrices of N * V numbers, and
the gradient is a third. Here they are made and used up a chunk at a time.

Axes: hidden ``(..., D)``; weight ``(V, D)``; the teacher's alike, with a D of its own; targets
``(...)``.
From: the loss as in :mod:`aptt.loss.distill`; the head as in :mod:`aptt.loss.linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aptt.core.checks import (
    check_chunk,
    check_flags,
    check_floating,
    check_tensors,
    check_weights,
    taken_classes,
)
from aptt.core.divergence import WHOLE, Form
from aptt.core.engine import obstacle
from aptt.core.formula import Formula, widen
from aptt.core.linear import Head, HeadFormula, evaluate_linear
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, normalize
from aptt.core.shapes import check_sample_weight, indexed_axis
from aptt.loss.distill import Divergence, checked_form

__all__ = ["LinearDistillationLoss", "linear_distillation_loss"]


def linear_distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    hard_targets: Tensor | None = None,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    temperature: float = 4.0,
    alpha: float = 0.5,
    soft_weight: float | None = None,
    hard_weight: float | None = None,
    divergence: Divergence = "forward_kl",
    beta: float = 0.5,
    detach_teacher: bool = True,
    ignore_index: int | None = -100,
    chunk: int | None = None,
    drop_ignored: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """Distillation from the hidden states of student and teacher and the weights of their heads.

        loss = distillation_loss(hidden @ weight.T + bias,
                                 teacher_hidden @ teacher_weight.T + teacher_bias, hard_targets)

    Args:
        hidden: ``(..., D)``, the student's, any floating dtype.
        weight: ``(V, D)``, the student's head.
        teacher_hidden: ``(..., E)``, the teacher's, of the same tokens.
        teacher_weight: ``(V, E)``, the teacher's head, of the same vocabulary.
        hard_targets: ``(...)`` class indices; may be left out if ``hard_weight`` is 0.
        bias: ``(V,)``, of the student's head; -inf masks a class.
        teacher_bias: ``(V,)``, of the teacher's head.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        temperature: T, above 0. With the next five, as in :func:`distillation_loss`.
        alpha: the share of the soft term.
        soft_weight: instead of ``alpha``, the factor of the soft term.
        hard_weight: instead of ``1 - alpha``, the factor of the hard term.
        divergence: ``"forward_kl"``, ``"reverse_kl"`` or ``"jsd"``.
        beta: the teacher's share in the mixture of ``"jsd"``.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        ignore_index: the target that removes its token, from both terms; None: none does.
        chunk: tokens in a chunk; None: as many as keep its logits small beside the weight.
        drop_ignored: leave tokens that are removed out of the products.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a token. float32 for half
        types.

    Raises:
        ValueError: shapes or vocabularies that differ, options out of range, a class out of range
            (on CPU).
        TypeError: hard targets that are not class indices.

    The gradient goes to ``hidden``, ``weight`` and ``bias``; and to a teacher that is not detached,
    through checkpointed chunks. A divergence of models that are nearly equal has the digits that
    :func:`distillation_loss` says.

    Use when:
        Student and teacher share a large vocabulary. Where the teacher's likeliest classes were
        stored, :func:`distillation_loss` takes them.

    Elsewhere:
        Liger ``LigerFusedLinearJSD``, flash-linear-attention ``FusedKLDivLoss``.

    Differs from:
        Liger: nothing of N * V numbers exists, where its per-token loss does; T**2 is always on.
        flash-linear-attention: the mean is over the tokens that count, not over all.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> loss = linear_distillation_loss(hidden, weight, hidden, 2 * weight, alpha=1.0)
        >>> round(loss.item(), 4)
        0.1995
    """
    form = checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
    check_flags(detach_teacher=detach_teacher, drop_ignored=drop_ignored)
    check_chunk(chunk)
    shape = _check_shapes(hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias)
    if detach_teacher:
        teacher_hidden, teacher_weight = teacher_hidden.detach(), teacher_weight.detach()
        teacher_bias = None if teacher_bias is None else teacher_bias.detach()
    rows = y = None
    if hard_targets is not None:
        indexed_axis(hidden, hard_targets, -1, names=("hidden", "hard_targets"))
        y = hard_targets.reshape(-1)
        y, rows = taken_classes(y, len(weight), ignore_index, name="hard_targets")
        y = y if form.hard else None
    elif form.hard:
        raise ValueError(
            f"hard_targets: got None with a hard_weight of {form.hard:g}; pass the targets, or "
            "alpha=1.0 (or hard_weight=0) for the soft term alone"
        )
    elif ignore_index not in (-100, None):
        raise ValueError(f"ignore_index: got {ignore_index} without hard_targets to look in")
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, hidden=hidden)
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
        check_weights(sample_weight=rows)
    states = hidden.reshape(math.prod(shape), hidden.shape[-1])
    taught = teacher_hidden.reshape(len(states), teacher_hidden.shape[-1])
    count = len(states) if rows is None else rows.sum()
    chosen = None
    drops = drop_ignored and not torch.compiler.is_compiling() and obstacle(states) is None
    if rows is not None and drops:
        chosen = rows.nonzero().squeeze(1)
        states, taught, rows = states[chosen], taught[chosen], rows[chosen]
        y = None if y is None else y[chosen]
    elif rows is not None:
        keep = (rows != 0).unsqueeze(1)
        states, taught = torch.where(keep, states, 0.0), torch.where(keep, taught, 0.0)
    value = evaluate_linear(
        _FORMULAS[divergence],
        Head(states, weight, bias),
        y,
        None,
        gather="values" if reduction == "none" else "total",
        weight=None if rows is None else rows.to(widen(states[:0]).dtype),
        teacher=Head(taught, teacher_weight, teacher_bias),
        chunk=chunk,
        numbers=tuple(form),
    )
    if reduction != "none":
        return normalize(value, count, reduction, term="distillation")
    if chosen is not None:
        value = value.new_zeros(math.prod(shape)).index_copy(0, chosen, value)
    return value.reshape(shape)


def _check_shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
) -> tuple[int, ...]:
    """The shape of the tokens, once both heads agree on them and on the vocabulary."""
    heads = (
        ("", hidden, weight, bias),
        ("teacher_", teacher_hidden, teacher_weight, teacher_bias),
    )
    tensors = {"hidden": hidden, "weight": weight, "teacher_hidden": teacher_hidden}
    biases = {"bias": bias, "teacher_bias": teacher_bias}
    given = {name: t for name, t in biases.items() if t is not None}
    check_tensors(**tensors, teacher_weight=teacher_weight, **given)
    for who, states, head, offset in heads:
        check_floating(**{f"{who}hidden": states, f"{who}weight": head})
        if head.ndim != 2 or states.ndim == 0 or head.shape[1] != states.shape[-1]:
            raise ValueError(
                f"{who}weight: got shape {tuple(head.shape)} for {who}hidden "
                f"{tuple(states.shape)}, wanted (V, D), one row a class"
            )
        if offset is not None and offset.shape != head.shape[:1]:
            raise ValueError(f"{who}bias: got shape {tuple(offset.shape)}, wanted ({len(head)},)")
    if teacher_hidden.shape[:-1] != hidden.shape[:-1]:
        raise ValueError(
            f"teacher_hidden: got shape {tuple(teacher_hidden.shape)}, wanted the tokens of "
            f"hidden, {tuple(hidden.shape[:-1])}"
        )
    if len(teacher_weight) != len(weight):
        raise ValueError(
            f"teacher_weight: got {len(teacher_weight)} classes, wanted {len(weight)} as the "
            "student has; cut both to the common vocabulary, or mask by a bias of -inf"
        )
    if len(weight) == 0:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, with no class")
    return tuple(hidden.shape[:-1])


def _by_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a formula that takes its options as plain numbers, which a graph can hold."""
    return lambda *args, numbers: function(*args, form=Form(*numbers))


def _for_head(formula: Formula) -> Formula:
    return replace(
        formula,
        result=_by_numbers(formula.result),
        step=formula.step and _by_numbers(formula.step),
        stats=formula.stats and _by_numbers(formula.stats),
        value=formula.value and _by_numbers(formula.value),
        in_one=formula.in_one and _for_head(formula.in_one),
    )


_FORMULAS = {
    name: HeadFormula(f"distillation, {name}", _for_head(formula))
    for name, formula in WHOLE.items()
}


class LinearDistillationLoss(LossModule):
    """Module form of :func:`linear_distillation_loss`; same options, same defaults."""

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.5,
        soft_weight: float | None = None,
        hard_weight: float | None = None,
        divergence: Divergence = "forward_kl",
        beta: float = 0.5,
        detach_teacher: bool = True,
        ignore_index: int | None = -100,
        chunk: int | None = None,
        drop_ignored: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        checked_form(temperature, alpha, soft_weight, hard_weight, divergence, beta, reduction)
        check_flags(detach_teacher=detach_teacher, drop_ignored=drop_ignored)
        check_chunk(chunk)
        super().__init__(
            temperature=temperature,
            alpha=alpha,
            soft_weight=soft_weight,
            hard_weight=hard_weight,
            divergence=divergence,
            beta=beta,
            detach_teacher=detach_teacher,
            ignore_index=ignore_index,
            chunk=chunk,
            drop_ignored=drop_ignored,
            reduction=reduction,
        )

    def forward(
        self,
        hidden: Tensor,
        weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        *,
        hard_targets: Tensor | None = None,
        bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
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
            sample_weight=sample_weight,
            **self.options(),
        )
