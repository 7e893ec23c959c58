"""The walks as one operator, which a compiler does not look into: so the chunks stay.

An operator takes tensors, numbers and text: a call is spelt out in text with a mark for each
number, for a number may be a symbol of the graph, which then stands for others too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aptt.core.formula import Sides
from aptt.core.linear.head import Head
from aptt.core.linear.run import KNOWN, Run
from aptt.core.vocabulary import Form

__all__ = ["compiled"]


def compiled(run: Run, head: Head, teacher: Head | None, sides: Sides) -> Tensor:
    """The values, by an operator that the compiler does not look into."""
    tensors = {k: v for k, v in run.options.items() if isinstance(v, Tensor)}
    rest = {
        k: tuple(v) if isinstance(v, Form) else v
        for k, v in run.options.items()
        if k not in tensors
    }
    more = [*(teacher or (None,) * 3), *sides, *tensors.values()]
    there = tuple(t is not None for t in more)
    numbers: list[float] = []
    plain = _without_numbers((run.scale, tuple(rest.items())), numbers)
    call = repr((run.formula.name, plain, tuple(tensors), there, str(run.product)))
    return _rows(*head, [t for t in more if t is not None], numbers, run.chunk, call)


_NUMBER = "#"


def _without_numbers(value: Any, numbers: list[float]) -> Any:
    """A mark for each number, which is put aside: it may be a symbol, and stand for others too."""
    if isinstance(value, tuple):
        return tuple(_without_numbers(v, numbers) for v in value)
    if value is None or isinstance(value, str | bool):
        return value
    numbers.append(float(value))
    return _NUMBER


def _with_numbers(value: Any, numbers: Iterator[float]) -> Any:
    if isinstance(value, tuple):
        return tuple(_with_numbers(v, numbers) for v in value)
    return next(numbers) if value == _NUMBER else value


def _decoded(
    more: Sequence[Tensor], numbers: Sequence[float], chunk: int | None, call: str
) -> tuple[Run, Head | None, Sides]:
    name, plain, tensors, there, product = ast.literal_eval(call)
    scale, rest = _with_numbers(plain, iter(numbers))
    options = dict(rest)
    if "form" in options:
        options["form"] = Form(*options["form"])
    given = iter(more)
    every = [next(given) if is_there else None for is_there in there]
    taught, sides = every[:3], every[3 : len(every) - len(tensors)]
    options |= dict(zip(tensors, every[len(every) - len(tensors) :], strict=True))
    dtype = getattr(torch, product.removeprefix("torch."))
    teacher = None if taught[0] is None else Head._make(taught)
    return Run(KNOWN[name], options, scale, chunk, "values", dtype), teacher, sides


_CALL = "Tensor hidden, Tensor weight, Tensor? bias, Tensor[] more, float[] numbers, SymInt? chunk"


@torch.library.custom_op(
    "aptt::linear_rows", mutates_args=(), schema=f"({_CALL}, str call) -> Tensor"
)
def _rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> Tensor:
    run, teacher, sides = _decoded(more, *call)
    return run.values(Head(hidden, weight, bias), teacher, sides)


@_rows.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> Tensor:
    return _decoded(more, *call)[0].room(Head(hidden, weight, bias))


@torch.library.custom_op(
    "aptt::linear_rows_backward",
    mutates_args=(),
    schema=f"({_CALL}, str call, Tensor up, bool[] wants) -> Tensor[]",
)
def _rows_backward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> list[Tensor]:
    *numbers, up, wants = call
    run, teacher, sides = _decoded(more, *numbers)
    head = Head(hidden, weight, bias)
    grads = run.gradients(head, teacher, sides, up, wants)
    return [
        g.to(t.dtype) for g, t in zip(grads, head, strict=True) if g is not None and t is not None
    ]


@_rows_backward.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, more: Sequence[Tensor], *call: Any
) -> list[Tensor]:
    head, wants = (hidden, weight, bias), call[-1]
    return [
        torch.empty_like(t) for t, want in zip(head, wants, strict=True) if want and t is not None
    ]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden, weight, bias, more, *ctx.call = inputs
    ctx.save_for_backward(hidden, weight, bias, *more)


def _differentiate(ctx: Any, up: Tensor) -> tuple[Any, ...]:
    hidden, weight, bias, *more = ctx.saved_tensors
    wants = list(ctx.needs_input_grad[:3])
    found = iter(_rows_backward(hidden, weight, bias, more, *ctx.call, up.contiguous(), wants))
    grads = [next(found) if want else None for want in wants]
    return (*grads, [None] * len(more), *(None for _ in ctx.call))


_rows.register_autograd(_differentiate, setup_context=_remember)
