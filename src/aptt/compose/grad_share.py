"""GradShare: the weights are shares of the gradient, whatever the size of the values.

    scale * weight / sum(weights) * value / mean(|d value / d at|)

From: Defossez et al., "High Fidelity Neural Audio Compression", 2022, arXiv:2210.13438,
section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aptt.compose.balance import Balance, over_ranks, present
from aptt.compose.slopes import At, Parts
from aptt.core.checks import check_positive

__all__ = ["GradShare"]


class GradShare(Balance):
    """Weights as shares of the gradient: at ``at``, each term pulls as hard as it is told to.

        weight_i = scale * (w_i / sum of w) / mean over time of |d value_i / d at|

    ``at`` is a tensor that all terms depend on, usually the model's output or a shared feature
    map, or a parameter that they share; ``criterion(..., at=features)``. The norm is that of the
    gradient of the whole batch over all ranks, and its mean forgets at the rate ``decay``
    (corrected for the start). Only the weights that count are changed, so ``loss.backward()`` is
    the usual one. Values may lie orders of magnitude apart; the total says little by itself.

    Of ``at`` in float16 small gradients are kept from underflow, which waits for the device. A term
    whose gradient was 0 or not finite whenever it was asked for has the weight 0; :meth:`log` and
    the reports of the sum say its name.

    The gradients come from ``torch.autograd.grad``, which ``torch.compile(fullgraph=True)``
    refuses inside a graph: compile the model and leave the criterion as it is.

    Args:
        decay: how much of the mean stays with each step, in [0, 1).
        scale: the length of the whole gradient, if all terms pulled in one direction.
        floor: the least norm that is divided by.
        pool: sums a tensor over the ranks; None: this process is on its own.

    Differs from:
        audiocraft ``Balancer``: gives weights instead of running ``backward`` itself, with the
        same gradient; one norm of the batch where there the norms of its items are averaged;
        saved with the rest of the state.
    """

    mean: Tensor
    trust: Tensor

    def __init__(
        self,
        decay: float = 0.999,
        scale: float = 1.0,
        floor: float = 1e-12,
        pool: Callable[[Tensor], Tensor] | None = over_ranks,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: got {decay}, wanted a number in [0, 1)")
        for name, value in (("scale", scale), ("floor", floor)):
            check_positive(name, value)
        super().__init__(pool)
        self.decay, self.scale, self.floor = decay, scale, floor

    def bind(self, names: tuple[str, ...]) -> None:
        """A running mean per term, and how much of it is there."""
        super().bind(names)
        self.register_buffer("mean", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("trust", torch.zeros(len(names), dtype=torch.float64))

    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, None]:
        """Shares over mean norms; in training the means take this step in first.

        Where micro-batches accumulate, last: all of a step are weighed alike.
        """
        learns, after = self.training and torch.is_grad_enabled(), self.accumulates is not None
        if learns and at is None:
            raise ValueError("at: got None, GradShare wants the tensor that all terms share")
        if learns and not after:
            self._take_in(parts, at)
        counted = self._counted(parts, weights)
        if learns and after:
            self._take_in(parts, at)
        return counted, None

    def _counted(self, parts: Parts, weights: Tensor) -> Tensor:
        here = present(parts, weights)
        share = weights if here is None else weights * here
        share = share / share.sum().clamp(min=torch.finfo(share.dtype).tiny)
        norm = self.mean / self.trust.clamp(min=torch.finfo(self.trust.dtype).tiny)
        known = (self.trust > 0) & (self.mean > 0)
        counted = torch.where(known, self.scale * share / norm.clamp(min=self.floor), 0.0)
        return counted.to(weights.dtype)

    def _take_in(self, parts: Parts, at: At | None) -> None:
        assert at is not None
        norms = self._norms(parts, at, self.mean)
        if norms is None:
            return
        took = norms.isfinite() & (norms > 0)
        keep = torch.where(took, self.decay, 1.0)
        self.mean.copy_(self.mean * keep + torch.where(took, norms, 0) * (1 - keep))
        self.trust.copy_(self.trust * keep + (1 - keep))

    def unheard(self) -> list[str]:
        """The terms without a norm; waits for the device."""
        return [n for n, t in zip(self.names, self.trust.tolist(), strict=True) if t == 0]

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"decay={self.decay}, scale={self.scale}, floor={self.floor}"
