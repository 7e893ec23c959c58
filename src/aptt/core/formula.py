"""What a formula is: pure functions of tensors, from which every way of evaluating it follows.

    stats(x, *sides, **options) -> kept                a few numbers a row; none for elements
    result(x, kept, *sides, **options) -> v            the values, from them
    step(x, up, kept, *sides, **options) -> (v, dx)    dx: the gradient of ``up * v``; v may be None
                                                       where ``kept`` makes the result cheap

``result(x, stats(x))`` under autograd is the definition; ``step`` equals it, only faster: a test
holds every formula to that. None of them changes an argument, looks at a device or at values, or
returns an argument or a view of one. A float among the options may be a 0-d tensor.

The prediction ``x`` has one of three layouts, so one formula serves every shape of input:

    (N,)         elements        v and a side have shape (N,)
    (N, C)       rows            v has shape (N,), a side (N,) or (N, C)
    (N, C, S)    positions       v has shape (N, S), a side (N, S) or (N, C, S)

A formula whose values are joint statistics of a sample gives ``(N, ...)`` instead, and is summed
over the blocks of S. ``up`` has the shape of v, or is one number for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from aptt.core.precision import widen

__all__ = [
    "Call",
    "Formula",
    "Gather",
    "Kept",
    "Product",
    "Sides",
    "across",
    "by_row",
    "scaled_",
    "weighted",
]

Kept = tuple[Tensor, ...]
"""Of N rows each; of one sample whose positions are cut, of any shape."""
Sides = Sequence[Tensor | None]
Gather = Literal["values", "total", "samples"]
"""What to return of the values: all of them, their sum, or one sum per sample."""


class Product(NamedTuple):
    """A gradient as what was held, times a number for each row, position or all of it.

    The walk multiplies: into the dtype of the prediction, in one pass over memory.
    """

    held: Tensor
    by: Tensor

    def of(self, dtype: torch.dtype) -> Tensor:
        """The product, rounded once."""
        if self.held.dtype == dtype:
            return self.held * self.by
        return torch.mul(self.held, self.by, out=torch.empty_like(self.held, dtype=dtype))


@dataclass(frozen=True)
class Formula:
    """The mathematics of one loss; the module's docstring says what each function gives."""

    result: Callable[..., Tensor]
    step: Callable[..., tuple[Tensor | None, Tensor | Product]] | None = None
    """None: left to autograd, block by block."""
    stats: Callable[..., Kept] | None = None
    value: Callable[..., Tensor] | None = None
    """The definition ``value(x, *sides, **options)``, where it is not ``result(x, stats(x))``."""
    ahead: bool = False
    """Whether one pass over a total may take the gradient along, and hold it until backward.

    For formulas of small predictions. One with statistics takes them in ``step``, where ``kept``
    is empty."""
    block: int = 2**18
    """Elements in a block on the CPU: its temporaries should fit the cache."""
    rereads: bool = True
    """Whether the step reads prediction and sides once more; else it gets them as they are, of a
    half type too."""
    in_one: Formula | None = None
    """The same, for a prediction that is one block, as on an accelerator; None: this one.

    There a launch and a read of memory cost, and arithmetic does not: fewer and larger operators.
    Its statistics may hold one tensor of the prediction's size until backward, and its step may
    give a :class:`Product`."""
    few: Formula | None = None
    """The same, for a small prediction on a CPU, where an operator costs more than its elements.

    It may fail where it shows that by values that are not finite: they are then evaluated again, by
    this form. None: this one."""

    def measure(self, x: Tensor, sides: Sides, options: dict[str, Any]) -> Kept:
        """The statistics, or none."""
        return () if self.stats is None else self.stats(x, *sides, **options)

    def define(self, x: Tensor, kept: Kept, sides: Sides, options: dict[str, Any]) -> Tensor:
        """The values by the definition, to be differentiated by autograd."""
        if self.value is not None:
            return self.value(x, *sides, **options)
        return self.result(x, kept, *sides, **options)

    def advance(
        self, x: Tensor, up: Tensor | float, kept: Kept, sides: Sides, options: dict[str, Any]
    ) -> tuple[Tensor | None, Tensor | Product]:
        """What a step gives; by autograd where none is written."""
        if self.step is not None:
            return self.step(x, up, kept, *sides, **options)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = self.define(x, self.measure(x, sides, options), sides, options)
        up = up.expand_as(v) if isinstance(up, Tensor) else torch.full_like(v, up)
        (dx,) = torch.autograd.grad(v, x, up)
        return v.detach(), dx


