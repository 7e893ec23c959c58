"""The traced way: a formula inside ``torch.compile``, as one step that the compiler sees through.

Forward is the definition, backward is the formula's step. Left to itself, autograd would save
what the definition computes on the way, and a compiler would write some of it to memory; from the
two halves it makes two sets of fused kernels, with a few numbers a row between them.

``torch.func`` inside ``torch.compile`` differentiates the forward half and drops the other one,
which is why the forward half is the definition, and why the two must agree.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aptt.core.formula import Call, Sides

__all__ = ["traced"]


def traced(call: Call, x: Tensor, weight: Tensor | None, sides: Sides) -> Tensor:
    """The values, gathered; differentiable in ``x``."""
    names = tuple(name for name, option in call.options.items() if isinstance(option, Tensor))
    tensors = (call.options[name] for name in names)
    value: Tensor = _Traced.apply(call, names, x, weight, *sides, *tensors)
    return value


class _Traced(torch.autograd.Function):
    """Tensors among the options are arguments of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        names: tuple[str, ...],
        x: Tensor,
        weight: Tensor | None,
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.call, ctx.names, ctx.tensors = call, names, len(tensors)
        call, sides = _with_options(call, names, tensors)
        value, kept = call.defined(x, weight, sides)
        ctx.save_for_backward(x, weight, *tensors, *kept)
        return value

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        tensors, kept = rest[: ctx.tensors], tuple(rest[ctx.tensors :])
        call, sides = _with_options(ctx.call, ctx.names, tensors)
        _, dx = call.both(x, weight, weight is not None, sides, up, kept)
        return (None, None, dx.to(x.dtype), None, *(None for _ in tensors))


def _with_options(call: Call, names: tuple[str, ...], tensors: Sides) -> tuple[Call, Sides]:
    """The call with its tensors as this half of the step sees them, and the sides."""
    sides = tensors[: len(tensors) - len(names)]
    found = dict(zip(names, tensors[len(sides) :], strict=True))
    return replace(call, options={**call.options, **found}), sides
