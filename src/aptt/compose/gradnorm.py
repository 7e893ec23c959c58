"""GradNorm: weights that are learnt, so that all terms train at one pace.

    G_i      = |d (w_i L_i) / d at|                       how hard a term pulls
    r_i      = (L_i / L_i(0)) / mean of these             how slowly it trains, beside the others
    L_grad   = sum |G_i - mean(G) * r_i**alpha|           eq. 2; the second part is held constant

The weights follow the gradient of ``L_grad`` by the optimizer that has them, and always add up to
the number of terms.

From: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss
Balancing in Deep Multitask Networks", ICML 2018, arXiv:1711.02257, eq. 1 and 2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptt.compose.balance import Balance, mean_over_ranks, over_ranks, present
from aptt.compose.slopes import At, Parts
from aptt.core.checks import check_number

__all__ = ["GradNorm"]


class GradNorm(Balance):
    """Weights that a term's gradient and its pace of training decide.

    ``w`` is a parameter: give ``criterion.parameters()`` to the optimizer, without weight decay.
    Its gradient is that of ``L_grad`` alone, of the whole batch over all ranks; ``backward`` is
    the usual one. ``at`` is what the terms share: the weights of the last shared layer as in the
    paper, or a feature map; ``criterion(..., at=trunk.weight)``. What the sum is told as a term's
    weight multiplies ``w``, and takes part in ``G``.

    The first finite value above 0 of a term in training is its ``L(0)``; it is saved with the rest
    of the state.

    Args:
        alpha: how much more a slow term is to pull; at least 0. 0: all pull equally hard. The
            paper takes 0.12 to 1.5, and more where terms differ more.
        pool: sums a tensor over the ranks; None: this process is on its own.

    Differs from:
        The paper: ``w`` never reaches 0, where its sign would turn the term around.
    """

    start: Tensor

    def __init__(
        self, alpha: float = 1.5, pool: Callable[[Tensor], Tensor] | None = over_ranks
    ) -> None:
        check_number("alpha", alpha)
        super().__init__(pool)
        self.alpha = alpha

    def bind(self, names: tuple[str, ...]) -> None:
        """One ``w`` per term, and its first value."""
        super().bind(names)
        self.w = nn.Parameter(torch.ones(len(names)))
        self.register_buffer("start", torch.zeros(len(names), dtype=torch.float64))

    def forward(
        self, values: Tensor, parts: Parts, weights: Tensor, at: At | None
    ) -> tuple[Tensor, Tensor | None]:
        """``weight * w`` each; 0 is added to the total, with the gradient of ``L_grad``."""
        extra = None
        if self.training and torch.is_grad_enabled():
            if at is None:
                raise ValueError("at: got None, GradNorm wants the tensor that all terms share")
            with torch.no_grad():  # what an optimizer has done to them
                self.w.clamp_(min=_LEAST).mul_(len(self.names) / self.w.sum())
            slope = self._slope(values.detach(), parts, weights, at)
            if slope is not None:
                extra = ((self.w - self.w.detach()) * slope.to(self.w.dtype)).sum()
            if not torch.compiler.is_compiling():
                self._watch(self.w)
        return weights * self.w.detach().to(weights.dtype), extra

    def _slope(self, values: Tensor, parts: Parts, weights: Tensor, at: At) -> Tensor | None:
        """Of ``L_grad`` by ``w``; 0 for a term that is not there, or not finite."""
        norms, values = self._norms(parts, at, self.start), values.to(self.start)
        whole = self._whole(values, present(parts, values))
        if norms is None or whole is None:
            return None
        norms = norms * weights.to(self.start)
        values, here = mean_over_ranks(*whole, self.pool)
        known = values.isfinite() & norms.isfinite() & (values > 0)
        if here is not None:
            known = known & (here > 0)
        self.start.copy_(torch.where(known & (self.start == 0), values, self.start))
        count = known.sum().clamp(min=1)
        pull = torch.where(known, self.w.detach().to(norms) * norms, 0)
        pace = torch.where(known, values / torch.where(known, self.start, 1), 0)
        slow = torch.where(known, pace / (pace.sum() / count).clamp(min=_LEAST), 1)
        wanted = pull.sum() / count * slow**self.alpha
        return torch.where(known, (pull - wanted).sign() * norms, 0)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"alpha={self.alpha}"


_LEAST = 1e-6
