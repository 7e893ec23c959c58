"""Relational distillation: a student's samples lie to each other as its teacher's do.

    d[i, j]     = ||x_i - x_j|| / mean of ||x_k - x_l|| over the pairs
    a[i, j, k]  = cos of the angle at j between x_i and x_k
    distance    = mean over pairs i != j of huber(d_s - d_t)
    angle       = mean over triples of three samples of huber(a_s - a_t)
    loss        = distance_weight * distance + angle_weight * angle

with the Huber loss of a width of 1. Spaces of any two widths can be compared: none is mapped.

Axes: embeddings ``(N, D)``, the teacher's with a D of its own.
From: Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torch.utils.checkpoint import checkpoint

from aptt.core.checks import (
    Numbers,
    as_floats,
    as_weight,
    check_chunk,
    check_flags,
    check_floating,
    check_number,
    check_tensors,
    check_weights,
)
from aptt.core.module import LossModule
from aptt.core.ordinary import inside_functorch, ordinary
from aptt.core.precision import wide, widen
from aptt.core.reduction import Reduction, check_reduction, named, normalize
from aptt.core.shapes import check_shapes
from aptt.core.transform import product
from aptt.core.vectors import length, unit

__all__ = [
    "RelationalDistillationLoss",
    "relational_distillation_loss",
    "relational_distillation_terms",
]


def relational_distillation_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Numbers,
    *,
    weight: Numbers | None = None,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    detach_teacher: bool = True,
    chunk: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """RKD: distances of samples, and angles between them, as the teacher has them.

        loss = distance_weight * mean huber(d_s - d_t) + angle_weight * mean huber(a_s - a_t)

    Args:
        student_embeddings: ``(N, D)``, any floating dtype.
        teacher_embeddings: ``(N, E)`` of the same samples.
        weight: ``(N,)``; a pair weighs the product of its two, a triple of its three, and it is
            counted. 0 removes a sample.
        distance_weight: what the distances weigh.
        angle_weight: what the angles weigh; 0 leaves out their N**3 numbers.
        detach_teacher: False: the gradient goes to the teacher too, where it asks for one.
        chunk: how many samples are compared with all others at once; None: as memory allows.
        reduction: ``"mean"`` over pairs and over triples, ``"sum"``, or a callable
            ``(total, count, *, term)``, which is called for ``"distance"`` and for ``"angle"``.

    Returns:
        The loss, at least 0, a scalar. float32 for half types.

    Raises:
        ValueError: shapes that differ, options out of range, ``reduction="none"``.

    The gradient goes to ``student_embeddings``, and to a teacher that is not detached; between two
    samples in one place there is none. One sample, or samples that are all in one place, have no
    relations: the loss is 0, or what the teacher's are worth. It is the same where either side is
    turned, moved, or multiplied by a number.

    A pair belongs to the whole batch: over micro-batches, and over ranks, it is that of smaller
    batches.

    Use when:
        Embeddings are learned for retrieval, and the student's are narrower than the teacher's.

    Elsewhere:
        mdistiller ``RKD``, torchdistill ``RKDLoss``, pytorch-metric-learning has none.

    Differs from:
        mdistiller, torchdistill: means over N**2 pairs and N**3 triples count samples against
            themselves; ours are N / (N - 1), and more, as large. A batch in one place is NaN there,
            a pair in one place has a gradient of up to 5e5.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[0.0], [1.0], [3.0]])
        >>> student = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> loss = relational_distillation_loss(student, teacher, distance_weight=1.0)
        >>> round(loss.item(), 5)  # of 0.75, 0.75, 1.5 against 0.5, 1, 1.5
        0.02083
    """
    check_number("distance_weight", distance_weight)
    check_number("angle_weight", angle_weight)
    rows = _rows(student_embeddings, teacher_embeddings, weight, detach_teacher, chunk, reduction)
    loss = distance_weight * _term("distance", rows, reduction)
    return loss + angle_weight * _term("angle", rows, reduction) if angle_weight else loss


def relational_distillation_terms(
    student_embeddings: Tensor,
    teacher_embeddings: Numbers,
    *,
    weight: Numbers | None = None,
    detach_teacher: bool = True,
    chunk: int | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`relational_distillation_loss` by name, without their weights.

        distance = mean huber(d_s - d_t)        angle = mean huber(a_s - a_t)

    Args are those of :func:`relational_distillation_loss`.

    Returns:
        ``{"distance": ..., "angle": ...}``.

    Use when:
        Each term is to be logged, or weighted by something that changes.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[0.0], [1.0], [3.0]])
        >>> terms = relational_distillation_terms(torch.eye(3), teacher)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'distance': 0.0833, 'angle': 0.4167}
    """
    rows = _rows(student_embeddings, teacher_embeddings, weight, detach_teacher, chunk, reduction)
    return {name: _term(name, rows, reduction) for name in ("distance", "angle")}


class _Rows(NamedTuple):
    """Both sides, and what each sample weighs."""

    x: Tensor
    t: Tensor
    w: Tensor
    chunk: int | None


