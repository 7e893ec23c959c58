"""Blocks of a prediction: where it is cut, and where their results go.

Axes: N, and S where a single sample is too large; C is never cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from aptt.core.formula import Gather, Sides
from aptt.core.precision import widest

__all__ = ["Block", "cut", "room_for"]


@dataclass(frozen=True)
class Block:
    """Some samples, and of a single one some of its positions."""

    n: slice
    s: slice | None
    """None: the whole of S, or no such axis."""

    def of(self, t: Tensor) -> Tensor:
        """Its part of a tensor, as a view."""
        return t[self.n] if self.s is None else t[self.n][..., self.s]

    def maybe(self, t: Tensor | None) -> Tensor | None:
        """The same of a tensor that need not be there."""
        return None if t is None else self.of(t)

    def all(self, sides: Sides) -> Sides:
        """The same of every side."""
        return [self.maybe(side) for side in sides]


def cut(x: Tensor, size: int) -> Iterator[Block]:
    """Blocks of at most ``size`` elements, or of one sample or position that has more."""
    samples, row = x.shape[0], x[0].numel()
    if row > size and x.ndim == 3:
        classes, length = x.shape[1:]
        step = max(size // classes, 1)
        for n in range(samples):
            for s in range(0, length, step):
                yield Block(slice(n, n + 1), slice(s, s + step))
    else:
        step = max(size // row, 1)
        for n in range(0, samples, step):
            yield Block(slice(n, n + step), None)


def room_for(gather: Gather, v: Tensor, block: Block, x: Tensor) -> Tensor:
    """Where the results of blocks go: the values, or sums in the widest float there is.

    ``v`` are the values of the first ``block`` of ``x``.
    """
    shape = (x.shape[0], *v.shape[1:])
    if gather == "values":
        return v.new_empty(shape if block.s is None else (*shape[:-1], x.shape[-1]))
    return v.new_zeros(() if gather == "total" else shape, dtype=widest(v))
