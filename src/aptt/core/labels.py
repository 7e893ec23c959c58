"""Gaussians as labels of a softmax, made where a formula wants them and never held.

A Gaussian on a grid is a softmax of squared distances, whose sum is 1 wherever the grid ends; the
logits of a grid of several axes are the sums of those of its axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aptt.core.divergence import SOFT, Form, at_least_0
from aptt.core.formula import Formula, Kept, Product, by_row
from aptt.core.softmax import exp_of_gaps_, largest

__all__ = ["KL", "gaussian_logits", "taught"]


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
        top = largest(x)
        t = labels(x, *sides, **options)
        return top, *divergence.measure(x - top, (t,), {"form": form(**options)})

    def result(x: Tensor, kept: Kept, *sides: Tensor, **options: Any) -> Tensor:
        return divergence.result(x, kept[1:], x, form=form(**options))

    def step(
        x: Tensor, up: Tensor | float, kept: Kept, *sides: Tensor, **options: Any
    ) -> tuple[Tensor | None, Tensor | Product]:
        t = x
        if divergence.rereads:
            x, t = x - kept[0], labels(x, *sides, **options)
        return divergence.advance(x, up, kept[1:], (t,), {"form": form(**options)})

    return Formula(
        result,
        step,
        stats,
        block=divergence.block,
        rereads=divergence.rereads,
        in_one=divergence.in_one and taught(divergence.in_one, labels, form),
    )


# ----------------------------------------------------- KL(label || softmax), both tops being 0
#
# Of labels that are 1e5 below their top a few bins on, as sharp ones are, and of logits at any
# level: sums are compared by that of a - b, and log-ratios count by the label's share alone.

_MASKED = 1e4  # the log-ratio of a bin that one of the two masks by -inf


def _shares(x: Tensor, t: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    by = 1 / form.temperature
    return exp_of_gaps_(x * by), exp_of_gaps_(t * by)


def _sum(t: Tensor) -> Tensor:
    return t.sum(1, keepdim=True)


def _kl_stats(x: Tensor, t: Tensor, _: None = None, *, form: Form) -> Kept:
    a, b = _shares(x, t, form)
    ratio = ((x - t) * (1 / form.temperature)).nan_to_num(0.0, _MASKED, -_MASKED)
    return _sum(a), _sum(b), _sum(a - b), _sum(ratio * b)


def _kl_result(x: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form) -> Tensor:
    e, f, more, dot = kept
    # log(e / f); at 0, one of the two halves passes the gradient on
    level = (more.clamp(min=0) / f).log1p() - (torch.relu(-more) / e).log1p()
    value = level - dot / f
    return (form.soft * at_least_0(value)).squeeze(1)


def _kl_step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, _: None = None, *, form: Form
) -> tuple[None, Tensor]:
    # p - label = a / e - b / f = (a - b) / e - b (e - f) / (e f)
    e, f, more, _dot = kept
    a, b = _shares(x, t, form)
    b = torch.ops.aten.threshold_backward(b, x, torch.finfo(x.dtype).min)  # masked: no gradient
    by = by_row(up) * (form.soft / form.temperature) / e
    return None, a.sub_(b).mul_(by).addcmul_(b, by * more / f, value=-1)


KL = Formula(_kl_result, _kl_step, _kl_stats, in_one=SOFT["forward_kl"].in_one)
