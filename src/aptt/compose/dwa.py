"""Dynamic weight average: a term whose value falls more slowly than the others' weighs more.

    weight_i * K * exp(r_i / T) / sum of exp(r / T)

r_i is its mean over the last epoch, over that of the one before. K is the number of terms. Until
two epochs are over, each r is 1.

From: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
arXiv:1803.10704, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aptt.compose.balance import Balance, mean_over_ranks, over_ranks, present
from aptt.compose.slopes import At, Parts
from aptt.core.checks import check_positive

__all__ = ["DWA"]


class DWA(Balance):
    """Weights by how much the mean value of each term fell from one epoch to the next.

    No gradients are compared, so it costs nothing. The loop says when an epoch is over, by
    ``criterion.balance.end_epoch()``; where that is never called, nothing is weighed. The account
    is saved with the rest of the state, in the midst of an epoch too.

    Args:
        temperature: T; more makes weights more alike. The paper takes 2.
        pool: sums a tensor over the ranks; None: this process is on its own.
    """

    sums: Tensor
    last: Tensor
    before: Tensor

    def __init__(
        self, temperature: float = 2.0, pool: Callable[[Tensor], Tensor] | None = over_ranks
    ) -> None:
        check_positive("temperature", temperature)
        super().__init__(pool)
        self.temperature = temperature

    def bind(self, names: tuple[str, ...]) -> None:
        """The sum and the count of this epoch, and the means of the two before it."""
        super().bind(names)
        self.register_buffer("sums", torch.zeros(2, len(names), dtype=torch.float64))
        for name in ("last", "before"):
            self.register_buffer(name, torch.zeros(len(names), dtype=torch.float64))

    def forward(
        self, values: Tensor, parts: Parts, weights: Tensor, at: At | None
    ) -> tuple[Tensor, None]:
        """``weight * K * share`` each; in training the values are taken in, for later epochs."""
        known = (self.last > 0) & (self.before > 0)
        ratio = torch.where(known, self.last / torch.where(known, self.before, 1), 1)
        share = len(self.names) * (ratio / self.temperature).softmax(0)
        if self.training and torch.is_grad_enabled():
            seen = values.detach().to(self.sums)
            whole = self._whole(seen, present(parts, seen))
            if whole is not None:
                seen, here = mean_over_ranks(*whole, self.pool)
                counts = seen.isfinite() if here is None else seen.isfinite() & (here > 0)
                self.sums += torch.stack((torch.where(counts, seen, 0), counts.to(seen.dtype)))
        return weights * share.to(weights.dtype), None

    def end_epoch(self) -> None:
        """Close this epoch; its means are what the next one is weighed by."""
        total, count = self.sums
        mean = torch.where(count > 0, total / count.clamp(min=1), self.last)
        self.before.copy_(self.last)
        self.last.copy_(mean)
        self.sums.zero_()

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"temperature={self.temperature}"
