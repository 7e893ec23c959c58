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
from aptt.core.softmax import largest

__all__ = ["SOFT_STANDARD", "standard"]

_ROUNDED = 4.0  # units in the last place of the largest logit


class _Fit(NamedTuple):
    """What each row is brought to one mean and spread by."""

    top: Tensor
    """The largest logit."""
    mean: Tensor
    """That of what the others are below it."""
    spread: Tensor
    """The standard deviation; infinite where all are the same."""

    def of(self, x: Tensor) -> Tensor:
        """The standardised logits; what is masked by -inf stays so."""
        open = x > -torch.inf
        below = torch.where(open, x - self.top, 0.0)  # whose gradient is a number
        return torch.where(open, (below - self.mean) / self.spread, -torch.inf)


def standard(x: Tensor) -> Tensor:
    """The standardised logits. Differentiable."""
    return _fit(x).of(x)


def _fit(x: Tensor) -> _Fit:
    # of what logits are below the largest, for their digits; by the widest, for any unit
    open = x > -torch.inf
    n = _open(open)
    top = largest(x)
    below = torch.where(open, x - top, 0.0)
    mean = below.sum(1, keepdim=True) / n
    off = torch.where(open, below - mean, 0.0)
    widest = off.detach().abs().amax(1, keepdim=True)
    flat = widest <= top.abs() * (_ROUNDED * torch.finfo(x.dtype).eps)
    widest = widest.masked_fill(flat, torch.inf)
    square = (off / widest).square().sum(1, keepdim=True) / n
    return _Fit(top, mean, square.masked_fill(flat, 1.0).sqrt() * widest)


def _open(open: Tensor) -> Tensor:
    return open.sum(1, keepdim=True).clamp(min=1)


def _standardized(soft: Formula) -> Formula:
    """A divergence of the standardised logits of both."""

    def stats(x: Tensor, t: Tensor, _: None = None, *, form: Form) -> Kept:
        of_x, of_t = _fit(x), _fit(t)
        return (*soft.measure(of_x.of(x), (of_t.of(t),), {"form": form}), *of_x, *of_t)

    def result(x: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form) -> Tensor:
        value: Tensor = soft.result(x, kept[:-6], t, form=form)  # from the statistics alone
        return value

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, _: None = None, *, form: Form
    ) -> tuple[None, Tensor]:
        # dz, less what moves the mean or the spread: (dz - mean dz - z mean (z dz)) / spread
        assert soft.step is not None
        of_x, of_t = _Fit(*kept[-6:-3]), _Fit(*kept[-3:])
        z, open = of_x.of(x), x > -torch.inf
        dz = soft.step(z, up, kept[:-6], of_t.of(t), form=form)[1]
        assert isinstance(dz, Tensor)
        n, dz, z = _open(open), torch.where(open, dz, 0.0), torch.where(open, z, 0.0)
        along = (z * dz).sum(1, keepdim=True) / n
        dz = dz.sub_(dz.sum(1, keepdim=True) / n).sub_(z.mul_(along)).div_(of_x.spread)
        return None, torch.where(open, dz, 0.0)

    return Formula(result, step, stats)


SOFT_STANDARD = {name: _standardized(soft) for name, soft in SOFT.items()}
"""The formulas of student logits, with one side, the teacher logits; a second one is None."""
