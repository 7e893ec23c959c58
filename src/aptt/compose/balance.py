"""Balancers: weights that follow from the losses, and stay ordinary numbers for ``backward``.

    Uncertainty   weight * (exp(-s) * value + s) / 2      s learnt, one for each term
    GradShare     scale * weight / sum(weights) * value / mean(|d value / d at|)
    GradNorm      weight * w * value                      w learnt, as gradients of one size ask
    DWA           weight * K * softmax(last / before / T) * value

A balancer turns the weights of a sum into the weights that count, detached from the graph, so that
``backward``, GradScaler, accumulation and data parallel need nothing special. Ranks agree because
they share a few numbers in ``forward``, which every rank runs.

Balancing is no magic: a plain sum with tuned weights matches it in careful comparisons (Kurin et
al., "In Defense of the Unitary Scalarization for Deep Multi-Task Learning", NeurIPS 2022,
arXiv:2201.04122). Fixed weights are the default here.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptt.compose.recorder import follow
from aptt.compose.slopes import At, Parts, slopes_at

__all__ = [
    "Accumulated",
    "Balance",
    "mean_over_ranks",
    "over_ranks",
    "present",
]


def over_ranks(t: Tensor) -> Tensor:
    """The sum over all ranks; ``t`` itself where there is one process."""
    if not _alone():
        torch.distributed.all_reduce(t)
    return t


def _alone() -> bool:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_world_size() == 1


class Balance(nn.Module, ABC):
    """What a balancer is; a subclass makes its state in ``bind`` and answers in ``forward``."""

    _PATIENCE = 1000  # calls, more than anybody accumulates, until an optimizer moves a parameter

    def __init__(self, pool: Callable[[Tensor], Tensor] | None = over_ranks) -> None:
        super().__init__()
        self.pool = pool
        self.names: tuple[str, ...] = ()
        self.accumulates: Accumulated | None = None
        """What came of the step at hand, inside ``criterion.accumulating``."""
        self._steps = 0

    def bind(self, names: tuple[str, ...]) -> None:
        """Make the state, one number per term. Called once, by the sum that it belongs to."""
        if self.names:
            raise ValueError("balance: got one that another sum has already, wanted one of its own")
        self.names = names

    @abstractmethod
    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The weights that count, detached, and what to add to the total besides the terms."""

    def unheard(self) -> list[str]:
        """The terms that have no weight yet, because no gradient of theirs could be used."""
        return []

    def _whole(self, values: Tensor, here: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        """Values and presence of the whole step, with its last micro-batch; None before that."""
        if self.accumulates is None:
            return values, here
        here = torch.ones_like(values) if here is None else here
        found = self.accumulates.add("values", torch.where(here > 0, values, 0), here)
        return None if found is None else (found[0] * self.accumulates.share, found[1].clamp(max=1))

    def _norms(self, parts: Parts, at: At, like: Tensor) -> Tensor | None:
        """The norm of each term's gradient at ``at``, of the whole batch over all ranks; 0: none.

        Ranks average their gradients. Of features each rank and micro-batch has its own rows, so
        the squares add up; a parameter is the same for all, so its gradients do. None before the
        last micro-batch.
        """
        squares, shared = slopes_at(self.names, parts, at, like)
        if self.accumulates is not None:
            found = self.accumulates.add("slopes", squares, shared)
            if found is None:
                return None
            squares, shared = (
                found[0] * self.accumulates.share**2,
                found[1] * self.accumulates.share,
            )
        sums = torch.cat([squares, torch.ones_like(squares[:1])])
        if self.pool is not None:
            sums = self.pool(sums)
            shared = self.pool(shared) if shared.numel() else shared
        return (sums[:-1] + shared.square().sum(1)).sqrt() / sums[-1]

    def _watch(self, learnt: Tensor) -> None:
        """Say, once, if no optimizer has moved a parameter in all this time."""
        if self._steps == 0:  # here, not before: a state may have been loaded
            self._version = learnt._version
        self._steps += 1
        if self._steps == self._PATIENCE and learnt._version == self._version:
            warnings.warn(
                f"the weights of {type(self).__name__} have not moved in {self._PATIENCE} calls: "
                "is criterion.parameters() in the optimizer?",
                stacklevel=4,
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Balance:
        super()._apply(lambda t: follow(fn, t), recurse)
        return self


class Accumulated:
    """Sums over the micro-batches of one step of an optimizer."""

    def __init__(self, micro_batches: int, means: bool) -> None:
        self.micro_batches = micro_batches
        self.share = 1 / micro_batches if means else 1.0
        """What a value of one micro-batch is of the whole."""
        self.held: dict[str, tuple[int, tuple[Tensor, ...]]] = {}

    def add(self, what: str, *sums: Tensor) -> tuple[Tensor, ...] | None:
        """The sums, once the last micro-batch is in."""
        before, held = self.held.pop(what, (0, ()))
        if before:
            sums = tuple(a + b for a, b in zip(held, sums, strict=True))
        if before + 1 == self.micro_batches:
            return sums
        self.held[what] = (before + 1, sums)
        return None


def mean_over_ranks(
    values: Tensor, here: Tensor | None, pool: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """The mean of each value over the ranks that have it, and which of them any rank has."""
    if pool is None or (pool is over_ranks and _alone()):
        return values, here
    here = torch.ones_like(values) if here is None else here
    values, count = pool(torch.stack([values * here, here]))
    return values / count.clamp(min=1), count.clamp(max=1)


def present(parts: Parts, like: Tensor) -> Tensor | None:
    """1 for each term that this batch has, and 0 for the others; None where it has all."""
    if all(part is not None for part in parts):
        return None
    there = [part is not None for part in parts]
    return torch.tensor(there, dtype=like.dtype, device=like.device)
