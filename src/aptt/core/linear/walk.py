"""The walks as one differentiable step, which gives a gradient of the head alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aptt.core.formula import Sides
from aptt.core.linear.checkpointed import plain
from aptt.core.linear.head import Gradients, Head, Wants
from aptt.core.linear.run import Run
from aptt.core.ordinary import bare, batched
from aptt.core.precision import by_itself

__all__ = ["walked"]


def walked(
    run: Run, head: Head, teacher: Head | None, weight: Tensor | None, sides: Sides
) -> Tensor:
    """What a run gathers, with the gradients of the head."""
    tensors = (*head, *(teacher or (None,) * 3), weight, *sides)
    found: Tensor = _Walk.apply(run, *map(bare, tensors))
    return found


class _Walk(torch.autograd.Function):
    """The walks as one differentiable step."""

    @staticmethod
    def forward(ctx: Any, run: Run, *tensors: Tensor | None) -> Tensor:
        head, teacher, weight, sides = _sorted(tensors)
        wants = ctx.needs_input_grad[1:4]
        ctx.run, ctx.ahead = run, None
        kept: tuple[Tensor, ...] = ()
        with by_itself(head.hidden):
            if cut := run.by_vocabulary(head, sides):
                stats = cut.count(head)
                values, kept = cut.values(stats), tuple(t for t in stats if t is not None)
            else:
                values, up = run.room(head), None
                if run.gather == "total":
                    up = run.upstream(head, weight)
                ctx.ahead = run.by_tokens(head)(head, teacher, sides, values, up, wants) or None
        ctx.inputs = len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return run.gathered(values, weight)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        run: Run = ctx.run
        saved = ctx.saved_tensors
        tensors, kept = saved[: ctx.inputs], saved[ctx.inputs :]
        head, teacher, weight, sides = _sorted(tensors)
        wants = ctx.needs_input_grad[1:4]
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            grads = _again(run, tensors, wants, up)
        elif run.gather == "values" or kept:
            up = up.expand(run.shape(head))
            grads = run.gradients(
                head, teacher, sides, up if weight is None else up * weight, wants, kept
            )
        else:
            grads, ctx.ahead = ctx.ahead, None
            if grads is None:  # given away before
                up_of_rows = run.upstream(head, weight)
                grads = run.gradients(head, teacher, sides, up_of_rows, wants)
            for t in grads:
                if t is not None:
                    t.mul_(up)
        return (None, *_rounded(grads, head), *(None for _ in tensors[3:]))


def _rounded(grads: Gradients, head: Head) -> Gradients:
    """Each gradient in the dtype of what it belongs to."""
    pairs = zip(grads, head, strict=True)
    return [None if g is None or t is None else g.to(t.dtype) for g, t in pairs]


def _again(run: Run, tensors: Sequence[Tensor | None], wants: Wants, up: Tensor) -> Gradients:
    """The gradients by autograd through the plain way, differentiable once more."""
    head, teacher, weight, sides = _sorted(tensors)
    again = torch.is_grad_enabled()
    with torch.enable_grad():  # a tensor may be hidden and weight, and is told apart by a view
        head = Head._make(None if t is None else t.view_as(t) for t in head)
        value = plain(run, head, teacher, weight, sides)
    wanted = [t for t, want in zip(head, wants, strict=True) if want and t is not None]
    found = iter(torch.autograd.grad(value, wanted, up, create_graph=again))
    return [next(found) if want else None for want in wants]


def _sorted(
    tensors: Sequence[Tensor | None],
) -> tuple[Head, Head | None, Tensor | None, Sides]:
    """Head, teacher, weight of the rows, and sides."""
    head, taught, (weight, *sides) = tensors[:3], tensors[3:6], tensors[6:]
    return Head._make(head), None if taught[0] is None else Head._make(taught), weight, sides
