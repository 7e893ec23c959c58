"""Evaluate a loss formula over a prediction: as plain PyTorch, or in two walks over blocks.

A formula gives one number per element, per row or per sample. Evaluated plainly, autograd keeps
several tensors of the prediction's size until backward. Walked in blocks that fit the cache, it
needs none: the forward walk keeps only the results and a few numbers per row, the backward walk
reads the prediction again and writes the gradient, with the true upstream gradient, rounded once.

:func:`evaluate` is the only entry, :func:`streams` the only place that chooses between the two.

A block has the prediction's axes, so one set of formulas serves every layout:

    (N,)         elements        a side has shape (N,)
    (N, C)       rows            a side has shape (N,) or (N, C)
    (N, C, S)    positions       a side has shape (N, S) or (N, C, S)

Blocks cut N, and S where a single sample is too large. C is never cut.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from aptt.core.memory import fresh_like

__all__ = [
    "Formula",
    "Gather",
    "Work",
    "asks",
    "batched",
    "evaluate",
    "exp_",
    "inside_functorch",
    "pays",
    "streams",
    "walkable",
    "widen",
]

Gather = Literal["values", "total", "samples"]
"""What to keep of a formula's values: all of them, their sum, or one sum per sample."""

_BLOCK_ELSEWHERE = 2**27  # elements, where large enough makes launches noise
_LEAST = {"cpu": 2**14}  # below this many elements a walk costs more than it saves
_LEAST_ELSEWHERE = 2**20


