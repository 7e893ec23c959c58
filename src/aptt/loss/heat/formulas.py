"""What a heat map costs cell by cell: squared error, penalty-reduced focal, adaptive wing."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import add_product_, finite, held, power, softplus, times
from aptt.core.wing import ADAPTIVE_WING

__all__ = ["FORMULAS", "OPTIONS"]


def _square_result(x: Tensor, kept: Kept, y: Tensor) -> Tensor:
    return (x - y).square()


def _square_step(x: Tensor, up: Tensor | float, kept: Kept, y: Tensor) -> tuple[Tensor, Tensor]:
    off = x - y
    return off.square(), off.mul_(2 * up)


def _focal_result(
    x: Tensor, kept: Kept, y: Tensor, positive: Tensor | None, *, alpha: float, beta: float
) -> Tensor:
    peak, wrong = _wrong(x, y, positive)
    loss = softplus(wrong) * power(torch.sigmoid(held(wrong)), alpha)
    return times(torch.where(peak, 1.0, power(1 - y, beta)), loss)


def _focal_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    alpha: float,
    beta: float,
    in_one: bool = False,
) -> tuple[Tensor, Tensor]:
    # along the logit that is wrong, d nll = miss and d miss = miss (1 - miss), so
    # d (miss**alpha nll) = miss**alpha (miss + alpha (1 - miss) nll)
    peak, wrong = _wrong(x, y, positive)
    nll, miss = softplus(wrong), torch.sigmoid(wrong)
    fade = power(1 - y, beta)
    # a choice is faster on a CPU, and one operator more
    fade = fade.masked_fill_(peak, -1.0) if in_one else torch.where(peak, -1.0, fade)
    fade.mul_(power(miss, alpha))
    slope = add_product_(miss, 1 - miss, finite(nll), alpha).mul_(fade)
    v = nll.mul_(fade) if positive is None else times(fade, nll)
    return v.abs_(), scaled_(slope, up)


def _wrong(x: Tensor, y: Tensor, positive: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where the peaks are; and the logit of the wrong answer, which may be infinite."""
    peak = y == 1 if positive is None else positive
    return peak, torch.where(peak, -x, x)


FORMULAS = {
    "mse": Formula(_square_result, _square_step, ahead=True, block=2**17),
    "focal": Formula(
        _focal_result,
        _focal_step,
        ahead=True,
        block=2**17,
        in_one=Formula(_focal_result, partial(_focal_step, in_one=True), ahead=True),
    ),
    "awing": ADAPTIVE_WING,
}
OPTIONS = {"mse": {}, "awing": {"alpha": 2.1, "omega": 14.0, "epsilon": 1.0, "theta": 0.5}}
"""Of a kind without any of its own: the paper's, which ``adaptive_wing_loss`` has for defaults."""