def _rows(
    student: Tensor,
    teacher: Numbers,
    weight: Numbers | None,
    detach: bool,
    chunk: int | None,
    reduction: Reduction,
) -> _Rows:
    check_reduction(reduction, none=False)
    check_flags(detach_teacher=detach)
    check_chunk(chunk)
    check_floating(student_embeddings=student)
    given = as_floats("teacher_embeddings", teacher, student)
    check_tensors(student_embeddings=student, teacher_embeddings=given)
    check_shapes(student_embeddings=(student, "N D"))
    for name, rows in (("student_embeddings", student), ("teacher_embeddings", given)):
        if rows.ndim != 2 or len(rows) != len(student) or 0 in rows.shape[1:]:
            raise ValueError(
                f"{name}: got shape {tuple(rows.shape)}, wanted ({len(student)}, D), one embedding "
                "a row of student_embeddings"
            )
    given = given.detach() if detach else given
    x, t = widen(student), given.to(wide(student.dtype))
    if weight is None:
        return _Rows(x, t, x.new_ones(len(x)), chunk)
    weight = as_weight("weight", weight, student)
    check_tensors(student_embeddings=student, weight=weight)
    if weight.shape != (len(x),):
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, wanted ({len(x)},)")
    check_weights(weight=weight)
    gone = (weight == 0).unsqueeze(1)
    return _Rows(x.masked_fill(gone, 0.0), t.masked_fill(gone, 0.0), weight.to(x.dtype), chunk)


def _term(name: str, rows: _Rows, reduction: Reduction) -> Tensor:
    x, t, w, _ = rows
    apart = 1 - torch.eye(len(w), dtype=w.dtype, device=w.device)
    pairs = w * apart  # what beside a sample each other weighs
    if name == "distance":
        count = (w * pairs.sum(1)).sum()
        found = [_by_rows(_distances, rows, (z,), z) for z in (x, t)]
        means = [(w * (d * pairs).sum(1)).sum() / _or_1(count) for d in found]
        d_s, d_t = (d / _or_1(mean) for d, mean in zip(found, means, strict=True))
        total = (w * (_huber(d_s, d_t) * pairs).sum(1)).sum()
    else:  # what a corner's two others weigh together, unless they are one
        count = (w * (pairs * product(pairs, apart)).sum(1)).sum()
        total = (w * _by_rows(_angles, rows, (x, t, pairs), x, t, apart)).sum()
    return normalize(total, count, named(reduction, name), term=name, splits=False)


def _or_1(number: Tensor) -> Tensor:
    return torch.where(number == 0, 1.0, number)


def _huber(a: Tensor, b: Tensor) -> Tensor:
    return smooth_l1_loss(a, b, reduction="none")


def _distances(some: Tensor, x: Tensor) -> Tensor:
    return length(some.unsqueeze(1) - x)


def _angles(
    some: Tensor, taught: Tensor, pairs: Tensor, x: Tensor, t: Tensor, apart: Tensor
) -> Tensor:
    """For each of some corners the cost of all pairs of others, by their weights."""
    a_s, a_t = _cosines(some, x), _cosines(taught, t)
    cost = _huber(a_s, a_t) * apart
    return ((cost * pairs.unsqueeze(1)).sum(2) * pairs).sum(1)


def _cosines(corners: Tensor, x: Tensor) -> Tensor:
    sides = unit(x - corners.unsqueeze(1))
    return product(sides, sides.mT)


def _by_rows(
    function: Callable[..., Tensor], rows: _Rows, cut: tuple[Tensor, ...], *whole: Tensor
) -> Tensor:
    """What a function says of some rows beside the whole, a chunk of them after the other."""
    n = len(rows.x)
    numbers = max(n * max(n, rows.x.shape[1], rows.t.shape[1]), 1)
    step = rows.chunk or max(_NUMBERS // numbers, 1)
    plain = torch.compiler.is_compiling() or inside_functorch() or not ordinary(rows.x)
    if plain or n <= step:
        return function(*cut, *whole)
    found = [
        checkpoint(function, *(t[i : i + step] for t in cut), *whole, use_reentrant=False)
        for i in range(0, n, step)
    ]
    return torch.cat(found)


_NUMBERS = 2**22  # of a chunk


class RelationalDistillationLoss(LossModule):
    """Module form of :func:`relational_distillation_loss`; same options, same defaults."""

    terms_function = staticmethod(relational_distillation_terms)

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        detach_teacher: bool = True,
        chunk: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_number("distance_weight", distance_weight)
        check_number("angle_weight", angle_weight)
        check_flags(detach_teacher=detach_teacher)
        check_chunk(chunk)
        check_reduction(reduction, none=False)
        super().__init__(
            distance_weight=distance_weight,
            angle_weight=angle_weight,
            detach_teacher=detach_teacher,
            chunk=chunk,
            reduction=reduction,
        )

    def forward(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Numbers,
        *,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``student_embeddings`` against the teacher's."""
        return relational_distillation_loss(
            student_embeddings, teacher_embeddings, weight=weight, **self.options()
        )