@dataclass(frozen=True)
class Formula:
    """The mathematics of one loss, on a block.

    ``value(x, *sides, **options)`` is the definition: pure, differentiable PyTorch. The other two
    are optional, and change the speed, never the result; they run without autograd.

    ``forward(x, work, *sides, **options) -> (value, kept)`` may reuse scratch memory, and keeps
    small tensors, a few numbers a row, for ``backward``.

    ``backward(out, x, work, up, kept, *sides, **options)`` writes the gradient with respect to
    ``x`` into ``out``, given the gradient ``up`` of ``value``: of the same shape, or 0-d. Without
    it, autograd differentiates ``value`` block by block.

    ``slope(out, x, work, *sides, **options) -> value`` is for values that are one per element or
    row: it writes d value / d x into ``out``, in place of ``backward``. Where only the total is
    asked for, the forward walk takes the slopes along, into what becomes the gradient, and is the
    only one.
    """

    value: Callable[..., Tensor]
    forward: Callable[..., tuple[Tensor, tuple[Tensor, ...]]] | None = None
    backward: Callable[..., None] | None = None
    slope: Callable[..., Tensor] | None = None
    block: int = 2**19  # elements in a block on the CPU: its scratch should fit the cache

    def measure(
        self, x: Tensor, work: Work, sides: Sequence[Tensor | None], options: dict[str, Any]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The values of a block, by hand where that is written, and what it keeps."""
        if self.forward is None:
            return self.value(x, *sides, **options), ()
        return self.forward(x, work, *sides, **options)

    def differentiate(
        self,
        out: Tensor,
        x: Tensor,
        work: Work,
        up: Tensor,
        kept: Sequence[Tensor],
        sides: Sequence[Tensor | None],
        options: dict[str, Any],
    ) -> None:
        """Write the gradient of a block, by hand where that is written, into ``out``."""
        if self.backward is not None:
            return self.backward(out, x, work, up, kept, *sides, **options)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.value(x, *sides, **options)
        out.copy_(torch.autograd.grad(value, x, up.expand_as(value))[0])
        return None


class Work:
    """Named scratch buffers, reused from block to block, and on the CPU from call to call.

    Fresh memory costs a page fault for every 4 KiB that is written; reused memory stays in the
    cache. What the CPU's buffers hold is bounded by a block, or one row, and belongs to one thread.
    """

    _held = threading.local()

    def __init__(self, device: torch.device, *, keeps: bool = False) -> None:
        self.keeps = keeps  # whether a backward walk will follow
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        if device.type == "cpu":
            self._buffers = vars(Work._held).setdefault("buffers", self._buffers)

    def __call__(self, name: str, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A buffer of the shape and device of ``like``, with arbitrary content."""
        key = (name, dtype or like.dtype)
        held = self._buffers.get(key)
        if held is None or held.numel() < like.numel():
            held = torch.empty(like.numel(), dtype=key[1], device=like.device)
            if not held.is_inference():
                self._buffers[key] = held
        return held[: like.numel()].view(like.shape)


def evaluate(
    formula: Formula,
    x: Tensor,
    *sides: Tensor | None,
    gather: Gather,
    weight: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The formula's values over all of ``x``, gathered; differentiable in ``x``.

    ``sides`` are cut with ``x``; ``options`` are passed whole to each block. ``weight`` has the
    shape of the values: it multiplies them, and where it is 0 or False the element counts as
    removed, whatever it holds. The result is float32 where ``x`` is a half type, and has the dtype
    of ``x`` otherwise. A gradient that another tensor than ``x`` asks for is given, by the plain
    formula.
    """
    run = _Run(formula, gather, options)
    if weight is not None and weight.is_floating_point():
        weight = weight.to(widen(x[:0]).dtype)
    if streams(x, (weight, *sides, *options.values())):
        if weight is not None and _keeps_all(weight):
            weight = None
        if torch.is_grad_enabled() and x.requires_grad:
            walked: Tensor = _Walk.apply(run, x, weight, *sides)
            return walked
        return run.walk(x, weight, sides, None)
    return run.plain(x, weight, sides)


def streams(x: Tensor, others: Iterable[object]) -> bool:
    """Whether to walk in blocks. Everything else takes the plain formula, with the same result."""
    return walkable(x, others) and pays(x.numel(), x.device)


def pays(elements: int, device: torch.device) -> bool:
    """Whether so many elements are worth a walk."""
    return elements >= _LEAST.get(device.type, _LEAST_ELSEWHERE)


def walkable(x: Tensor, others: Iterable[object]) -> bool:
    """Whether a walk gives all that is asked for: a gradient by autograd, of ``x`` alone."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type != "meta"
        and not inside_functorch()
        and forward_ad.unpack_dual(x).tangent is None
        and not (torch.is_grad_enabled() and asks(others))
    )


def asks(values: Iterable[object]) -> bool:
    """Whether a tensor among them, or in a tuple of theirs, asks for a gradient."""
    return any(
        asks(v) if isinstance(v, tuple) else isinstance(v, Tensor) and v.requires_grad
        for v in values
    )


def widen(x: Tensor) -> Tensor:
    """``x`` in the dtype of the computation: float32 for half types, else unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def exp_(x: Tensor) -> Tensor:
    """``x.exp_()``, without the crawl of the CPU's vector exponential where results underflow.

    A block whose results may leave the normal numbers takes ``exp2``: same result within one more
    rounding of ``x``, same speed at any ``x`` (measured: 0.13 ns an element, against 7 to 16).
    """
    if x.device.type == "cpu" and bool(x.amin() < _UNDERFLOW[x.dtype]):
        return x.mul_(1 / math.log(2)).exp2_()
    return x.exp_()


_UNDERFLOW = {t: math.log(torch.finfo(t).tiny) for t in (torch.float32, torch.float64)}


def inside_functorch() -> bool:
    """Whether a ``torch.func`` transform is running; an isolated look at a private name."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def batched(up: Tensor) -> bool:
    """Whether several upstream gradients come at once, by ``vmap`` or ``is_grads_batched``."""
    return inside_functorch() or torch._C._functorch.is_legacy_batchedtensor(up)


def _keeps_all(weight: Tensor) -> bool:
    """Whether a mask removes nothing, where looking costs no host sync."""
    return weight.dtype == torch.bool and weight.device.type == "cpu" and bool(weight.all())


def _side(side: Tensor | None, x: Tensor) -> Tensor | None:
    return side.to(x.dtype) if side is not None and side.is_floating_point() else side


def _across(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of rows or positions, or of elements, against ``x``."""
    return mask if mask.ndim == x.ndim else mask.unsqueeze(1)


@dataclass(frozen=True)
class _Block:
    n: slice
    s: slice | None  # None: the whole of S, or no such axis

    def of(self, t: Tensor) -> Tensor:
        return t[self.n] if self.s is None else t[self.n][..., self.s]


def _blocks(x: Tensor, block: int) -> Iterator[_Block]:
    size = block if x.device.type == "cpu" else _BLOCK_ELSEWHERE
    samples, row = x.shape[0], x[0].numel()
    if row > size and x.ndim == 3:
        classes, length = x.shape[1:]
        step = max(size // classes, 1)
        for n in range(samples):
            for s in range(0, length, step):
                yield _Block(slice(n, n + 1), slice(s, s + step))
    else:
        step = max(size // row, 1)
        for n in range(0, samples, step):
            yield _Block(slice(n, n + step), None)


def _by_itself(walk: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without autograd, and in the precision that the formulas choose, not autocast's."""

    @wraps(walk)
    def walked(run: _Run, x: Tensor, *args: Any) -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return walk(run, x, *args)

    return walked


@dataclass(frozen=True)
class _Run:
    """A formula, what to keep of its values, and its options: evaluated either way."""

    formula: Formula
    gather: Gather
    options: dict[str, Any]

    def plain(self, x: Tensor, weight: Tensor | None, sides: Sequence[Tensor | None]) -> Tensor:
        """Evaluate whole, under autograd."""
        x = widen(x)
        sides = [_side(side, x) for side in sides]
        if weight is not None:
            keep = weight != 0
            removed = ~_across(keep, x)
            x = x.masked_fill(removed, 0.0)
            sides = [
                side.masked_fill(~_across(keep, side), 0.0)
                if side is not None and side.is_floating_point()
                else side
                for side in sides
            ]
        value = self.formula.value(x, *sides, **self.options)
        if weight is not None:
            value = torch.where(keep, value, 0.0) * weight
        return value.sum() if self.gather == "total" else value

    @_by_itself
    def walk(
        self,
        x: Tensor,
        weight: Tensor | None,
        sides: Sequence[Tensor | None],
        kept: list[tuple[Tensor, ...]] | None,
        grad: Tensor | None = None,
    ) -> Tensor:
        """Walk forward; append to ``kept``, if given, what each block keeps for the way back.

        Write the gradient of the total to ``grad``, if given.
        """
        work, out, dtype = Work(x.device, keeps=kept is not None), None, x.dtype
        for block in _blocks(x, self.formula.block):
            part, cut = _read(block, x, sides, work)
            here = None if weight is None else block.of(weight)
            if grad is None:
                value, keep = self.formula.measure(part, work, cut, self.options)
            else:
                value, keep = self._slope(block.of(grad), part, work, cut, here), ()
            if here is not None:
                value = torch.where(here != 0, value, 0.0).mul_(here)
            if kept is not None:
                kept.append(keep)
            if out is None:
                out, dtype = self._room(value, block, x), value.dtype
            if self.gather == "values":
                block.of(out).copy_(value)
            elif self.gather == "samples":
                out[block.n] += value
            else:
                out += value.sum()
        assert out is not None  # streams() lets no empty prediction in
        return out.to(dtype)

    def _slope(
        self,
        out: Tensor,
        x: Tensor,
        work: Work,
        sides: list[Tensor | None],
        weight: Tensor | None,
    ) -> Tensor:
        """Write the weighted slopes to ``out``; the values, which are not weighted yet."""
        assert self.formula.slope is not None
        value: Tensor = self.formula.slope(out, x, work, *sides, **self.options)
        if weight is not None:
            weight = _across(weight, out)
            out.mul_(weight).masked_fill_(weight == 0, 0.0)
        return value

    def takes_along(self, x: Tensor) -> bool:
        """Whether the walk forward can take the gradient along: unscaled, so not in a half type."""
        return (
            self.formula.slope is not None
            and self.gather == "total"
            and x.dtype not in (torch.float16, torch.bfloat16)
        )

    def _room(self, value: Tensor, block: _Block, x: Tensor) -> Tensor:
        """Where the results go: the values, or sums kept in the widest float there is."""
        shape = (x.shape[0], *value.shape[1:])
        if self.gather == "values":
            return value.new_empty(shape if block.s is None else (*shape[:-1], x.shape[-1]))
        widest = value.dtype if x.device.type == "mps" else torch.float64
        return value.new_zeros(() if self.gather == "total" else shape, dtype=widest)

    @_by_itself
    def walk_back(
        self,
        x: Tensor,
        weight: Tensor | None,
        sides: Sequence[Tensor | None],
        kept: Sequence[Tensor],
        up: Tensor,
    ) -> Tensor:
        """Walk again and write the gradient, block by block, rounded once."""
        work, grad, blocks = Work(x.device), fresh_like(x), list(_blocks(x, self.formula.block))
        stride = len(kept) // len(blocks)
        for i, block in enumerate(blocks):
            part, cut = _read(block, x, sides, work)
            if self.gather == "values":
                here = block.of(up)
            else:
                here = up if self.gather == "total" else up[block.n]
            goal = block.of(grad)
            out = goal if goal.dtype == part.dtype else work("out", part)
            if self.formula.slope is not None:
                there = None if weight is None else block.of(weight)
                self._slope(out, part, work, cut, there)
                out.mul_(here if here.ndim == 0 else _across(here, out))
                if there is not None:  # once more: 0 times an upstream gradient that is infinite
                    out.masked_fill_(_across(there, out) == 0, 0.0)
            else:
                here, removed = _weighted(here, weight, block)
                keep = kept[i * stride : (i + 1) * stride]
                self.formula.differentiate(out, part, work, here, keep, cut, self.options)
                if removed is not None:
                    out.masked_fill_(_across(removed, out), 0.0)
            if out is not goal:
                goal.copy_(out)
        return grad


def _read(
    block: _Block, x: Tensor, sides: Sequence[Tensor | None], work: Work
) -> tuple[Tensor, list[Tensor | None]]:
    """The block of ``x`` and of each side, in the dtype of the computation."""
    part = block.of(x)
    if part.dtype in (torch.float16, torch.bfloat16):
        part = work("x", part, torch.float32).copy_(part)
    return part, [None if side is None else _side(block.of(side), part) for side in sides]


def _weighted(up: Tensor, weight: Tensor | None, block: _Block) -> tuple[Tensor, Tensor | None]:
    """The upstream gradient times the weight, and where the gradient is to be 0 all the same."""
    if weight is None:
        return up, None
    here = block.of(weight)
    keep = here != 0
    if here.device.type == "cpu" and bool(keep.all()):
        return (up if here.dtype == torch.bool else up * here), None
    return up * here, ~keep


def _scaled(grad: Tensor, up: Tensor, weight: Tensor | None) -> Tensor:
    """``grad`` times a number, in place, and 0 where the weight is, whatever the number."""
    looks = up.device.type == "cpu"  # elsewhere it would be a sync
    if looks and float(up) == 1:
        return grad
    grad.mul_(up)
    if weight is not None and not (looks and math.isfinite(up)):
        grad.masked_fill_(_across(weight, grad) == 0, 0.0)
    return grad


class _Walk(torch.autograd.Function):
    """The two walks, or the one, as one differentiable step."""

    @staticmethod
    def forward(
        ctx: Any, run: _Run, x: Tensor, weight: Tensor | None, *sides: Tensor | None
    ) -> Tensor:
        kept: list[tuple[Tensor, ...]] = []
        taken = [fresh_like(x)] if run.takes_along(x) else []
        out = run.walk(x, weight, sides, kept, *taken)
        ctx.run, ctx.sides, ctx.taken = run, len(sides), taken
        ctx.save_for_backward(x, weight, *sides, *(t for block in kept for t in block))
        return out

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        x, weight, *rest = ctx.saved_tensors
        sides, kept = rest[: ctx.sides], rest[ctx.sides :]
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            with torch.enable_grad():
                value = run.plain(x, weight, sides)
            again = torch.is_grad_enabled()
            (grad,) = torch.autograd.grad(value, x, up, create_graph=again)
        elif ctx.taken:  # given away, so it serves once; a second backward walks again
            grad = _scaled(ctx.taken.pop(), up, weight)
        else:
            grad = run.walk_back(x, weight, sides, kept, up)
        return (None, grad, None, *(None for _ in sides))
