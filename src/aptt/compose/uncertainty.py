"""Uncertainty: terms weigh what the model learns that they are worth.

    weight * (exp(-s) * value + s) / 2      s learnt, one for each term

From: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018,
arXiv:1705.07115, eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptt.compose.balance import Balance, mean_over_ranks, over_ranks, present
from aptt.compose.slopes import At, Parts

__all__ = ["Uncertainty"]


class Uncertainty(Balance):
    """Kendall's uncertainty weighting: each term is divided by a scale that is learnt with it.

        total = sum over terms of weight * (exp(-s) * value + s) / 2

    At rest ``exp(-s) * value = 1``, so a term weighs ``weight / (2 * value)``: the total is then
    ``sum(weight * (1 + log(value)) / 2)``, which may well be negative. Values are to be >= 0.

    ``s`` is a parameter: give ``criterion.parameters()`` to the optimizer, without weight decay.
    Its gradient comes from the mean over the ranks, so it is the same on all of them with or
    without wrapping; a value that is not finite leaves it alone. ``bounds`` stop ``s`` where a
    term that is 0 would carry it off to infinity, and let it come back.

    Args:
        start: ``s`` in the beginning; 0 is half the value.
        bounds: the least and the greatest ``s``.
        pool: sums a tensor over the ranks; None: this process is on its own.

    Differs from:
        Kendall et al.: their form for regression for every term; the one for classification
        (without the half before the value) comes to rest at the same weight.
        LibMTL: starts at -0.5; AutomaticWeightedLoss: adds log(1 + s**2), so stays positive.
    """

    def __init__(
        self,
        start: float = 0.0,
        bounds: tuple[float, float] = (-10.0, 10.0),
        pool: Callable[[Tensor], Tensor] | None = over_ranks,
    ) -> None:
        low, high = bounds
        if not low <= start <= high or not -80 <= low <= high <= 80:
            raise ValueError(
                f"bounds: got {tuple(bounds)} with start={start}, wanted low <= start <= high, "
                "from -80 to 80"
            )
        super().__init__(pool)
        self.start, self.bounds = float(start), (float(low), float(high))

    def bind(self, names: tuple[str, ...]) -> None:
        """One ``s`` per term."""
        super().bind(names)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.s = nn.Parameter(torch.full((len(names),), self.start, dtype=dtype))

    def forward(
        self,
        values: Tensor,
        parts: Parts,
        weights: Tensor,
        at: At | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Half of ``weight * exp(-s)`` each; the rest of the formula is added to the total."""
        low, high = self.bounds
        raw = self.s.detach()
        s = raw.clamp(low, high)
        precision = torch.exp(-s)
        here = present(parts, values)
        seen = values.detach().to(s.dtype)
        learns = self.training and torch.is_grad_enabled()
        if learns:
            whole = self._whole(seen, here)
            if whole is None:
                return weights * (0.5 * precision), None
            seen, here = whole
        extra = (weights * (0.5 * s) if here is None else weights * (0.5 * s) * here).sum()
        if learns:
            slope = self._slope(raw, precision, weights, seen, here)
            extra = extra + ((self.s - raw) * slope).sum()  # adds 0, and the gradient
            if not torch.compiler.is_compiling():
                self._watch(self.s)
        return weights * (0.5 * precision), extra

    def _slope(
        self, s: Tensor, precision: Tensor, weights: Tensor, values: Tensor, here: Tensor | None
    ) -> Tensor:
        """Of the total by s, at the mean over the ranks with the term; 0 outwards at a bound."""
        values, here = mean_over_ranks(values, here, self.pool)
        slope = 0.5 * weights * (1 - precision * values)
        if here is not None:
            slope = slope * here
        low, high = self.bounds
        outward = ((s <= low) & (slope > 0)) | ((s >= high) & (slope < 0))
        return torch.where(outward | ~slope.isfinite(), 0.0, slope)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"start={self.start}, bounds={self.bounds}"
