"""The tokens in front of both heads: held to each other, and those chosen that count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aptt.core.axes import indexed_axis
from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_chunk,
    check_classes,
    check_tensors,
    check_weights,
    taken_classes,
)
from aptt.core.distillation import check_spread
from aptt.core.engine import obstacle
from aptt.core.linear import (
    HeadFormula,
    Projection,
    evaluate_linear,
    evaluate_projected,
    projection,
)
from aptt.core.linear.tokens import check_per_class
from aptt.core.precision import widen
from aptt.core.reduction import Count
from aptt.core.shapes import check_sample_weight
from aptt.loss.classification.prepared import counted
from aptt.loss.distill.rows import check_told
from aptt.loss.linear_distill.teacher import Of, Teacher, teaching

__all__ = ["Tokens", "tokens_of_both"]


class Tokens(NamedTuple):
    """The tokens that count, and what is known of each."""

    student: Of
    teacher: Of | None
    told: tuple[Tensor, ...]
    """The teacher's stored logits, where it has no head."""
    classes: Tensor | None
    """Which classes they are of."""
    y: Tensor | None
    """Class indices, or a share for each class."""
    class_weight: Tensor | None
    rows: Tensor | None
    chosen: Tensor | None
    shape: tuple[int, ...]
    counted: Count
    """How many tokens there are, by their weights."""

    @property
    def soft(self) -> bool:
        """Whether the hard targets are shares."""
        return self.y is not None and self.y.is_floating_point()

    def counted_hard(self, dtype: torch.dtype) -> Count:
        """What the mean of the cross-entropy divides by."""
        assert self.y is not None
        if not self.soft and self.class_weight is None:
            return self.counted
        return counted(self.y, self.class_weight, self.rows, soft=self.soft, dtype=dtype)

    def evaluate(
        self,
        formula: HeadFormula,
        y: Tensor | None,
        *,
        gather: Literal["values", "total"],
        weight: Tensor | None,
        **how: Any,
    ) -> Tensor:
        """A formula on the logits of both, whatever makes them."""
        how |= {"gather": gather, "weight": weight}
        sides = (*self.told, y, self.classes)
        student, teacher = self.student, self.teacher
        head, taught = student.as_head(), None if teacher is None else teacher.as_head()
        if head is not None and (teacher is None or taught is not None):
            return evaluate_linear(formula, head, *sides, teacher=taught, **how)
        project = _projects("weight", student, self._check)
        pair = None
        if teacher is not None:
            pair = teacher.hidden, _projects("teacher_weight", teacher, self._check)
        return evaluate_projected(formula, student.hidden, project, *sides, teacher=pair, **how)

    def _check(self, classes: int) -> None:
        """Hold what is known of the classes to how many a callable head has."""
        check_per_class("class_weight", self.class_weight, classes, self.student.hidden)
        if self.y is not None and not self.soft:
            check_classes(self.y, classes, None, name="hard_targets")
        elif self.y is not None and self.y.shape[1] != classes:
            raise ValueError(
                f"hard_targets: got {self.y.shape[1]} shares a token, wanted {classes}"
            )
        if self.classes is not None:
            check_classes(self.classes, classes, None, name="teacher_indices")
        elif self.told and self.told[0].shape[1] != classes:
            raise ValueError(
                f"teacher_logits: got {self.told[0].shape[1]} classes, wanted {classes} as the "
                "student has"
            )


def _projects(name: str, of: Of, check: Callable[[int], None]) -> Projection:
    """What makes logits, which are held to the hidden states and to the targets."""
    if (plain := of.as_head()) is not None:
        return projection(plain, widen(plain.hidden[:0]).dtype)
    assert not isinstance(of.weight, Tensor)
    head = of.weight

    def project(hidden: Tensor) -> Tensor:
        z = head(hidden)
        if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(hidden):
            came = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"{name}: the callable gave {came} for hidden states {tuple(hidden.shape)}, "
                f"wanted logits ({len(hidden)}, V)"
            )
        check(z.shape[1])
        return z

    return project


