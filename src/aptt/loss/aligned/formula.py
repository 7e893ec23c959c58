"""What the aligned losses share: a positive asks for a target of its own, a negative fades.

    loss = nll(t)                  where positive
           alpha p**gamma nll(0)   elsewhere

Axes: x and y ``(N,)``, each element a question of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import Answer, add_product_, infinite_, power, times

__all__ = ["Ask", "aligned"]

Ask: TypeAlias = Callable[..., Answer]
"""``ask(x, q, here, *, gamma, **options)``: what logits say of t, where ``here``, and of 0."""


def aligned(ask: Ask) -> Formula:
    """The loss whose positives are asked for what ``ask`` makes of their quality."""
    return Formula(partial(_result, ask), partial(_step, ask), ahead=True, block=2**17)


def _result(
    ask: Ask,
    x: Tensor,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    gamma: float,
    alpha: float = 1.0,
    detach_factor: bool = False,
    **options: Any,
) -> Tensor:
    q = y.to(x.dtype)
    here = q > 0 if positive is None else positive
    said = ask(x, q, here, gamma=gamma, **options)
    fade = alpha * power(said.yes, gamma)
    fade = fade.detach() if detach_factor else fade
    return times(torch.where(here, 1.0, fade), said.nll)


def _step(
    ask: Ask,
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    gamma: float,
    alpha: float = 1.0,
    detach_factor: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    # share (p - t + negative gamma (1 - p) nll), where share is 1 or alpha p**gamma
    q = y.to(x.dtype)
    here = q > 0 if positive is None else positive
    said = ask(x, q, here, gamma=gamma, **options)
    p, slope, yes = said.yes, said.error, here.to(x.dtype)
    negative = 1 - yes
    if not detach_factor:
        add_product_(slope, (1 - p).mul_(negative), said.nll, gamma)
    share = torch.addcmul(yes, negative.mul_(alpha), power(p, gamma))
    return infinite_(said.nll.mul_(share)), scaled_(slope.mul_(share), up)
