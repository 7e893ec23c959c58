"""Logits of one mean and one spread: each row less its mean, over its standard deviation.

    z = (x - mean x) / sqrt(mean (x - mean x)**2)

over the classes that are not masked by -inf, and then a divergence of :mod:`aptt.core.divergence`.
A row whose logits are all the same, but for a rounding of their level, says nothing: z is 0 there,
and so is its gradient. The class axis is axis 1, and is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.divergence import SOFT, Form
from aptt.core.formula import Formula, Kept

__all__ = ["SOFT_STANDARD", "standard"]

_ROUNDED = 4.0  # units in the last place of the largest logit


class _Standard(NamedTuple):
    """Logits of one mean and spread, and what they were."""

    z: Tensor
    open: Tensor
    """Which are not masked."""
    spread: Tensor
    """The standard deviation of each row; 1 where ``flat``."""
    flat: Tensor
    """Where all are the same."""


def standard(x: Tensor) -> Tensor:
    """``z``, which a class masked by -inf stays in as -inf. Differentiable."""
    return _standard(x).z


def _standard(x: Tensor) -> _Standard:
    # of what is left of the largest logit, for its digits; by the widest, for any unit
    open = x > -torch.inf
    n = open.sum(1, keepdim=True).clamp(min=1)
    top = x.detach().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    d = (x - top).masked_fill(~open, 0.0)
    for _ in range(2):  # the mean as rounded, and that of what is left
        d = (d - d.sum(1, keepdim=True) / n).masked_fill(~open, 0.0)
    level = x.detach().masked_fill(~open, 0.0).abs().amax(1, keepdim=True)
    widest = d.detach().abs().amax(1, keepdim=True)
    flat = widest <= _ROUNDED * torch.finfo(x.dtype).eps * level
    widest = widest.masked_fill(flat, 1.0)
    u = d / widest
    over = (u.square().sum(1, keepdim=True) / n).masked_fill(flat, 1.0).sqrt()
    z = (u / over).masked_fill(flat, 0.0).masked_fill(~open, -torch.inf)
    return _Standard(z, open, widest * over, flat)


def _standardized(soft: Formula) -> Formula:
    """A divergence of the standardised logits of both."""

    def stats(x: Tensor, t: Tensor, _: None = None, *, form: Form) -> Kept:
        return soft.measure(standard(x), (standard(t),), {"form": form})

    def result(x: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form) -> Tensor:
        value: Tensor = soft.result(x, kept, t, form=form)  # from the statistics alone
        return value

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, _: None = None, *, form: Form
    ) -> tuple[None, Tensor]:
        # dz, less what moves the mean or the spread: (dz - mean dz - z mean (z dz)) / spread
        assert soft.step is not None
        z, open, spread, flat = _standard(x)
        dz = soft.step(z, up, kept, standard(t), form=form)[1]
        assert isinstance(dz, Tensor)
        dz, z = dz.masked_fill_(~open, 0.0), z.masked_fill(~open, 0.0)
        n = open.sum(1, keepdim=True).clamp(min=1)
        along = (z * dz).sum(1, keepdim=True) / n
        dz = dz.sub_(dz.sum(1, keepdim=True) / n).sub_(z.mul_(along)).div_(spread)
        return None, dz.masked_fill_(flat | ~open, 0.0)

    return Formula(result, step, stats)


SOFT_STANDARD = {name: _standardized(soft) for name, soft in SOFT.items()}
"""The formulas of student logits, with one side, the teacher logits; a second one is None."""