def tokens_of_both(
    student: Of,
    teacher: Teacher,
    hard_targets: Numbers | None,
    sample_weight: Numbers | None,
    class_weight: Numbers | None,
    ignore_index: int | None,
    *,
    chunk: int | None,
    detach_teacher: bool,
    drop_ignored: bool,
    standardize: bool,
) -> Tokens:
    """The tokens that count, one after the other, of both heads."""
    check_chunk(chunk)
    hidden, weight = student.hidden, student.weight
    shape, taught, told, classes = teaching(student, teacher, detach=detach_teacher)
    known = len(weight) if isinstance(weight, Tensor) else None
    if standardize:
        check_spread("weight", known, teacher.indices)
    y, rows = _targets(hidden, hard_targets, shape, known, ignore_index)
    class_weight = check_per_class("class_weight", class_weight, known, hidden)
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, shape, hidden=hidden)
        sample_weight = sample_weight.reshape(-1).to(widen(hidden[:0]).dtype)
        rows = sample_weight if rows is None else torch.where(rows, sample_weight, 0.0)
        check_weights(sample_weight=rows)
    n = math.prod(shape)
    count: Count = n if rows is None else rows.sum()
    # hidden states of both, what the teacher has said, and of which classes
    given = (hidden, taught and taught.hidden, told, classes)
    flat = [None if t is None else t.reshape(n, t.shape[-1]) for t in given]
    chosen = None
    drops = drop_ignored and not torch.compiler.is_compiling() and obstacle(hidden) is None
    if rows is not None and drops:
        chosen = rows.nonzero().squeeze(1)
        flat = [None if t is None else t[chosen] for t in flat]
        y, rows = None if y is None else y[chosen], rows[chosen]
    elif rows is not None:
        keep = (rows != 0).unsqueeze(1)
        y = torch.where(keep, y, 0.0) if y is not None and y.is_floating_point() else y
        flat = [None if t is None else torch.where(keep, t, 0) for t in flat]
    states, of_teacher, told, classes = flat
    if told is not None and classes is not None:
        if isinstance(weight, Tensor):
            check_classes(classes, len(weight), None, name="teacher_indices")
        check_told(told, classes, None if rows is None else rows != 0)
    rows = None if rows is None else rows.to(widen(hidden[:0]).dtype)
    assert states is not None
    if taught is not None and of_teacher is not None:
        taught = taught._replace(hidden=of_teacher)
    there = () if told is None else (told,)
    student = student._replace(hidden=states)
    return Tokens(student, taught, there, classes, y, class_weight, rows, chosen, shape, count)


def _targets(
    hidden: Tensor,
    targets: Numbers | None,
    shape: tuple[int, ...],
    classes: int | None,
    ignore_index: int | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Class indices or shares, a token after the other, and which of them count."""
    if targets is None:
        if ignore_index not in (-100, None):
            raise ValueError(f"ignore_index: got {ignore_index} without hard_targets to look in")
        return None, None
    y = as_tensor("hard_targets", targets, hidden)
    if not y.is_floating_point() or y.ndim != len(shape) + 1:
        indexed_axis(hidden, y, -1, names=("hidden", "hard_targets"))
        return taken_classes(y.reshape(-1), classes, ignore_index, name="hard_targets")
    check_tensors(hidden=hidden, hard_targets=y)
    if y.shape[:-1] != shape or y.shape[-1] != (y.shape[-1] if classes is None else classes):
        raise ValueError(
            f"hard_targets: got shape {tuple(y.shape)}, wanted class indices {shape}, or shares "
            f"{(*shape, 'V' if classes is None else classes)}"
        )
    if ignore_index not in (-100, None):
        raise ValueError(f"ignore_index: got {ignore_index} with soft targets, which have none")
    y = y.reshape(math.prod(shape), y.shape[-1])
    return (y.to(widen(hidden[:0]).dtype) if y.requires_grad else y), None
