"""What is measured: a case is one input, and contenders that compute one loss of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["FLOOR", "OURS", "Case", "Contender", "Loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes a prediction and a target, gives one number."""

OURS = "aptt"
FLOOR = "floor"


@dataclass(frozen=True)
class Contender:
    """One way to compute the loss of a case.

    ``make`` imports what the contender needs, and may raise ``ImportError``. ``against`` is the
    contender of ours that follows the same convention. Both agree within ``tolerance``, relative:
    a run compares the value and the norm of the gradient, and times nobody who differs; a test
    compares the gradient element by element, or, where float32 leaves single elements open
    (``by_norm``), the norm of the difference.
    """

    name: str
    make: Callable[[], Loss]
    compiled: bool = False  # by torch.compile
    against: str = OURS
    tolerance: float = 1e-4
    by_norm: bool = False
    device: str | None = None  # the only kind that it runs on


@dataclass(frozen=True)
class Case:
    """One input, at the size that counts and at a tiny one, and who computes its loss."""

    name: str
    uses: str  # the function of aptt.loss; a case whose function is not there is not listed
    inputs: Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]
    size: tuple[int, ...]
    quick: tuple[int, ...]
    contenders: tuple[Contender, ...]
    large: tuple[int, ...] | None = None  # the size that counts on an accelerator, if it is another
    compiles: bool = True  # whether ours enters under torch.compile too

    def with_compiled(self) -> Case:
        """The case with ours under ``torch.compile``, beside ours and as exact as the others so."""
        if not self.compiles:
            return self
        like = next(c for c in self.contenders if c.compiled)
        ours = {c.against for c in self.contenders}
        entered = []
        for c in self.contenders:
            entered.append(c)
            if c.name in ours:
                entered.append(
                    replace(like, name=f"{c.name}, compiled", make=c.make, against=c.name)
                )
        return replace(self, contenders=tuple(entered))

    def size_on(self, device: str, quick: bool) -> tuple[int, ...]:
        """How large the input is there."""
        return self.quick if quick else self.size if device == "cpu" else self.large or self.size

    def entered(self, device: str) -> list[Contender]:
        """Who can run there."""
        kind = device.partition(":")[0]
        return [c for c in self.contenders if c.device in (None, kind)]

    def contender(self, name: str) -> Contender:
        """The contender of this name."""
        return next(c for c in self.contenders if c.name == name)