@dataclass(frozen=True)
class Call:
    """A formula with its options, and what to return of its values; evaluated as a whole."""

    formula: Formula
    gather: Gather
    options: dict[str, Any]

    def in_one(self) -> Call:
        """The same, for a prediction that is one block."""
        other = self.formula.in_one
        return self if other is None else self.of(other)

    def of(self, formula: Formula) -> Call:
        """The same, by another form of the formula."""
        return Call(formula, self.gather, self.options)

    def plain(self, x: Tensor, weight: Tensor | None, sides: Sides) -> Tensor:
        """The definition, for autograd or any transform."""
        return self.defined(x, weight, sides)[0]

    def defined(self, x: Tensor, weight: Tensor | None, sides: Sides) -> tuple[Tensor, Kept]:
        """The definition, with the statistics that a step needs."""
        x, sides = self.read(x, sides)
        if weight is not None:  # what is removed must not reach a gradient either, not even as NaN
            removed = weight == 0
            x = x.masked_fill(across(removed, x), 0.0)
            sides = [
                side.masked_fill(across(removed, side), 0.0)
                if side is not None and side.is_floating_point()
                else side
                for side in sides
            ]
        kept = self.formula.measure(x, sides, self.options)
        v = self.formula.define(x, kept, sides, self.options)
        if weight is not None:
            v = weighted(v.masked_fill(removed, 0.0), weight)
        return (v.sum() if self.gather == "total" else v), kept

    def forward(
        self, x: Tensor, weight: Tensor | None, removes: bool, sides: Sides
    ) -> tuple[Tensor, Kept]:
        """The weighted values, without autograd, and what the way back needs."""
        x, sides = self.read(x, sides)
        kept = self.formula.measure(x, sides, self.options)
        v: Tensor = self.formula.result(x, kept, *sides, **self.options)
        if weight is not None:
            v = weighted(v.masked_fill_(weight == 0, 0.0) if removes else v, weight)
        return v, kept

    def both(
        self,
        x: Tensor,
        weight: Tensor | None,
        removes: bool,
        sides: Sides,
        up: Tensor | float,
        kept: Kept = (),
    ) -> tuple[Tensor | None, Tensor]:
        """The values, not weighted, if a step gives them; and the gradient of the weighted ones."""
        dtype = x.dtype
        if self.formula.rereads:
            x, sides = self.read(x, sides)
        if weight is not None and weight.dtype != torch.bool:
            up = weight * up
        v, dx = self.formula.advance(x, up, kept, sides, self.options)
        dx = dx.of(dtype) if isinstance(dx, Product) else dx
        assert dx.shape == x.shape, "a step has broadcast: by_row is for rows and positions"
        if weight is not None and removes:
            dx = dx.masked_fill_(across(weight == 0, dx), 0.0)
        return v, dx

    def read(self, x: Tensor, sides: Sides) -> tuple[Tensor, Sides]:
        """Prediction and floating sides, in the dtype of the computation."""
        x = widen(x)
        return x, [
            side
            if side is None or side.dtype == x.dtype or not side.is_floating_point()
            else side.to(x.dtype)
            for side in sides
        ]


def scaled_(dx: Tensor, up: Tensor | float) -> Tensor:
    """``dx * up`` over the memory of ``dx``; 1 is no work."""
    return dx if isinstance(up, float) and up == 1 else dx.mul_(up)


def weighted(v: Tensor, weight: Tensor) -> Tensor:
    """The values times their weights; a mask has removed what it removes, and weighs nothing."""
    return v if weight.dtype == torch.bool else v * weight


def across(rows: Tensor, x: Tensor) -> Tensor:
    """Numbers of rows or positions, or of elements, against ``x``."""
    return rows if rows.ndim == x.ndim else rows.unsqueeze(1)


@overload
def by_row(up: Tensor) -> Tensor: ...
@overload
def by_row(up: Tensor | float) -> Tensor | float: ...
def by_row(up: Tensor | float) -> Tensor | float:
    """An upstream gradient of rows or positions, against ``x``; one number stays one."""
    return up.unsqueeze(1) if isinstance(up, Tensor) and up.ndim else up
