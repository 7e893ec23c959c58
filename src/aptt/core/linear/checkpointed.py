"""By autograd alone: the logits of a chunk are multiplied out again for backward, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aptt.core.formula import Sides, widen
from aptt.core.linear.head import Head, chunk_of, slices
from aptt.core.linear.products import by_itself
from aptt.core.linear.run import Run
from aptt.core.ordinary import inside_functorch

__all__ = ["chunked", "plain"]


def plain(
    run: Run, head: Head, teacher: Head | None, weight: Tensor | None, sides: Sides
) -> Tensor:
    """A head in a half type is widened whole, so that its gradient is summed in float32."""

    def project(of: Head) -> Callable[[Tensor], Tensor]:
        w, b = of.weight.to(run.wide), None if of.bias is None else of.bias.to(run.wide)

        def logits(h: Tensor) -> Tensor:
            with by_itself(of):
                return F.linear(h.to(run.wide), w, b)

        return logits

    heads = [(of.hidden, project(of)) for of in (head, teacher) if of is not None]
    return run.gathered(chunked(run, heads, sides), weight)


def chunked(
    run: Run, heads: Sequence[tuple[Tensor, Callable[[Tensor], Tensor]]], sides: Sides
) -> Tensor:
    """The values; a chunk's logits are multiplied out again for backward, and not kept."""
    projects = [project for _, project in heads]

    def values(hidden: Sequence[Tensor], cut: Sides) -> Tensor:
        z, *taught = (widen(f(h)) for f, h in zip(projects, hidden, strict=True))
        cut = [t.to(z.dtype) if t is not None and t.is_floating_point() else t for t in cut]
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
