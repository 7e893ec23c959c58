"""Gaussians as labels of a softmax, made where a formula wants them and never held.

A Gaussian on a grid is a softmax of squared distances, whose sum is 1 wherever the grid ends; the
logits of a grid of several axes are the sums of those of its axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aptt.core.divergence import Form
from aptt.core.formula import Formula, Kept, Product

__all__ = ["gaussian_logits", "taught"]


def gaussian_logits(y: Tensor, bins: int, sigma: float) -> Tensor:
    """Logits of a Gaussian around ``y`` ``(...)`` on bins 0 to ``bins - 1``, ``(..., bins)``.

    They are 0 at the bin n that is nearest, and as exact beside it as y is:

        ((n - y)**2 - (k - y)**2) / (2 sigma**2) = (n - k) ((k - y) + (n - y)) / (2 sigma**2)
    """
    y = y.unsqueeze(-1)
    nearest = y.detach().round().clamp(0, bins - 1)
    k = torch.arange(bins, dtype=y.dtype, device=y.device)
    return (nearest - k) * ((k - y) + (nearest - y)) * (0.5 / sigma**2)


def taught(
    divergence: Formula, labels: Callable[..., Tensor], form: Callable[..., Form]
) -> Formula:
    """A divergence from labels, whose logits are made of a block, its sides and the options.

    Only statistics and steps read them: a result is made of statistics alone, and so is the step
    of a form that does not read its prediction once more. The largest of the labels' logits is 0;
    that of the prediction is made 0 too, for their differences to have their digits.
    """

    def stats(x: Tensor, *sides: Tensor, **options: Any) -> Kept:
        top = x.detach().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
        t = labels(x, *sides, **options)
        return top, *divergence.measure(x - top, (t, None), {"form": form(**options)})

    def result(x: Tensor, kept: Kept, *sides: Tensor, **options: Any) -> Tensor:
        return divergence.result(x, kept[1:], x, None, form=form(**options))

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, *sides: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | Product]:
        t = x
        if divergence.rereads:
            x, t = x - kept[0], labels(x, *sides, **options)
        return divergence.advance(x, up, kept[1:], (t, None), {"form": form(**options)})

    return Formula(
        result,
        step,
        stats,
        block=divergence.block,
        rereads=divergence.rereads,
        in_one=divergence.in_one and taught(divergence.in_one, labels, form),
    )
