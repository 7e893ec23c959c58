"""The one choice: how a formula on the logits of a head is evaluated."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.engine import against_step, asks, note, obstacle
from aptt.core.linear.checkpointed import Projection, chunked, plain
from aptt.core.linear.head import Head, chunk_of
from aptt.core.linear.opaque import compiled
from aptt.core.linear.products import dtype_of_products
from aptt.core.linear.run import HeadFormula, Run
from aptt.core.linear.walk import walked
from aptt.core.ordinary import bare, ordinary

__all__ = ["evaluate_linear", "evaluate_projected"]


def evaluate_linear(
    formula: HeadFormula,
    head: Head,
    *sides: Tensor | None,
    gather: Literal["values", "total"],
    weight: Tensor | None = None,
    teacher: Head | None = None,
    scale: float,
    chunk: int | None,
    **options: Any,
) -> Tensor:
    """The formula's values on the logits of ``head``, one for each row, or their sum.

    ``sides`` are cut with the rows; with a ``teacher``, its logits come before them, and get a
    gradient only by the plain way. ``weight`` is ``(N,)``, finite, and multiplies the values.
    ``chunk`` is a number of rows. The result is float32, or float64 where an input is.
    """
    head, sides = Head(*map(bare, head)), (*map(bare, sides),)
    teacher = None if teacher is None else Head(*map(bare, teacher))
    run = Run(formula, options, scale, chunk, gather, dtype_of_products(head))
    others = (weight, *(teacher or ()), *sides, scale, *options.values())
    if torch.compiler.is_compiling():
        if against_step(head.hidden, others) is None:
            return run.gathered(compiled(run, head, teacher, sides), weight)
        return plain(run, head, teacher, weight, sides)
    reason = obstacle(head.hidden, others)
    if not all(ordinary(t) for t in head if t is not None):
        reason = "the head is not an ordinary tensor with values"
    chunks = -(-len(head.hidden) // (chunk or chunk_of(head.hidden)))
    note(head.hidden, reason, against_step(head.hidden, others), chunks)
    if reason is None:
        if torch.is_grad_enabled() and asks(head):
            return walked(run, head, teacher, weight, sides)
        return run.gathered(run.values(head, teacher, sides), weight)
    return plain(run, head, teacher, weight, sides)


def evaluate_projected(
    formula: HeadFormula,
    hidden: Tensor,
    project: Projection,
    *sides: Tensor | None,
    gather: Literal["values", "total"],
    weight: Tensor | None = None,
    teacher: tuple[Tensor, Projection] | None = None,
    scale: float,
    chunk: int | None,
    **options: Any,
) -> Tensor:
    """As :func:`evaluate_linear`, where ``project`` makes the logits of a chunk: by autograd."""
    run = Run(formula, options, scale, chunk, gather, hidden.dtype)
    heads = [(hidden, project)] if teacher is None else [(hidden, project), teacher]
    return run.gathered(chunked(run, heads, sides), weight)
