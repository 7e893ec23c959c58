"""By autograd alone: the logits of a chunk are multiplied out again for backward, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aptt.core.formula import Sides
from aptt.core.linear.head import Head, chunk_of, slices
from aptt.core.linear.run import Run
from aptt.core.ordinary import inside_functorch
from aptt.core.precision import by_itself, widen

__all__ = ["Projection", "chunked", "plain", "projection"]

Projection = Callable[[Tensor], Tensor]
"""What makes logits ``(n, V)`` of hidden states ``(n, D)``."""


def plain(
    run: Run, head: Head, teacher: Head | None, weight: Tensor | None, sides: Sides
) -> Tensor:
    """The definition, by autograd on checkpointed chunks."""
    heads = [(of.hidden, projection(of, run.wide)) for of in (head, teacher) if of is not None]
    return run.gathered(chunked(run, heads, sides), weight)


def projection(of: Head, dtype: torch.dtype) -> Projection:
    """What makes the logits of a head; one in a half type is widened whole, for its gradient."""
    w, b = of.weight.to(dtype), None if of.bias is None else of.bias.to(dtype)

    def logits(h: Tensor) -> Tensor:
        with by_itself(of.hidden):
            return F.linear(h.to(dtype), w, b)

    return logits


def chunked(run: Run, heads: Sequence[tuple[Tensor, Projection]], sides: Sides) -> Tensor:
    """The values; a chunk's logits are multiplied out again for backward, and not kept."""
    projects = [project for _, project in heads]

    def values(hidden: Sequence[Tensor], cut: Sides) -> Tensor:
        z, *taught = (widen(f(h)) for f, h in zip(projects, hidden, strict=True))
        cut = [t.to(z.dtype) if t is not None and t.is_floating_point() else t for t in cut]
        for t in taught:
            if t.shape != z.shape:
                raise ValueError(
                    f"teacher_weight: its head has {t.shape[1]} classes, wanted {z.shape[1]} as "
                    "the student's has; cut both to the common vocabulary"
                )
        x, sides, formula = z * run.scale, [*taught, *cut], run.formula.formula
        kept = formula.measure(x, sides, run.options)
        return formula.define(x, kept, sides, run.options)

    hidden = [h for h, _ in heads]
    n, step = len(hidden[0]), run.chunk or chunk_of(hidden[0])
    if n <= step or inside_functorch():
        return values(hidden, sides)
    found = []
    for rows in slices(n, step):
        cut = [None if t is None else t[rows] for t in sides]
        some = [h[rows] for h in hidden]
        found.append(checkpoint(values, some, cut, use_reentrant=False))
    return torch.cat(found)
