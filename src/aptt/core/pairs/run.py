"""A call on pairs, chunk by chunk of rows: its statistics, their gradients, and the definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aptt.core.ordinary import inside_functorch
from aptt.core.pairs.formulas import KNOWN, PairFormula
from aptt.core.pairs.sides import Sides, marks
from aptt.core.precision import by_itself

__all__ = ["Pairs", "Run"]

_PAIRS, _MANY_PAIRS = 2**22, 2**26  # in a chunk; on an accelerator


class Pairs(NamedTuple):
    """What is multiplied, and added; whatever asks for a gradient."""

    x: Tensor
    y: Tensor
    scale: Tensor
    bias: Tensor | None

    def scores(self, rows: slice) -> Tensor:
        """``s`` of some rows."""
        s = _product(self.x[rows], self.y.T) * self.scale
        return s if self.bias is None else s + self.bias


@dataclass(frozen=True)
class Run:
    """A call without its tensors."""

    name: str
    many: bool
    chunk: int | None

    @property
    def formula(self) -> PairFormula:
        """The one of this name."""
        return KNOWN[self.name]

    def chunks(self, pairs: Pairs) -> Iterator[slice]:
        """The rows of each chunk."""
        n, step = len(pairs.x), self.step(pairs)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def step(self, pairs: Pairs) -> int:
        """How many rows a chunk has."""
        most = _PAIRS if pairs.x.device.type == "cpu" else _MANY_PAIRS
        return self.chunk or max(most // max(len(pairs.y), 1), 1)

    def marked(self, pairs: Pairs, sides: Sides, rows: slice) -> tuple[Tensor, Tensor]:
        """Positive and negative pairs of some rows."""
        return marks(sides.rows(rows), len(pairs.y), many=self.many, like=pairs.x[rows])

    def values(self, pairs: Pairs, sides: Sides) -> Tensor:
        """The statistics, without a gradient."""
        out = pairs.x.new_empty(self.formula.count, len(pairs.x))
        with by_itself(pairs.x):
            for rows in self.chunks(pairs):
                marked = self.marked(pairs, sides, rows)
                out[:, rows] = self.formula.rows(pairs.scores(rows), *marked)
        return out

    def gradients(
        self, pairs: Pairs, sides: Sides, stats: Tensor, up: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of x, y, scale and bias."""
        x, y, scale, _ = pairs
        dx, dy = torch.empty_like(x), torch.zeros_like(y)
        of_scale, of_bias = scale.new_zeros(()), scale.new_zeros(())
        with by_itself(x):
            for rows in self.chunks(pairs):
                marked = self.marked(pairs, sides, rows)
                ds = self.formula.slope(pairs.scores(rows), *marked, stats[:, rows], up[:, rows])
                dx[rows] = ds @ y
                dy.addmm_(ds.T, x[rows])
                of_scale += (x[rows] * dx[rows]).sum()
                if pairs.bias is not None:
                    of_bias += ds.sum()
        return dx.mul_(scale), dy.mul_(scale), of_scale, of_bias

    def plain(self, pairs: Pairs, sides: Sides) -> Tensor:
        """The definition, under autograd."""

        def values(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, some: Sides) -> Tensor:
            with by_itself(x):
                these = Pairs(x, y, scale, bias)
                marked = marks(some, len(y), many=self.many, like=x)
                return self.formula.rows(these.scores(slice(None)), *marked)

        x, *rest = pairs
        if len(x) <= self.step(pairs) or inside_functorch() or torch.compiler.is_compiling():
            return values(*pairs, sides)
        found = [
            checkpoint(values, x[rows], *rest, sides.rows(rows), use_reentrant=False)
            for rows in self.chunks(pairs)
        ]
        return torch.cat(found, 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """In the precision of the rows; its backward is called where autocast may be on."""
    with by_itself(a):
        if inside_functorch() or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return a @ b
        found: Tensor = _Product.apply(a, b)
        return found


class _Product(torch.autograd.Function):
    """A product of matrices that autocast does not round on the way back either."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)
        return a @ b

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None) -> Tensor:
        a, b = ctx.saved_tensors
        parts = [da @ b] if da is not None else []
        parts += [a @ db] if db is not None else []
        return sum(parts[1:], parts[0])

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return _product(up, b.T), _product(a.T, up)
