"""What is said of numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["NonFiniteError", "Wrong", "what_is_wrong"]


class NonFiniteError(ArithmeticError):
    """A term, its weight or the total was infinite or NaN; ``step`` counts from 0.

    ``terms`` are the names and values of those terms: none, if a weight or the total is to blame.
    """

    def __init__(self, text: str, terms: dict[str, float], step: int) -> None:
        super().__init__(text)
        self.terms = terms
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: a process that fails sends its error to another."""
        return type(self), (str(self), self.terms, self.step)


class Wrong(NamedTuple):
    """What is not finite, in words; and the values of the terms that are to blame, by name."""

    said: str
    terms: dict[str, float]


def what_is_wrong(
    names: Sequence[str], values: Tensor, weights: Tensor, total: Tensor
) -> Wrong | None:
    """The first kind that is not finite, of terms, weights and the total. Waits for the device."""
    packed = torch.cat([values, weights.to(values.dtype), total.reshape(1)])
    *numbers, summed = packed.detach().tolist()
    many = len(names)
    for what, some in (("term", numbers[:many]), ("weight", numbers[many:])):
        pairs = zip(names, some, strict=True)
        bad = {name: number for name, number in pairs if not math.isfinite(number)}
        if bad:
            listed = ", ".join(f"{name!r} is {number}" for name, number in bad.items())
            of = "" if what == "term" else " of"
            said = f"{what}{'s' if len(bad) > 1 else ''}{of} {listed}"
            return Wrong(said, bad if what == "term" else {})
    if math.isfinite(summed):
        return None
    return Wrong(f"the total is {summed}, of terms and weights that are finite,", {})
