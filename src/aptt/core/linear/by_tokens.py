"""The walk over the logits by tokens: a chunk of them at a time, over the whole vocabulary.

A chunk's logits are multiplied out once. They are read in blocks, their gradient is written over
them, and two more products make of it what the chunk adds to the gradients of the hidden states and
of the weight.

Factors of a half type whose product comes out in float32 stay what they are: the gradient of the
logits is rounded to their type before it is multiplied on, in the memory of the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aptt.core.formula import Formula, Product
from aptt.core.linear.head import Gradients, Head, Wants, part_of, room_for, slices
from aptt.core.linear.in_place import settle
from aptt.core.linear.products import Multiply

__all__ = ["ByTokens"]


@dataclass(frozen=True)
class ByTokens:
    """How a chunk is multiplied out and evaluated."""

    formula: Formula
    options: dict[str, Any]
    scale: float
    chunk: int
    """Tokens in a chunk."""
    block: int
    """Logits that the formula is given at once."""
    factor: torch.dtype
    """What both factors of a product are rounded to."""
    dtype: torch.dtype
    """That of the logits and of the sums: float32 or float64."""
    into_float32: Multiply | None
    """The product of factors of a half type; None: they are as wide as ``dtype``."""
    in_place: bool
    """Whether :func:`settle` does what the formula does."""

    def __call__(
        self,
        head: Head,
        teacher: Head | None,
        sides: Sequence[Tensor | None],
        values: Tensor,
        up: Tensor | None = None,
        wants: Wants = (),
    ) -> Gradients:
        """Fill in the values; given ``up``, their upstream gradient, return the gradients."""
        n, classes = len(head.hidden), len(head.weight)
        grads = [] if up is None else room_for(head, wants, (self.dtype,) * 3)
        step = min(self.chunk, n)
        rooms = [values.new_empty((step, classes)) for _ in range(1 if teacher is None else 2)]
        few = max(self.block // max(classes, 1), 1)
        for rows in slices(n, step):
            z, taught = self._logits(rooms[0], head, rows, self.factor), []
            if teacher is not None:
                taught = [self._logits(rooms[1], teacher, rows, self._factor_of(teacher))]
            dz = self._narrow(z) if self._straight(grads) else z
            for block in slices(len(z), few):
                here = slice(rows.start + block.start, rows.start + block.stop)
                cut = [*(t[block] for t in taught), *(self._side(s, here) for s in sides)]
                out = None if up is None else dz[block]
                values[here] = self._evaluate(z[block], cut, None if up is None else up[here], out)
            if up is not None:
                self._multiply(grads, dz, head, rows)
        return grads

    def _evaluate(
        self, z: Tensor, sides: Sequence[Tensor | None], up: Tensor | None, out: Tensor | None
    ) -> Tensor:
        """The values of a block; given ``up``, the gradient of the logits is written to ``out``."""
        x = z if self.scale == 1 else z.mul_(self.scale)
        if self.in_place:
            (y,) = sides
            assert y is not None
            return settle(x, y, up, out, scale=self.scale, **self.options)
        kept = self.formula.measure(x, sides, self.options)
        values: Tensor = self.formula.result(x, kept, *sides, **self.options)
        if up is not None:
            _, slope = self.formula.advance(x, up, kept, sides, self.options)
            held, by = slope if isinstance(slope, Product) else (slope, 1.0)
            torch.mul(held, by * self.scale, out=out)
        return values

    def _side(self, side: Tensor | None, rows: slice) -> Tensor | None:
        if side is None or not side.is_floating_point():
            return None if side is None else side[rows]
        return side[rows].to(self.dtype)

    def _factor_of(self, teacher: Head) -> torch.dtype:
        """A teacher that is wider than the student's products is not rounded to them."""
        held = torch.promote_types(teacher.hidden.dtype, teacher.weight.dtype)
        return self.factor if held == self.factor else self.dtype

    def _logits(self, room: Tensor, head: Head, rows: slice, factor: torch.dtype) -> Tensor:
        """Multiply a chunk's logits out, without the scale."""
        h = head.hidden[rows].to(factor)
        z = room[: len(h)]
        for classes, w in self._weight(head, factor):
            part, bias = z[:, classes], None
            if head.bias is not None:
                bias = head.bias[classes].to(self.dtype)
            if factor != self.dtype:
                assert self.into_float32 is not None
                self.into_float32(h, w.T, part)
                if bias is not None:
                    part += bias
            elif bias is None:
                torch.mm(h, w.T, out=part)
            else:
                torch.addmm(bias, h, w.T, out=part)
        return z

    def _multiply(self, grads: Gradients, dz: Tensor, head: Head, rows: slice) -> None:
        """From a chunk's gradient of the logits to what it adds to the three gradients."""
        of_hidden, of_weight, of_bias = grads
        again, lift = rows.start > 0, None
        if of_bias is not None:
            total = dz.sum(0)
            of_bias.add_(total) if again else of_bias.copy_(total)
        if dz.dtype != self.factor:
            dz, lift = self._narrowed(dz)
        if of_hidden is not None:
            for classes, w in self._weight(head, self.factor):
                self._add(of_hidden[rows], dz[:, classes], w, lift, again=classes.start > 0)
        if of_weight is not None:
            h = head.hidden[rows].to(self.factor)
            whole = self.into_float32 is None
            for classes in [slice(None)] if whole else self._parts(head):
                self._add(of_weight[classes], dz[:, classes].T, h, lift, again=again)

    def _add(self, out: Tensor, a: Tensor, b: Tensor, lift: Tensor | None, *, again: bool) -> None:
        """``out = a @ b / lift``, or what it holds and that."""
        if self.into_float32 is None:
            out.addmm_(a, b, beta=float(again))  # 0 writes what the memory holds over, even NaN
            return
        product = torch.empty_like(out) if again else out
        self.into_float32(a, b, product)
        if again:
            out.addcdiv_(product, lift) if lift is not None else out.add_(product)
        elif lift is not None:
            out.div_(lift)

    def _straight(self, grads: Gradients) -> bool:
        """Whether the gradient of the logits is rounded as it is made.

        A bias sums it before that; float16 has to know its largest number first.
        """
        return bool(grads) and self.factor == torch.bfloat16 and grads[2] is None

    def _narrow(self, z: Tensor) -> Tensor:
        """Memory of the logits for their gradient in the type of the factors.

        Its rows end before those of the logits do: a block may be written once it has been read.
        """
        return z.view(self.factor).view(2 * len(z), z.shape[1])[: len(z)]

    def _narrowed(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """A gradient of the logits in the type of the factors, and what it was multiplied by.

        float16 has no more range than the gradient needs: its largest number becomes some 2**14.
        """
        narrow, lift = self._narrow(z), None
        if self.factor == torch.float16:
            most = torch.linalg.vector_norm(z, torch.inf)
            lift = (15 - torch.frexp(most).exponent).clamp(max=100).exp2()
        for block in slices(len(z), max(self.block // max(z.shape[1], 1), 1)):
            some = torch.empty_like(narrow[block])
            narrow[block] = torch.mul(z[block], 1.0 if lift is None else lift, out=some)
        return narrow, lift

    def _weight(self, head: Head, factor: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """The weight as it is, or in parts that are brought to the type of the factors."""
        if head.weight.dtype == factor:
            yield slice(0, len(head.weight)), head.weight
            return
        for classes in self._parts(head):
            yield classes, head.weight[classes].to(factor)

    def _parts(self, head: Head) -> Iterator[slice]:
        size = max(head.weight.shape[1], 1)
        return slices(len(head.weight), max(part_of(head.weight) // size, 1))
