"""The walk over pairs as one differentiable step, and which way a call takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.engine import against_step, asks, note, obstacle
from aptt.core.ordinary import batched, ordinary
from aptt.core.pairs.formulas import KNOWN, PairFormula
from aptt.core.pairs.opaque import compiled
from aptt.core.pairs.run import Pairs, Run
from aptt.core.pairs.sides import Sides

__all__ = ["evaluate_pairs"]


def evaluate_pairs(
    formula: PairFormula,
    x: Tensor,
    y: Tensor,
    sides: Sides,
    *,
    scale: Tensor,
    bias: Tensor | None = None,
    many: bool | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The statistics of a formula, ``(K, N)``; differentiable in x, y, scale and bias.

    x ``(N, D)`` and y ``(M, D)`` are of one dtype, float32 or wider; scale and bias are 0-d, and
    ``chunk`` is a number of rows.
    """
    name = next(key for key, known in KNOWN.items() if known is formula)
    run = Run(name, formula.many if many is None else many, chunk)
    pairs = Pairs(x, y, scale, bias)
    if x.shape[0] == 0 or y.shape[0] == 0:
        nothing = (x.sum() + y.sum()) * scale * 0.0
        nothing = nothing if bias is None else nothing + bias * 0.0
        return nothing.expand(formula.count, len(x))
    tensors = [t for t in pairs if t is not None]
    if torch.compiler.is_compiling():
        if against_step(x, ()) is None:
            return compiled(run, pairs, sides)
        return run.plain(pairs, sides)
    reason = next((why for t in tensors if (why := obstacle(t))), None)
    if not all(ordinary(t) for t in sides if t is not None):
        reason = "a side is not an ordinary tensor with values"
    note(x, reason, against_step(x, ()), -(-len(x) // run.step(pairs)))
    if reason is not None:
        return run.plain(pairs, sides)
    if torch.is_grad_enabled() and asks(pairs):
        found: Tensor = _Walk.apply(run, *pairs, *sides)
        return found
    return run.values(pairs, sides)


class _Walk(torch.autograd.Function):
    """The walk there and back as one differentiable step."""

    @staticmethod
    def forward(ctx: Any, run: Run, *tensors: Tensor | None) -> Tensor:
        stats = run.values(Pairs._make(tensors[:4]), Sides._make(tensors[4:]))
        ctx.run = run
        ctx.save_for_backward(*tensors, stats)
        return stats

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, stats = ctx.saved_tensors
        pairs, sides = Pairs(*tensors[:4]), Sides(*tensors[4:])
        wants = ctx.needs_input_grad[1:5]
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            found = _again(ctx.run, pairs, sides, wants, up)
        else:
            every = ctx.run.gradients(pairs, sides, stats, up)
            found = [g if want else None for g, want in zip(every, wants, strict=True)]
        return (None, *found, *(None for _ in sides))


def _again(
    run: Run, pairs: Pairs, sides: Sides, wants: tuple[bool, ...], up: Tensor
) -> list[Tensor | None]:
    """The gradients by autograd through the definition, differentiable once more."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():  # a tensor may be both x and y, and is told apart by a view
        pairs = Pairs._make(None if t is None else t.view_as(t) for t in pairs)
        value = run.plain(pairs, sides)
    wanted = [t for t, want in zip(pairs, wants, strict=True) if want and t is not None]
    found = iter(torch.autograd.grad(value, wanted, up, create_graph=again))
    return [next(found) if want else None for want in wants]
