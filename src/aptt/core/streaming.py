"""The walk: a formula over blocks of the prediction that fit the cache, there and back.

Evaluated whole under autograd, a formula keeps several tensors of the prediction's size until
backward. A walk keeps none: the walk forward holds the statistics of each block, a few numbers a
row, and the walk back reads the prediction again and writes the gradient, with the true upstream
gradient, rounded once.

A formula of small predictions (:attr:`Formula.ahead`: boxes, bins, elements, signals) is walked
once where only its total is asked for. The gradient is taken along, for the upstream gradient that
the mean will send, and held where hooks on saved tensors and activation checkpointing see it.
Backward multiplies it if another one arrives.

Blocks cut N, and S where a single sample is too large; C is never cut. On an accelerator there is
one block: few launches, and its memory is not the bottleneck, but its eager traffic is. A formula
may have another form for that (:attr:`Formula.in_one`), which holds one tensor of the prediction's
size from forward to backward, as torch does. A gradient that was taken along is always multiplied:
to look at the upstream gradient would be a host sync.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aptt.core.blocks import Block, cut, room_for
from aptt.core.formula import Call, Kept, Sides, across, weighted
from aptt.core.memory import fresh_like, keep_pages
from aptt.core.ordinary import batched
from aptt.core.precision import by_itself, widest

__all__ = ["Walk"]


@dataclass(frozen=True)
class Walk:
    """One call, and how it is walked: chosen in forward, for backward runs in another thread."""

    call: Call
    definition: Call
    """The same, under autograd: for a gradient of the gradient, or many at once."""
    over: float | None
    """What the total is divided by."""
    removes: bool
    """Whether the weight is 0 anywhere: there a value is 0, whatever the formula says."""
    block: int | None
    """Elements in a block; None: the whole in one."""
    watch: Callable[[list[int]], None] | None = None
    """Told the sizes of the blocks of each walk."""

    def __call__(self, x: Tensor, weight: Tensor | None, sides: Sides) -> Tensor:
        """The values, gathered; differentiable in ``x``."""
        if torch.is_grad_enabled() and x.requires_grad:
            walked: Tensor = _Walked.apply(self, x, weight, *sides)
            return walked
        with torch.no_grad(), by_itself(x):  # formulas have forms for autograd, which are slower
            return self._there(x, weight, sides)[0]

    # ------------------------------------------------------------------------- there and back

    def _there(self, x: Tensor, weight: Tensor | None, sides: Sides) -> tuple[Tensor, Kept]:
        """The values, gathered, and what all blocks need on the way back."""
        if self._is_whole(x):
            v, keep = self.call.forward(x, weight, self.removes, sides)
            return self._summed(v) if self.call.gather == "total" else v, keep
        out: Tensor | None = None
        kept: list[Tensor] = []
        for block in self._blocks(x):
            v, keep = self.call.forward(
                block.of(x), block.maybe(weight), self.removes, block.all(sides)
            )
            if out is None:
                out, dtype = room_for(self.call.gather, v, block, x), v.dtype
                kept = [] if block.s else [room_for("values", k, block, x) for k in keep]
            if block.s:
                kept += keep
            else:  # small tensors that stay would fragment the memory of the blocks' temporaries
                for room, k in zip(kept, keep, strict=True):
                    block.of(room).copy_(k)
            if self.call.gather == "values":
                block.of(out).copy_(v)
            elif self.call.gather == "samples":
                out[block.n] += v
            else:
                out += v.sum()
        assert out is not None  # a prediction without elements is not walked
        return (self._share(out) if self.call.gather == "total" else out).to(dtype), (*kept,)

    def _ahead(self, x: Tensor, weight: Tensor | None, sides: Sides) -> tuple[Tensor, Tensor]:
        """The total, and its gradient times :meth:`hint`."""
        up = self.hint()
        if self._is_whole(x):
            v, dx = self._both(x, weight, sides, up)
            return self._summed(v), _rounded(dx, x)
        grad, blocks = fresh_like(x), self._blocks(x)
        sums: Tensor | None = None
        for i, block in enumerate(blocks):
            v, dx = self._both(block.of(x), block.maybe(weight), block.all(sides), up)
            if sums is None:
                sums = v.new_empty(len(blocks))
            sums[i] = v.sum()
            block.of(grad).copy_(dx)
        assert sums is not None  # a prediction without elements is not walked
        return self._share(sums.sum(dtype=widest(sums))).to(sums.dtype), grad

    def _both(
        self, x: Tensor, weight: Tensor | None, sides: Sides, up: float
    ) -> tuple[Tensor, Tensor]:
        """The weighted values of a block, and the gradient of ``up`` times them."""
        v, dx = self.call.both(x, weight, self.removes, sides, up)
        assert v is not None  # a formula that is taken ahead gives its values
        if weight is not None:
            v = weighted(v.masked_fill_(weight == 0, 0.0) if self.removes else v, weight)
        return v, dx

    def _back(
        self, x: Tensor, weight: Tensor | None, sides: Sides, kept: tuple[Tensor, ...], up: Tensor
    ) -> Tensor:
        """The gradient, given the upstream gradient of what was returned."""
        if self.call.gather == "total" and self.over is not None:
            up = up * self._per_value()
        if self._is_whole(x):
            return _rounded(self.call.both(x, weight, self.removes, sides, up, kept)[1], x)
        grad, blocks = fresh_like(x), self._blocks(x)
        each = len(kept) // len(blocks)
        for i, block in enumerate(blocks):
            here = up
            if self.call.gather != "total":
                here = block.of(up) if self.call.gather == "values" else up[block.n]
            keep = kept[i * each : (i + 1) * each] if block.s else tuple(map(block.of, kept))
            _, dx = self.call.both(
                block.of(x), block.maybe(weight), self.removes, block.all(sides), here, keep
            )
            block.of(grad).copy_(dx)
        return grad

    # ----------------------------------------------------------------------------- the numbers

    def _summed(self, v: Tensor) -> Tensor:
        """The values of a single block, as one number."""
        return v.mean() if v.numel() == self.over != 1 else self._share(v.sum())

    def _share(self, total: Tensor) -> Tensor:
        """The total over what it is divided by; over nothing it is 0."""
        if self.over is None or self.over == 1:
            return total
        return total / self.over if self.over else torch.zeros_like(total)

    def _per_value(self) -> float:
        """What each value adds to what is returned."""
        return 1.0 if self.over is None else 1 / self.over if self.over else 0.0

    def hint(self) -> float:
        """The upstream gradient of each value that a training step will send, if it is moderate.

        1 in one block: what is held is multiplied there in any case.
        """
        if self.block is None:
            return 1.0
        each = self._per_value()
        return each if 2.0**-60 < each < 2.0**60 else 1.0

    def takes_ahead(self, x: Tensor) -> bool:
        """Whether one walk is enough. A half type would round the gradient twice.

        An accelerator has to multiply what was taken along, which costs as much as statistics.
        """
        formula = self.call.formula
        half = x.dtype in (torch.float16, torch.bfloat16)
        twice = formula.stats is not None and x.device.type != "cpu"
        return formula.ahead and self.call.gather == "total" and not (half or twice)

    def scaled(self, grad: Tensor, up: Tensor, weight: Tensor | None) -> Tensor:
        """A gradient that was taken ahead, for the upstream gradient that came."""
        share = self._per_value() / self.hint()
        # elsewhere a look is a host sync
        seen: Tensor | float = up.item() if self.block is not None and up.is_cpu else up
        factor = seen if share == 1 else seen * share
        if isinstance(factor, float) and factor == 1:
            return grad
        scaled, finite = grad * factor, isinstance(factor, float) and math.isfinite(factor)
        if weight is not None and self.removes and not finite:
            scaled.masked_fill_(across(weight == 0, scaled), 0.0)
        return scaled

    def _is_whole(self, x: Tensor) -> bool:
        """Whether one block holds all of it."""
        whole = self.block is None or x.numel() <= self.block
        if whole and self.watch is not None:
            self.watch([x.numel()])
        return whole

    def _blocks(self, x: Tensor) -> list[Block]:
        assert self.block is not None
        found = list(cut(x, self.block))
        keep_pages()
        if self.watch is not None:
            self.watch([block.of(x).numel() for block in found])
        return found


class _Walked(torch.autograd.Function):
    """A walk as one differentiable step."""

    @staticmethod
    def forward(
        ctx: Any, walk: Walk, x: Tensor, weight: Tensor | None, *sides: Tensor | None
    ) -> Tensor:
        ctx.walk, ctx.sides = walk, len(sides)
        with by_itself(x):
            ctx.ahead = walk.takes_ahead(x)
            if ctx.ahead:
                out, grad = walk._ahead(x, weight, sides)
                ctx.save_for_backward(x, weight, *sides, grad)
            else:
                out, kept = walk._there(x, weight, sides)
                ctx.save_for_backward(x, weight, *sides, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        walk: Walk = ctx.walk
        x, weight, *rest = ctx.saved_tensors
        sides, kept = rest[: ctx.sides], tuple(rest[ctx.sides :])
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            with torch.enable_grad():
                value = walk.definition.plain(x, weight, sides) * walk._per_value()
            again = torch.is_grad_enabled()
            (grad,) = torch.autograd.grad(value, x, up, create_graph=again)
        elif ctx.ahead:
            grad = walk.scaled(kept[0], up, weight)
        else:
            with by_itself(x):
                grad = walk._back(x, weight, sides, kept, up)
        return (None, grad, None, *(None for _ in sides))


def _rounded(dx: Tensor, x: Tensor) -> Tensor:
    """A gradient in the dtype of the prediction."""
    return dx if dx.dtype == x.dtype else dx.to(x.dtype)
