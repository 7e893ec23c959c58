"""The walk over the logits by vocabulary: all tokens against a part of the classes at a time.

For cross-entropy of class indices, where a half type's product is rounded on the way out. What a
row has to know of the whole vocabulary is counted first, part by part; then each part's logits are
multiplied out again, and its gradient of the weight is one product, or few, rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aptt.core.linear.head import Gradients, Head, Wants, block_of, part_of, room_for, slices
from aptt.core.vocabulary import Form, Stats, cap, finish, measure, merge, slope, uncap

__all__ = ["ByVocabulary"]

_TOKENS = 4096  # rows of a part


@dataclass(frozen=True)
class ByVocabulary:
    """Products in ``dtype``, as it rounds them."""

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
        grads = room_for(head, wants, (wide, head.weight.dtype, wide))
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
        return slices(len(head.weight), max(part_of(head.hidden) // rows, 256))

    def _blocks(self, z: Tensor) -> Iterator[slice]:
        return slices(len(z), max(block_of(z) // z.shape[1], 1))


def _cut(stats: Stats, rows: slice) -> Stats:
    return Stats._make(None if t is None else t[rows] for t in stats)


def _join(stats: Sequence[Stats]) -> Stats:
    """The numbers of one row after the other."""
    if len(stats) == 1:
        return stats[0]
    columns = zip(*stats, strict=True)
    return Stats._make(None if t[0] is None else torch.cat(t) for t in columns)
