"""What is wrong over the whole: the ratio that the region losses share.

    (alpha FP + beta FN) / (I + alpha FP + beta FN)  =  1 - I / (I + alpha FP + beta FN)

The left side is computed: near 0 the right one is a difference of two nearly equal numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptt.core.engine import obstacle
from aptt.core.ordinary import batched
from aptt.core.precision import widest
from aptt.core.regions import Regions

__all__ = ["errors", "of_squares", "over", "part", "ratio"]

_LEAST = 1e-30  # the ratio that a logarithm ends at: the most that float32 leaves a gradient to


def ratio(
    regions: Regions, alpha: float, beta: float, smooth: float, *, log: bool = False
) -> Tensor:
    """The Tversky loss of each class."""
    if not log:
        return _wrong(regions.truth, regions.false, regions.missed, alpha, beta, smooth)
    # in the widest float there is: the slope of the logarithm reaches the square of what it ends at
    false, missed, found = (
        sums.to(widest(sums)) for sums in (regions.false, regions.missed, regions.common)
    )
    miss, found = errors(false, missed, alpha, beta), found + smooth
    # -log(found / whole); exact for a good overlap and for a tiny one
    return torch.log1p(over(miss, torch.maximum(found, (found + miss) * _LEAST)))


def of_squares(error: Tensor, common: Tensor, smooth: float) -> Tensor:
    """``error / (error + 2 common + 2 smooth)`` of each class."""
    return _wrong(2 * common, error, torch.zeros_like(error), 1.0, 0.0, 2 * smooth)


def _wrong(
    truth: Tensor, false: Tensor, missed: Tensor, alpha: float, beta: float, smooth: float
) -> Tensor:
    plainly = torch.compiler.is_compiling() or obstacle(false) is not None
    run = _tversky if plainly else _Tversky.apply
    loss: Tensor = run(truth, false, missed, alpha, beta, smooth)
    return loss


def errors(false: Tensor, missed: Tensor, alpha: float, beta: float) -> Tensor:
    """False positives and false negatives, each at its price."""
    if torch.compiler.is_compiling():  # to which an `alpha=` is a constant: it would compile again
        return false * alpha + missed * beta
    return torch.add(false * alpha, missed, alpha=beta)


def _tversky(
    truth: Tensor, false: Tensor, missed: Tensor, alpha: float, beta: float, smooth: float
) -> Tensor:
    return part(errors(false, missed, alpha, beta), truth - missed + smooth)


class _Tversky(torch.autograd.Function):
    """:func:`_tversky` as one step: few classes, and so many launches, cost more than they do."""

    @staticmethod
    def forward(
        ctx: Any,
        truth: Tensor,
        false: Tensor,
        missed: Tensor,
        alpha: float,
        beta: float,
        smooth: float,
    ) -> Tensor:
        miss, found = errors(false, missed, alpha, beta), truth - missed
        found = found.add_(smooth) if smooth else found
        whole = (found + miss).clamp_(min=torch.finfo(miss.dtype).tiny)
        loss = miss / whole
        ctx.save_for_backward(truth, false, missed, found, whole, loss)
        ctx.options = alpha, beta, smooth
        return loss

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        *sums, found, whole, loss = ctx.saved_tensors
        if torch.is_grad_enabled() or batched(up):  # a gradient of this one, or many at once
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                value = _tversky(*sums, *ctx.options)
            needed = ctx.needs_input_grad[:3]
            asked = [t for t, wanted in zip(sums, needed, strict=True) if wanted]
            slopes = iter(  # the sums may come from one node, which is to be there afterwards
                torch.autograd.grad(value, asked, up, retain_graph=True, create_graph=again)
            )
            return *(next(slopes) if wanted else None for wanted in needed), None, None, None
        # of miss / (found + miss): found / whole**2 by miss, and -miss / whole**2 by found
        alpha, beta, _ = ctx.options
        up = up / whole
        by_found, by_miss = up * loss, (up * found).div_(whole)
        return (
            -by_found if ctx.needs_input_grad[0] else None,
            by_miss * alpha,
            torch.add(by_found, by_miss, alpha=beta),
            None,
            None,
            None,
        )


def over(part: Tensor, whole: Tensor) -> Tensor:
    """The part of the whole; of nothing it is 0, and has no slope."""
    return part / torch.nn.functional.threshold(whole, torch.finfo(whole.dtype).tiny, torch.inf)


def part(miss: Tensor, found: Tensor) -> Tensor:
    """``miss / (miss + found)``, with slopes that are no difference of it and 1; of nothing, 0."""
    most = miss > found
    large, small = torch.where(most, miss, found), torch.where(most, found, miss)
    ratio = over(small, large)
    return torch.where(most, 1.0, ratio) / (1 + ratio)
