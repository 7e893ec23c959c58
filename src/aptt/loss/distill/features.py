"""Feature distillation: a student's features point where its teacher's do.

    u(f)  = f / ||f||, and 0 where f is 0
    cosine       1/2 ||u(s) - u(t)||**2 = 1 - cos(s, t)      at each position, over the channels
    unit         ||u(s) - u(t)||                             of each sample, all its numbers
    attention    ||u(Q_s) - u(Q_t)||, Q = sum over channels of f**2        of each sample

Each is unchanged where either side is multiplied by a number, and exactly 0 at equal features.

Axes: ``(N, D)`` or ``(N, C, ...)``; for ``"attention"`` each side has channels of its own.
From: unit, Douillard et al. 2020 (PODNet), arXiv:2004.13513, section 3 (its final embedding);
attention, Zagoruyko and Komodakis 2017, arXiv:1612.03928, section 3.1, with p = 2.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_choice,
    check_flags,
    check_floating,
    check_tensors,
)
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.precision import wide, widen
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce
from aptt.core.vectors import largest_1, length, unit

__all__ = ["FeatureDistillationLoss", "feature_distillation_loss"]

Kind = Literal["cosine", "unit", "attention"]


def feature_distillation_loss(
    student_features: Tensor,
    teacher_features: Numbers,
    *,
    weight: Numbers | None = None,
    kind: Kind = "cosine",
    detach_teacher: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """How far a student's features point away from its teacher's.

        cosine: 1 - cos(s, t)    unit: ||s / ||s|| - t / ||t||||    attention: the same of maps

    Args:
        student_features: ``(N, D)`` or ``(N, C, ...)``, any floating dtype. Where the teacher has
            another width, what maps one to the other is a layer of the caller's.
        teacher_features: the same shape; for ``"attention"`` with a number of channels of its own.
        weight: one for each value: a position, or a sample; multiplies and is counted, and 0
            removes.
        kind: ``"cosine"``, over the channels of each position; ``"unit"``, over all numbers of a
            sample; ``"attention"``, where in a sample (``(N, C, ...)``) how much happens.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        reduction: ``"mean"`` over the values that count, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, from 0 to 2: a scalar, or with ``"none"`` one value per position or sample.
        float32 for half types.

    Raises:
        ValueError: shapes that differ, an unknown kind.

    The gradient goes to ``student_features``, and to a teacher that is not detached. Features that
    are 0 have no direction, and no gradient: beside others they cost 1/2 or 1, beside 0 nothing.
    ``"unit"`` and ``"attention"`` have an edge at equal features, where the gradient is 0.

    Use when:
        Layers inside are to agree, not answers alone. The squared error of FitNets is
        :func:`mse_loss` of ``teacher.detach()``; PODNet multiplies ``"unit"`` by the square root
        of all classes over the new ones, attention transfer weighs layers by 1000.

    Elsewhere:
        mdistiller ``AT``, torchdistill ``ATLoss``, PODNet ``embeddings_similarity``.

    Differs from:
        mdistiller, torchdistill ``ATLoss``: a mean over places of the squared difference. Ours is
            the norm, as in the paper's equation.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
        >>> round(feature_distillation_loss(x, y, kind="unit").item(), 4)
        1.4142
    """
    _check_options(kind, reduction)
    check_flags(detach_teacher=detach_teacher)
    check_floating(student_features=student_features)
    x, t = student_features, as_floats("teacher_features", teacher_features, student_features)
    check_tensors(student_features=x, teacher_features=t)
    places = 1 if kind == "attention" else 2
    if x.ndim < 4 - places or 0 in x.shape[1:]:
        wanted = "(N, C, ...), with a place" if kind == "attention" else "(N, D) or (N, C, ...)"
        raise ValueError(f"student_features: got shape {tuple(x.shape)}, wanted {wanted}")
    same = x.shape == t.shape
    if kind == "attention":
        same = t.ndim == x.ndim and x.shape[:1] + x.shape[2:] == t.shape[:1] + t.shape[2:]
    if not same or 0 in t.shape[1:]:
        raise ValueError(
            f"teacher_features: got shape {tuple(t.shape)}, wanted {tuple(x.shape)} as "
            "student_features has" + (", but for the channels" if kind == "attention" else "")
        )
    shape = (len(x), *x.shape[2:]) if kind == "cosine" else (len(x),)
    if weight is not None:
        weight = as_weight("weight", weight, x)
        check_tensors(student_features=x, weight=weight)
        if weight.shape != shape:
            raise ValueError(
                f"weight: got shape {tuple(weight.shape)}, wanted {shape}, one for each value"
            )
    t = (t.detach() if detach_teacher else t).to(wide(x.dtype))
    x, t = (_laid_out(f, kind, weight) for f in (x, t))
    flat = None if weight is None else weight.reshape(len(x), *x.shape[2:])
    loss = reduce(
        _COSINE if kind == "cosine" else _UNIT,
        x,
        t,
        weight=flat,
        count=lambda: count_of(x[:, 0], flat),
        reduction=reduction,
        term="feature_distillation",
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _laid_out(f: Tensor, kind: Kind, weight: Tensor | None) -> Tensor:
    """Rows, or positions of ``(N, C, S)``."""
    if kind == "cosine":
        return f if f.ndim == 2 else f.flatten(2)
    if kind == "unit":
        return f.flatten(1)
    f = widen(f).flatten(2)
    if weight is not None:
        f = f.masked_fill((weight == 0).view(-1, 1, 1), 0.0)
    return largest_1(f.flatten(1)).view(f.shape).square().sum(1)  # a map, up to a factor


def _cosine(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    apart = unit(x.movedim(1, -1)) - unit(t.movedim(1, -1))
    return apart.square().sum(-1) / 2


def _unit(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    return length(unit(x) - unit(t))


_COSINE, _UNIT = Formula(_cosine), Formula(_unit)


def _check_options(kind: str, reduction: Reduction) -> None:
    check_choice("kind", kind, ("cosine", "unit", "attention"))
    check_reduction(reduction)


class FeatureDistillationLoss(LossModule):
    """Module form of :func:`feature_distillation_loss`; same options, same defaults."""

    def __init__(
        self,
        kind: Kind = "cosine",
        detach_teacher: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(kind, reduction)
        check_flags(detach_teacher=detach_teacher)
        super().__init__(kind=kind, detach_teacher=detach_teacher, reduction=reduction)

    def forward(
        self,
        student_features: Tensor,
        teacher_features: Numbers,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``student_features`` against the teacher's."""
        return feature_distillation_loss(
            student_features, teacher_features, weight=weight, **self.options()
        )
