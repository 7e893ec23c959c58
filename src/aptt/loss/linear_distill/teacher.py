"""What speaks for the teacher: a head with its hidden states, or logits that were stored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_floating, check_tensors
from aptt.core.distillation import check_head, check_heads
from aptt.core.linear import Head, Projection

__all__ = ["Of", "Taught", "Teacher", "teaching"]


class Of(NamedTuple):
    """The student's hidden states, and what makes logits of them."""

    hidden: Tensor
    weight: Tensor | Projection
    bias: Tensor | None

    def as_head(self) -> Head | None:
        """The head, unless it is a callable."""
        return (
            Head(self.hidden, self.weight, self.bias) if isinstance(self.weight, Tensor) else None
        )


class Teacher(NamedTuple):
    """What speaks for the teacher: a head with its hidden states, or what it said once."""

    hidden: Tensor | None
    weight: Tensor | Projection | None
    bias: Tensor | None
    logits: Numbers | None
    indices: Numbers | None


class Taught(NamedTuple):
    """A teacher that fits its student."""

    shape: tuple[int, ...]
    """That of the tokens."""
    head: Of | None
    told: Tensor | None
    """What it said once."""
    classes: Tensor | None
    """And of which classes; None: of all."""


def teaching(student: Of, teacher: Teacher, *, detach: bool) -> Taught:
    """The teacher held to the student, and without a gradient if it is to ``detach``."""
    if teacher.logits is None:
        if teacher.hidden is None or teacher.weight is None:
            missing = "teacher_hidden" if teacher.hidden is None else "teacher_weight"
            raise ValueError(
                f"{missing}: got None, wanted the teacher's hidden states and head, or "
                "teacher_logits that were stored"
            )
        if teacher.indices is not None:
            raise ValueError("teacher_indices: got some without the teacher_logits they are for")
        shape = check_heads(*student, teacher.hidden, teacher.weight, teacher.bias)
        head = Of(teacher.hidden, teacher.weight, teacher.bias)
        return Taught(shape, _frozen(head) if detach else head, None, None)
    for name in ("hidden", "weight", "bias"):
        if getattr(teacher, name) is not None:
            raise ValueError(f"teacher_{name}: got some with teacher_logits, which need no head")
    shape = check_head("", *student)
    told = as_tensor("teacher_logits", teacher.logits, student.hidden)
    check_tensors(hidden=student.hidden, teacher_logits=told)
    check_floating(teacher_logits=told)
    known = len(student.weight) if isinstance(student.weight, Tensor) else None
    wanted = "(..., V)" if teacher.indices is None else "(..., k), k of the V classes"
    width = told.shape[-1] if told.ndim else 0
    fits = width == known if teacher.indices is None else width <= (known or width)
    if told.shape[:-1] != shape or told.ndim == 0 or width == 0 or not (fits or known is None):
        raise ValueError(
            f"teacher_logits: got shape {tuple(told.shape)} for tokens {shape}"
            f"{'' if known is None else f' and {known} classes'}, wanted {wanted}"
        )
    told, classes = told.detach() if detach else told, None
    if teacher.indices is not None:
        classes = as_tensor("teacher_indices", teacher.indices, student.hidden)
        check_tensors(hidden=student.hidden, teacher_indices=classes)
        if classes.shape != told.shape or classes.is_floating_point():
            raise ValueError(
                f"teacher_indices: got {classes.dtype} of shape {tuple(classes.shape)}, wanted "
                f"class indices of the shape of teacher_logits, {tuple(told.shape)}"
            )
    return Taught(shape, None, told, classes)


def _frozen(of: Of) -> Of:
    """A teacher that gets no gradient."""
    if not isinstance(of.weight, Tensor):
        return Of(of.hidden.detach(), _without_gradient(of.weight), None)
    bias = None if of.bias is None else of.bias.detach()
    return Of(of.hidden.detach(), of.weight.detach(), bias)


def _without_gradient(head: Projection) -> Projection:
    def project(hidden: Tensor) -> Tensor:
        with torch.no_grad():
            return head(hidden)

    return project
