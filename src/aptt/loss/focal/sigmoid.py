"""Focal loss of independent yes-or-no questions.

    miss = sigmoid(wrong),    wrong = x where the answer is no, -x where it is yes
    loss = alpha * miss**gamma * softplus(wrong)

Axes: logits and target ``*N``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.axes import align_elements
from aptt.core.checks import IgnoreIndex, Numbers, check_binary, ignored, kept
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import add_product_, finite, held, power, sign, softplus, times
from aptt.core.shapes import check_vector, one_or_each
from aptt.core.softmax import on_class_axis

__all__ = ["SIGMOID", "elements"]


def elements(
    logits: Tensor,
    target: Tensor,
    alpha: float | Numbers | Literal["auto"] | None,
    weight: Numbers | None,
    ignore_index: IgnoreIndex,
    class_dim: int | None,
) -> tuple[Tensor, Tensor, Tensor | None, float | Tensor | None]:
    """A call of questions as logits, answers, their weights and alpha, held to their shapes."""
    if isinstance(alpha, str):
        alpha = 0.25
    elif alpha is not None:
        alpha = one_or_each("alpha", alpha, logits, high=1.0)
    by_class = isinstance(alpha, Tensor) and alpha.ndim > 0
    x, y, w = align_elements(logits, target, weight, by_class=by_class, class_dim=class_dim)
    if isinstance(alpha, Tensor) and by_class:
        alpha = on_class_axis(check_vector("alpha", alpha, x, signed=True), x)
    removed = ignored(ignore_index, indexed=False)
    check_binary(y, removed, keep=None if w is None else w != 0)
    if removed is not None:
        keep = kept(y, removed)
        y = torch.where(keep, y, 0)
        w = keep if w is None else torch.where(keep, w, 0)
    return x, y, w, alpha


def _result(
    x: Tensor, kept: Kept, y: Tensor, *, alpha: Tensor | float | None, gamma: float
) -> Tensor:
    y = y.to(x.dtype)
    wrong = sign(y) * x
    loss = softplus(wrong) * power(torch.sigmoid(held(wrong)), gamma)
    return loss if alpha is None else times(alpha * y + (1 - alpha) * (1 - y), loss)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    alpha: Tensor | float | None,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    # along the logit that is wrong, d nll = miss and d miss = miss (1 - miss), so
    # d (miss**gamma nll) = miss**gamma (miss + gamma (1 - miss) nll)
    y = y.to(x.dtype)
    turn = sign(y)
    wrong = turn * x
    nll, miss = softplus(wrong), torch.sigmoid(wrong)
    share = turn
    if isinstance(alpha, Tensor) or (alpha is not None and torch.compiler.is_compiling()):
        share = (1 - alpha) * (1 - y) - alpha * y
    elif alpha is not None:
        share = turn.clamp(-alpha, 1 - alpha)
    fade = share * power(miss, gamma)
    slope = add_product_(miss, 1 - miss, finite(nll), gamma).mul_(fade)
    none = isinstance(alpha, Tensor) or alpha in (0, 1)  # of the classes, one may weigh nothing
    v = times(fade, nll) if none else nll.mul_(fade)
    return v.abs_(), scaled_(slope, up)


SIGMOID = Formula(_result, _step, ahead=True, block=2**17)
