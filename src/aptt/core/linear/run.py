"""A call without its tensors: which way it is cut, and what comes out of the walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.formula import Formula, Sides
from aptt.core.linear.by_tokens import ByTokens
from aptt.core.linear.by_vocabulary import ByVocabulary
from aptt.core.linear.head import Gradients, Head, Wants, block_of, chunk_of, on_accelerator
from aptt.core.linear.in_place import settles
from aptt.core.linear.products import Multiply, product_of
from aptt.core.precision import by_itself, widest
from aptt.core.vocabulary import Stats

__all__ = ["KNOWN", "HeadFormula", "Run"]


@dataclass(frozen=True)
class HeadFormula:
    """A formula of rows of logits, known by name so that a compiled graph can refer to it."""

    name: str
    formula: Formula
    columns: int | None = None
    """How many values a row has; None: one, without an axis."""
    cross_entropy: bool = False
    """Whether it is that of class indices, which has ways of its own."""

    def __post_init__(self) -> None:
        KNOWN[self.name] = self


KNOWN: dict[str, HeadFormula] = {}


@dataclass(frozen=True)
class Run:
    """All of a call but its tensors."""

    formula: HeadFormula
    options: dict[str, Any]
    scale: float
    chunk: int | None
    gather: Literal["values", "total"]
    product: torch.dtype

    def gathered(self, values: Tensor, weight: Tensor | None) -> Tensor:
        """The values times their weights, or the sum of that."""
        if weight is not None:
            values = torch.where(weight != 0, values * weight, 0.0)  # what is left out may be inf
        if self.gather == "values":
            return values
        return values.sum(dtype=widest(values)).to(values.dtype)

    def by_vocabulary(self, head: Head, sides: Sides) -> ByVocabulary | None:
        """The cut by vocabulary, where it applies."""
        rounded = self.product == torch.bfloat16 and self._into_float32(head) is None
        options = self.options
        if not (rounded and self.formula.cross_entropy and options["adjustment"] is None):
            return None
        (target,) = sides
        assert target is not None
        weights = options["class_weight"]
        return ByVocabulary(target, options["form"], weights, self.scale, self.chunk, self.product)

    def by_tokens(self, head: Head) -> ByTokens:
        """The cut by tokens."""
        large, into_float32 = on_accelerator(head.hidden), self._into_float32(head)
        block, formula = block_of(head.hidden), self.formula.formula
        return ByTokens(
            formula.in_one or formula if large else formula,
            self.options,
            self.scale,
            chunk=self.chunk or chunk_of(head.hidden),
            block=block if large else min(block, formula.block),
            factor=self.wide if into_float32 is None else self.product,
            dtype=self.wide,
            into_float32=into_float32,
            in_place=large and self.formula.cross_entropy and settles(self.options),
        )

    def _into_float32(self, head: Head) -> Multiply | None:
        return product_of(self.product, head.hidden.device)

    def values(self, head: Head, teacher: Head | None, sides: Sides) -> Tensor:
        """The values alone."""
        with by_itself(head.hidden):
            if cut := self.by_vocabulary(head, sides):
                return cut.values(cut.count(head))
            values = self.room(head)
            self.by_tokens(head)(head, teacher, sides, values)
            return values

    def gradients(
        self,
        head: Head,
        teacher: Head | None,
        sides: Sides,
        up: Tensor,
        wants: Wants,
        kept: Sequence[Tensor] = (),
    ) -> Gradients:
        """The gradients, given the gradient ``up`` of each value, and what may have been kept."""
        with by_itself(head.hidden):
            if cut := self.by_vocabulary(head, sides):
                stats = Stats(*kept) if kept else cut.count(head)
                return cut.differentiate(head, stats, up, wants)
            return self.by_tokens(head)(head, teacher, sides, self.room(head), up, wants)

    def shape(self, head: Head) -> tuple[int, ...]:
        """That of the values."""
        columns = () if self.formula.columns is None else (self.formula.columns,)
        return (len(head.hidden), *columns)

    def room(self, head: Head) -> Tensor:
        """Memory for the values, with arbitrary content."""
        return head.hidden.new_empty(self.shape(head), dtype=self.wide)

    def upstream(self, head: Head, weight: Tensor | None) -> Tensor:
        """What each value adds to the total."""
        if weight is None:
            return head.hidden.new_ones(self.shape(head), dtype=self.wide)
        return weight.to(self.wide)

    @property
    def wide(self) -> torch.dtype:
        """The dtype of values and sums."""
        return torch.float64 if self.product == torch.float64 else torch.float32
