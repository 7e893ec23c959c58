"""Student, teacher and targets, held to each other and laid out as rows or positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.axes import check_several, class_axis, indexed_axis, split_axis, without_axis
from aptt.core.checks import (
    Numbers,
    as_tensor,
    check_classes,
    check_floating,
    check_range,
    check_tensors,
    taken_classes,
)
from aptt.core.ordinary import is_readable
from aptt.core.precision import widen

__all__ = ["Student", "check_told", "student_rows", "teacher_rows"]


class Student(NamedTuple):
    """The student's logits, and what is known of each row beside them."""

    x: Tensor
    y: Tensor | None
    keep: Tensor | None
    axis: int
    shape: tuple[int, ...]


def student_rows(
    logits: Tensor,
    target: Numbers | None,
    ignore_index: int | None,
    class_dim: int | None,
    *,
    name: str = "hard_targets",
) -> Student:
    """The logits as rows or positions, with targets that are class indices or nothing."""
    if target is None:
        if ignore_index not in (-100, None):
            raise ValueError(f"ignore_index: got {ignore_index} without {name} to look in")
        axis = class_axis(logits, class_dim)
    else:
        target = as_tensor(name, target, logits)
        axis = indexed_axis(logits, target, class_dim, names=("student_logits", name))
    check_several("student_logits", logits, axis, cure=_SECOND_LOGIT)
    rows = logits.stride(axis) == 1 or axis == logits.ndim - 1
    x, shape = split_axis(logits, axis, rows=rows), without_axis(logits, axis)
    if target is None:
        return Student(x, None, None, axis, shape)
    y = target.reshape(len(x), *x.shape[2:])
    y, keep = taken_classes(y, x.shape[1], ignore_index, name=name)
    return Student(x, y, keep, axis, shape)


def teacher_rows(
    student: Tensor,
    teacher: Tensor,
    indices: Tensor | None,
    axis: int,
    x: Tensor,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The teacher laid out as the student is, and the classes it speaks of, None for all."""
    check_tensors(student_logits=student, teacher_logits=teacher)
    check_floating(teacher_logits=teacher)
    fits = teacher.ndim == student.ndim and without_axis(teacher, axis) == without_axis(
        student, axis
    )
    classes, ours = teacher.shape[axis] if fits else 0, student.shape[axis]
    if not fits or (classes != ours if indices is None else not 1 <= classes <= ours):
        vocabularies = fits and indices is None
        raise ValueError(
            f"teacher_logits: got {tuple(teacher.shape)} for student_logits "
            f"{tuple(student.shape)}, wanted "
            + ("the same shape" if indices is None else "1 to as many log-probabilities a position")
            + (_CUT if vocabularies else "")
        )
    t = split_axis(teacher, axis, rows=x.ndim == 2)
    if indices is None:
        return t, None
    check_tensors(teacher_logits=teacher, teacher_indices=indices)
    if indices.shape != teacher.shape or indices.is_floating_point():
        raise ValueError(
            f"teacher_indices: got {indices.dtype} of shape {tuple(indices.shape)}, wanted class "
            f"indices of the shape of teacher_logits, {tuple(teacher.shape)}"
        )
    chosen = split_axis(indices, axis, rows=x.ndim == 2)
    if keep is not None:
        chosen = torch.where(keep.unsqueeze(1), chosen, 0)
    check_classes(chosen, ours, None, name="teacher_indices")
    check_told(t, chosen, keep)
    return t, chosen


_CUT = (
    "; cut both to the classes that they share, as logits[..., :n]. A class padded with -inf, to "
    "which the other model gives mass, would be infinitely far off"
)
_SECOND_LOGIT = (
    "models that answer yes or no take a second logit of 0: torch.cat((x, torch.zeros_like(x)), -1)"
)


def check_told(log_p: Tensor, indices: Tensor, keep: Tensor | None) -> None:
    """Refuse log-probabilities that are none, and a class named twice; in eager mode on CPU."""
    mass = widen(log_p.detach()).exp().sum(1)
    check_range(mass, 0.0, _WHOLE, keep=keep, name=_MASS)
    if not is_readable(indices):
        return
    ordered = indices.sort(1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (True if keep is None else keep.unsqueeze(1))
    if bool(twice.any()):
        raise ValueError(
            f"teacher_indices: got class {ordered[:, 1:][twice][0].item()} twice in one position, "
            "wanted different ones; pad with classes that are not among the others, at -inf"
        )


_WHOLE = 1.01  # a sum of probabilities, stored in half precision and cast
_MASS = "teacher_logits, the sum of exp of what should be log-probabilities"
