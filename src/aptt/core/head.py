"""The two walks over the logits of a linear head, by tokens and by vocabulary.

Both multiply a piece of the logits out, read it in blocks that fit the cache, write its gradient
over it, and multiply on. :mod:`aptt.core.linear` chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aptt.core.formula import Formula
from aptt.core.memory import fresh_like
from aptt.core.vocabulary import Form, Stats, cap, finish, measure, merge, slope, uncap

__all__ = ["ByTokens", "ByVocabulary", "Gradients", "Head", "Wants"]


class Head(NamedTuple):
    """Hidden states ``(N, D)`` and what turns them into logits ``(N, V)``."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


Gradients = list[Tensor | None]
"""Of the hidden states, the weight and the bias; None where it is not wanted."""

Wants = Sequence[bool]
"""Which of them are."""


@dataclass(frozen=True)
class ByTokens:
    """A chunk of tokens at a time, over the whole vocabulary; products in float32 or float64."""

    formula: Formula
    options: dict[str, Any]
    scale: float
    chunk: int | None
    dtype: torch.dtype

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
        grads = [] if up is None else _room(head, wants, (self.dtype,) * 3)
        step = min(self.chunk or chunk_of(head.hidden), n)
        rooms = [values.new_empty((step, classes)) for _ in range(1 if teacher is None else 2)]
        few = max(min(self.formula.block, _BLOCK) // classes, 1)
        for rows in slices(n, step):
            z = self._logits(rooms[0], head, rows)
            taught = [] if teacher is None else [self._logits(rooms[1], teacher, rows)]
            for block in slices(len(z), few):
                here = slice(rows.start + block.start, rows.start + block.stop)
                x = z[block] if self.scale == 1 else z[block].mul_(self.scale)
                cut = [*(t[block] for t in taught), *(self._side(s, here) for s in sides)]
                kept = self.formula.measure(x, cut, self.options)
                values[here] = self.formula.result(x, kept, *cut, **self.options)
                if up is not None:
                    _, slope_of_x = self.formula.advance(x, up[here], kept, cut, self.options)
                    torch.mul(slope_of_x, self.scale, out=x)  # over the logits, which are ours
            if up is not None:
                self._multiply(grads, z, head, rows)
        return grads

    def _side(self, side: Tensor | None, rows: slice) -> Tensor | None:
        if side is None or not side.is_floating_point():
            return None if side is None else side[rows]
        return side[rows].to(self.dtype)

    def _logits(self, room: Tensor, head: Head, rows: slice) -> Tensor:
        """Multiply a chunk's logits out, without the scale."""
        h = head.hidden[rows].to(self.dtype)
        z = room[: len(h)]
        for classes, w in self._weight(head):
            if head.bias is None:
                torch.mm(h, w.T, out=z[:, classes])
            else:
                torch.addmm(head.bias[classes].to(self.dtype), h, w.T, out=z[:, classes])
        return z

    def _multiply(self, grads: Gradients, z: Tensor, head: Head, rows: slice) -> None:
        """From a chunk's gradient of the logits to what it adds to the three gradients."""
        of_hidden, of_weight, of_bias = grads
        again = float(rows.start > 0)  # 0 writes what the memory holds over, even NaN
        if of_hidden is not None:
            for classes, w in self._weight(head):
                of_hidden[rows].addmm_(z[:, classes], w, beta=float(classes.start > 0))
        if of_weight is not None:
            of_weight.addmm_(z.T, head.hidden[rows].to(self.dtype), beta=again)
        if of_bias is not None:
            of_bias.mul_(again).add_(z.sum(0)) if again else of_bias.copy_(z.sum(0))

    def _weight(self, head: Head) -> Iterator[tuple[slice, Tensor]]:
        """The weight as it is, or in parts that are widened one by one."""
        if head.weight.dtype == self.dtype:
            yield slice(0, len(head.weight)), head.weight
            return
        for classes in slices(len(head.weight), max(_PART // head.weight.shape[1], 1)):
            part = head.weight[classes]
            yield classes, part.to(self.dtype)


@dataclass(frozen=True)
class ByVocabulary:
    """A part of the vocabulary at a time, over all tokens; products as bfloat16 rounds them.

    A part of the weight's gradient is then one product over the tokens, rounded once. The numbers
    that a row has to know of the whole vocabulary are counted first.
    """

    target: Tensor
    form: Form
    class_weight: Tensor | None
    scale: float
    chunk: int | None
    dtype: torch.dtype

    def count(self, head: Head) -> Stats:
        """What the rows have to know of the whole vocabulary."""
        found = []
        for rows in self._rows(head):
            merged: Stats | None = None
            for classes in self._parts(head):
                z = self._logits(head, rows, classes)
                blocks = []
                for block in self._blocks(z):
                    target, x = self.target[rows][block], self._capped(z[block])[1]
                    blocks.append(measure(x, target, start=classes.start, **self._options))
                stats = _join(blocks)
                merged = stats if merged is None else merge(merged, stats)
            assert merged is not None  # there is a class
            found.append(merged)
        return _join(found)

    def values(self, stats: Stats) -> Tensor:
        """The loss of each row."""
        return finish(stats, self._scale(self.target), form=self.form)

    def differentiate(self, head: Head, stats: Stats, up: Tensor, wants: Wants) -> Gradients:
        """The gradients, given the upstream gradient of each row."""
        wide = torch.float32
        grads = _room(head, wants, (wide, head.weight.dtype, wide))
        of_hidden, of_weight, of_bias = grads
        for t in (of_hidden, of_bias):
            if t is not None:
                t.zero_()
        for classes in self._parts(head):
            w, part = head.weight[classes].to(self.dtype), None
            for rows in self._rows(head):
                z = self._logits(head, rows, classes)
                for block in self._blocks(z):
                    here = slice(rows.start + block.start, rows.start + block.stop)
                    dz = self._slope(z[block], _cut(stats, here), up[here], here, classes)
                    z[block] = dz
                    if of_bias is not None:
                        of_bias[classes] += dz.sum(0)
                if of_hidden is not None:
                    of_hidden[rows] += torch.mm(z, w)
                if of_weight is not None:
                    product = torch.mm(z.T, head.hidden[rows].to(self.dtype))
                    part = product if part is None else product + part.to(wide)
            if of_weight is not None and part is not None:
                of_weight[classes] = part
        return grads

    @property
    def _options(self) -> dict[str, Any]:
        return {"class_weight": self.class_weight, "form": self.form}

    def _scale(self, y: Tensor) -> Tensor | None:
        """The weight of each row's class."""
        return None if self.class_weight is None else self.class_weight[y].unsqueeze(1)

    def _slope(self, z: Tensor, stats: Stats, up: Tensor, rows: slice, classes: slice) -> Tensor:
        (raw, x), y = self._capped(z), self.target[rows]
        up, scale = up.unsqueeze(1), self._scale(y)
        dz = slope(x, y, stats, up, scale, start=classes.start, **self._options)
        return uncap(dz, raw, self.form).mul_(self.scale)

    def _capped(self, z: Tensor) -> tuple[Tensor, Tensor]:
        raw = z.float().mul_(self.scale)
        return raw, cap(raw, self.form)

    def _logits(self, head: Head, rows: slice, classes: slice) -> Tensor:
        h, w = head.hidden[rows].to(self.dtype), head.weight[classes].to(self.dtype)
        if head.bias is None:
            return torch.mm(h, w.T)
        return torch.addmm(head.bias[classes].to(self.dtype), h, w.T)

    def _rows(self, head: Head) -> Iterator[slice]:
        return slices(len(head.hidden), self.chunk or _TOKENS)

    def _parts(self, head: Head) -> Iterator[slice]:
        rows = min(len(head.hidden), self.chunk or _TOKENS)
        return slices(len(head.weight), max(_PART // rows, 256))

    def _blocks(self, z: Tensor) -> Iterator[slice]:
        return slices(len(z), max(_BLOCK // z.shape[1], 1))


_PART = 2**22  # numbers in a part of the logits or of the weight, where it is cut by vocabulary
_BLOCK = 2**18  # of those that are computed with at once: they fit the cache
_TOKENS = 4096  # rows of such a part


def chunk_of(hidden: Tensor) -> int:
    """Tokens in a chunk: its logits take nearly a quarter of the memory of the weight.

    Each chunk reads the weight once more, and reads and writes its gradient: fewer tokens feel it
    (measured at D = 1024: 1.3x the products alone with 128 tokens, 1.2x with 256, 1.1x with 384).
    """
    return max(hidden.shape[1] * 15 // 64, 64)


def slices(n: int, step: int) -> Iterator[slice]:
    """``range(n)`` in pieces of ``step``."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _room(head: Head, wants: Wants, dtypes: Sequence[torch.dtype]) -> Gradients:
    """Memory for the gradients that are wanted, with arbitrary content."""
    return [
        fresh_like(t, dtype) if want and t is not None else None
        for t, want, dtype in zip(head, wants, dtypes, strict=True)
    ]


def _cut(stats: Stats, rows: slice) -> Stats:
    return Stats._make(None if t is None else t[rows] for t in stats)


def _join(stats: Sequence[Stats]) -> Stats:
    """The numbers of one row after the other."""
    if len(stats) == 1:
        return stats[0]
    columns = zip(*stats, strict=True)
    return Stats._make(None if t[0] is None else torch.cat(t) for t in columns)
