"""Distillation from hidden states: student and teacher heads, and neither's logits.

    z     = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), and t of the teacher's
    loss  = distillation_loss(z, t, hard_targets)

Student and teacher logits of N tokens over a vocabulary of V are two matrices of N * V numbers, and
the gradient is a third. Here they are made and used up a chunk at a time.

Axes: hidden ``(..., D)``; weight ``(V, D)``; the teacher's alike, with a D of its own; targets
``(...)``.
From: the loss as in :mod:`aptt.loss.distill`; the head as in :mod:`aptt.loss.linear`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_number
from aptt.core.distillation import Divergence, checked_form
from aptt.core.linear import Projection
from aptt.core.linear.tokens import put_back
from aptt.core.reduction import Reduction, normalize
from aptt.loss.linear_distill.formulas import FORMULAS, TERMS, Kind, checked_bend
from aptt.loss.linear_distill.teacher import Of, Teacher
from aptt.loss.linear_distill.tokens import Tokens, tokens_of_both

__all__ = ["linear_distillation_loss", "linear_distillation_terms"]


def linear_distillation_loss(
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
) -> Tensor:
    """Distillation from the hidden states of student and teacher and the weights of their heads.

        loss = distillation_loss(z, t, hard_targets)
        z = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), and t of the teacher's

    Args:
        hidden: ``(..., D)``, the student's, any floating dtype.
        weight: ``(V, D)``, the student's head; or a callable that makes the logits ``(n, V)`` of
            hidden states ``(n, D)``, such as a head wrapped by LoRA.
        teacher_hidden: ``(..., E)``, the teacher's, of the same tokens.
        teacher_weight: ``(V, E)``, the teacher's head, of the same vocabulary; or a callable.
        hard_targets: ``(...)`` class indices, or ``(..., V)`` soft ones; may be left out if
            ``hard_weight`` is 0.
        bias: ``(V,)``, of the student's head; -inf masks a class.
        teacher_bias: ``(V,)``, of the teacher's head.
        teacher_logits: what the teacher said when it was asked; None is then passed for
            ``teacher_hidden`` and ``teacher_weight``. ``(..., V)``, or with ``teacher_indices``
            log-probabilities of k classes at this temperature, ``(..., k)``.
        teacher_indices: ``(..., k)``, which classes these are, as in :func:`distillation_loss`.
        sample_weight: ``(...)``, one weight a token; multiplies and is counted, and 0 removes.
        temperature: T, above 0. With the next six, as in :func:`distillation_loss`.
        alpha: the share of the soft term.
        soft_weight: instead of ``alpha``, the factor of the soft term.
        hard_weight: instead of ``1 - alpha``, the factor of the hard term.
        divergence: ``"forward_kl"``, ``"reverse_kl"`` or ``"jsd"``.
        beta: the teacher's share in the mixture of ``"jsd"``.
        standardize: compare the logits of both, bent as they are, less their mean and over their
            standard deviation.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        class_weight: ``(V,)``, one weight per class, of the hard term alone; it is counted there.
        ignore_index: the target that removes its token, from both terms; None: none does.
        label_smoothing: the share of the hard targets' mass spread evenly over the classes.
        softcap: bounds the student's logits, scaled before, to ``(-softcap, softcap)``.
        teacher_softcap: the same of the teacher's head.
        scale: multiplies the student's logits, in both terms; ``temperature`` divides them later.
        teacher_scale: multiplies those of the teacher's head.
        chunk: tokens in a chunk; None: as many as keep its logits small beside the weight.
        drop_ignored: leave tokens that are removed out of the products.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``,
            called for ``"distillation"``; with class weights, smoothing or soft hard targets for
            ``"soft"`` and ``"hard"``, each with its count.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` one value a token. float32 for half
        types.

    Raises:
        ValueError: shapes or vocabularies that differ, options out of range, a class out of range
            (on CPU), a teacher's head beside its stored logits, or neither.
        TypeError: hard targets that are not class indices, a head that is no head.

    The gradient goes to ``hidden``, ``weight`` and ``bias``; to a callable head's parameters, and
    to a teacher that is not detached, through checkpointed chunks. A divergence of models that are
    nearly equal has the digits that :func:`distillation_loss` says. Where each term has its count,
    backward multiplies the logits out once more.

    Use when:
        Student and teacher share a large vocabulary; the teacher is at hand, or its likeliest
        classes were stored.

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
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_flags(detach_teacher=detach_teacher, drop_ignored=drop_ignored, standardize=standardize)
    if hard_targets is None:
        if form.hard:
            raise ValueError(
                f"hard_targets: got None with a hard_weight of {form.hard:g}; pass the targets, or "
                "alpha=1.0 (or hard_weight=0) for the soft term alone"
            )
        if class_weight is not None or label_smoothing:
            given = "label_smoothing" if class_weight is None else "class_weight"
            raise ValueError(f"hard_targets: got None with {given}, which is theirs; wanted some")
    bend = checked_bend(softcap, teacher_softcap, scale, teacher_scale, teacher_logits)
    tokens = tokens_of_both(
        Of(hidden, weight, bias),
        Teacher(teacher_hidden, teacher_weight, teacher_bias, teacher_logits, teacher_indices),
        hard_targets,
        sample_weight,
        class_weight,
        ignore_index,
        chunk=chunk,
        detach_teacher=detach_teacher,
        drop_ignored=drop_ignored,
        standardize=standardize,
    )
    how = {"scale": scale, "chunk": chunk}
    if tokens.soft or tokens.class_weight is not None or label_smoothing:
        numbers = (*form._replace(soft=temperature**2), *bend)
        names = ("soft", "hard") if form.hard else ("soft",)
        terms = _apart(
            tokens, names, divergence, standardize, label_smoothing, reduction, numbers, **how
        )
        soft = form.soft / temperature**2 * terms["soft"]
        return soft + form.hard * terms["hard"] if form.hard else soft
    value = tokens.evaluate(
        FORMULAS[divergence, _kind(tokens, standardize)],
        tokens.y if form.hard else None,
        gather="values" if reduction == "none" else "total",
        weight=tokens.rows,
        numbers=(*form, *bend),
        **how,
    )
    if reduction != "none":
        return normalize(value, tokens.counted, reduction, term="distillation")
    return put_back(value, tokens.chosen, tokens.shape)


def _kind(tokens: Tokens, standardize: bool) -> Kind:
    return "standardized" if standardize else "whole" if tokens.classes is None else "some"


def _apart(
    tokens: Tokens,
    names: Sequence[str],
    divergence: Divergence,
    standardize: bool,
    label_smoothing: float,
    reduction: Reduction,
    numbers: tuple[Any, ...],
    **how: Any,
) -> dict[str, Tensor]:
    """The terms by name, each with its count, from one walk."""
    kind, rows = _kind(tokens, standardize), tokens.rows
    if len(names) == 1:
        formula, y = FORMULAS[divergence, kind], None
    else:
        formula, y = TERMS[tokens.soft][divergence, kind], tokens.y
        how |= {"smoothing": label_smoothing or None, "class_weight": tokens.class_weight}
        rows = None if rows is None else rows.unsqueeze(1)
    values = tokens.evaluate(formula, y, gather="values", weight=rows, numbers=numbers, **how)
    columns = values.reshape(-1, len(names)).unbind(1)
    if reduction == "none":
        found = [put_back(v, tokens.chosen, tokens.shape) for v in columns]
        return dict(zip(names, found, strict=True))
    counts = {"soft": tokens.counted}
    if len(names) > 1:
        counts["hard"] = tokens.counted_hard(values.dtype)
    return {
        name: normalize(v.sum(), counts[name], reduction, term=name)
        for name, v in zip(names, columns, strict=True)
    }


def linear_distillation_terms(
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
    temperature: float = 4.0,
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
) -> dict[str, Tensor]:
    """The terms of :func:`linear_distillation_loss` by name, without their weights, from one walk.

        soft = T**2 * D        hard = cross_entropy(student, hard_targets)

    Args are those of :func:`linear_distillation_loss`; a normalizer is told ``"soft"`` and
    ``"hard"``. Backward multiplies the logits out once more, for each term may have a weight of
    its own.

    Returns:
        ``{"soft": ..., "hard": ...}``, without ``"hard"`` where there are no hard targets.

    Use when:
        Each term is to be logged, or weighted by something that changes.

    Example:
        >>> import torch
        >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> target = torch.tensor([0, 1])
        >>> terms = linear_distillation_terms(
        ...     hidden, weight, hidden, 2 * weight, hard_targets=target
        ... )
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'soft': 0.1995, 'hard': 0.6348}
    """
    form = checked_form(temperature, 0.5, 1.0, 1.0, divergence, beta, reduction)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_flags(detach_teacher=detach_teacher, drop_ignored=drop_ignored, standardize=standardize)
    if hard_targets is None and (class_weight is not None or label_smoothing):
        given = "label_smoothing" if class_weight is None else "class_weight"
        raise ValueError(f"hard_targets: got None with {given}, which is theirs; wanted some")
    bend = checked_bend(softcap, teacher_softcap, scale, teacher_scale, teacher_logits)
    tokens = tokens_of_both(
        Of(hidden, weight, bias),
        Teacher(teacher_hidden, teacher_weight, teacher_bias, teacher_logits, teacher_indices),
        hard_targets,
        sample_weight,
        class_weight,
        ignore_index,
        chunk=chunk,
        detach_teacher=detach_teacher,
        drop_ignored=drop_ignored,
        standardize=standardize,
    )
    names = ("soft",) if tokens.y is None else ("soft", "hard")
    form = form._replace(hard=None) if tokens.y is None else form
    return _apart(
        tokens,
        names,
        divergence,
        standardize,
        label_smoothing,
        reduction,
        (*form, *bend),
        scale=scale,
        chunk=chunk,
    )
