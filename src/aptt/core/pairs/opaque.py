"""The walk as one operator, which a compiler does not look into: so the chunks stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.pairs.formulas import KNOWN
from aptt.core.pairs.run import Pairs, Run
from aptt.core.pairs.sides import Sides

__all__ = ["compiled"]


def compiled(run: Run, pairs: Pairs, sides: Sides) -> Tensor:
    """The statistics, by an operator that the compiler does not look into."""
    found: Tensor = _rows(*pairs, *sides, run.chunk, run.name, run.many)
    return found


_CALL = (
    "Tensor x, Tensor y, Tensor scale, Tensor? bias, Tensor? target, Tensor? row_id, "
    "Tensor? column_id, Tensor? itself, Tensor? open, SymInt? chunk, str name, bool many"
)


@torch.library.custom_op("aptt::pair_rows", mutates_args=(), schema=f"({_CALL}) -> Tensor")
def _rows(*call: Any) -> Tensor:
    *tensors, chunk, name, many = call
    return Run(name, many, chunk).values(Pairs(*tensors[:4]), Sides(*tensors[4:]))


@_rows.register_fake
def _(*call: Any) -> Tensor:
    x: Tensor = call[0]
    return x.new_empty(KNOWN[call[-2]].count, x.shape[0])


@torch.library.custom_op(
    "aptt::pair_rows_backward",
    mutates_args=(),
    schema=f"({_CALL}, Tensor stats, Tensor up) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _rows_backward(*call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *tensors, chunk, name, many, stats, up = call
    pairs, sides = Pairs(*tensors[:4]), Sides(*tensors[4:])
    return Run(name, many, chunk).gradients(pairs, sides, stats, up)


@_rows_backward.register_fake
def _(*call: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y, scale = call[:3]
    return torch.empty_like(x), torch.empty_like(y), scale.new_empty(()), scale.new_empty(())


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.chunk, ctx.name, ctx.many = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, stats = ctx.saved_tensors
    call = (*tensors, ctx.chunk, ctx.name, ctx.many)
    every = _rows_backward(*call, stats, up.contiguous())
    wants = ctx.needs_input_grad[:4]
    return (*(g if want else None for g, want in zip(every, wants, strict=True)), *[None] * 8)


_rows.register_autograd(_differentiate, setup_context=_remember)
