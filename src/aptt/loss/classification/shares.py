"""The cross-entropy of rows of logits and soft targets, for the engine and for a linear head.

SHARES            a share for each class
SHARES_AND_LSE    the loss without its z-loss, and the log-sum-exp beside it: two values a row
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, by_row
from aptt.core.softmax import exp_of_gaps_, gaps, leading, on_class_axis, others, put_class_
from aptt.core.vocabulary import Form, uncap
from aptt.loss.classification.adjusted import counted_logits

__all__ = ["SHARES", "SHARES_AND_LSE"]


def _soft_stats(
    x: Tensor, t: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = counted_logits(x, adjustment, form)
    lead = leading(z)
    kept = lead.at, lead.top, lead.rest
    return kept if shift is None else (*kept, shift)


def _soft_result(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    (z, _), (at, top, rest, *shift) = counted_logits(x, adjustment, form), kept
    mass = t if class_weight is None else t * on_class_axis(class_weight, z)
    goal = mass if form.smoothing is None else _smoothed(mass, z, class_weight, form)
    level = rest.log1p()
    gap = level - gaps(z, top, at)
    gap = torch.where((z > -torch.inf) | (t != 0), gap, 0.0)  # a masked class that is not asked for
    loss = (goal * gap).sum(1)
    if form.z_loss is not None:
        lse = sum(shift, top + level).squeeze(1)
        loss = loss + form.z_loss * mass.sum(1) * lse.square()
    return loss


def _soft_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor]:
    return None, _soft_slope(x, up, kept, t, class_weight, adjustment, form)


def _soft_slope(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
    *,
    more: Tensor | None = None,
) -> Tensor:
    """The gradient of ``up * loss + more * lse``."""
    # d loss / d z[c] = every * p[c] - goal[c], of which at the largest logit, with the part of
    # every that is not its goal, part - every * (1 - p)
    (z, _), (at, top, rest, *shift) = counted_logits(x, adjustment, form), kept
    mass = t if class_weight is None else t * on_class_axis(class_weight, z)
    goal = mass if form.smoothing is None else _smoothed(mass, z, class_weight, form)
    part, own = others(goal, at)
    if form.z_loss is not None:
        lse = sum(shift, top + rest.log1p())
        part = part + (2 * form.z_loss) * mass.sum(1, keepdim=True) * lse
    up = by_row(up)
    if more is not None:
        part, own, goal = up * part + more, up * own, up * goal
    share = (part + own) / (1 + rest)
    dz = exp_of_gaps_(z - top).mul_(share).sub_(goal)
    dz = put_class_(dz, at, part - rest * share)
    return uncap(dz if more is not None else dz.mul_(up), x, form)


def _smoothed(mass: Tensor, z: Tensor, class_weight: Tensor | None, form: Form) -> Tensor:
    """The target with its share spread over the classes; none goes to those masked by -inf."""
    assert form.smoothing is not None
    open = (z > -torch.inf).to(z.dtype)
    spread = open * (form.smoothing / open.sum(1, keepdim=True).clamp(min=1))
    if class_weight is not None:
        spread = spread * on_class_axis(class_weight, z)
    return (1 - form.smoothing) * mass + spread


def _soft_result_and_lse(
    x: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    _, top, rest, *shift = kept
    loss = _soft_result(x, kept, t, class_weight=class_weight, adjustment=adjustment, form=form)
    return torch.cat((loss.unsqueeze(1), sum(shift, top + rest.log1p())), 1)


def _soft_step_and_lse(
    x: Tensor,
    up: Tensor,
    kept: Kept,
    t: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor]:
    return None, _soft_slope(x, up[:, 0], kept, t, class_weight, adjustment, form, more=up[:, 1:])


SHARES = Formula(_soft_result, _soft_step, _soft_stats, block=2**19)
SHARES_AND_LSE = Formula(_soft_result_and_lse, _soft_step_and_lse, _soft_stats, block=2**19)
