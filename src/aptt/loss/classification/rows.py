"""The cross-entropy of rows of logits as formulas for the engine, and for a linear head.

INDICES    of class indices
NLL        the same, of the plain form
SHARES     of soft targets, a share for each class

with ``_AND_LSE`` the loss without its z-loss, and the log-sum-exp beside it: two values a row.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, Product, by_row, scaled_
from aptt.core.precision import widen
from aptt.core.softmax import (
    exp_of_gaps,
    gaps,
    leading,
    on_class_axis,
    others,
    put_class_,
)
from aptt.core.vocabulary import (
    Form,
    Held,
    Stats,
    cap,
    finish,
    held_loss,
    held_slope,
    hold,
    measure,
    slope,
    uncap,
)

__all__ = ["INDICES", "INDICES_AND_LSE", "NLL", "SHARES", "SHARES_AND_LSE"]


def _hard_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
    stats = measure(z, y, class_weight=class_weight, form=form)
    return (*(t for t in stats if t is not None), *(() if shift is None else (shift,)))


def _known(kept: Kept, adjustment: Tensor | None) -> tuple[Stats, Tensor | None]:
    """The statistics, and what was taken off the logits before they were measured."""
    return (Stats(*kept), None) if adjustment is None else (Stats(*kept[:-1]), kept[-1])


def _hard_result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    stats, shift = _known(kept, adjustment)
    return finish(stats, _of_row(class_weight, y), form=form, shift=shift)


def _hard_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor]:
    z, _ = _logits(x, adjustment, form)
    stats, shift = _known(kept, adjustment)
    scale = _of_row(class_weight, y)
    dz = slope(z, y, stats, by_row(up), scale, class_weight=class_weight, form=form, shift=shift)
    return None, uncap(dz, x, form)


def _held_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
    held = hold(z, y, class_weight=class_weight, form=form)
    if shift is not None and held.lse is not None:
        held = held._replace(lse=shift + held.lse)
    return tuple(t for t in held if t is not None)


def _held_result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    held = Held.of(kept, weighted=class_weight is not None, form=form)
    return held_loss(held, _of_row(class_weight, y), form=form)


def _held_step(
    x: Tensor,
    up: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor | Product]:
    z = x if form.smoothing is None else _logits(widen(x), adjustment, form)[0]
    held = Held.of(kept, weighted=class_weight is not None, form=form)
    scale = _of_row(class_weight, y)
    dz = held_slope(held, z, y, by_row(up), scale, class_weight=class_weight, form=form)
    if form.softcap is None:
        return None, dz
    x = widen(x)
    return None, uncap(dz.of(x.dtype) if isinstance(dz, Product) else dz, x, form)


def _of_row(class_weight: Tensor | None, y: Tensor) -> Tensor | None:
    """The weight of each row's class."""
    return None if class_weight is None else class_weight[y].unsqueeze(1)


def _nll_result(x: Tensor, kept: Kept, y: Tensor, **_: object) -> Tensor:
    return _nll(x, y.unsqueeze(1))[0]


def _nll_step(
    x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, **_: object
) -> tuple[Tensor, Tensor]:
    at = y.unsqueeze(1)
    v, p, miss = _nll(x, at)
    return v, scaled_(p.scatter_(1, at, miss.neg_()), by_row(up))


def _nll(x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, infinite where p[y] is too little to be held; p, 0 at y; and ``1 - p[y]``."""
    p = x.softmax(1)
    right = p.gather(1, at)
    miss = p.scatter_(1, at, 0.0).sum(1, keepdim=True)
    return (miss / right).log1p_().squeeze(1), p, miss


def _soft_stats(
    x: Tensor, t: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = _logits(x, adjustment, form)
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
    (z, _), (at, top, rest, *shift) = _logits(x, adjustment, form), kept
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
    (z, _), (at, top, rest, *shift) = _logits(x, adjustment, form), kept
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
    dz = exp_of_gaps(z - top).mul_(share).sub_(goal)
    dz = put_class_(dz, at, part - rest * share)
    return uncap(dz if more is not None else dz.mul_(up), x, form)


def _hard_result_and_lse(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> Tensor:
    stats, shift = _known(kept, adjustment)
    base, level = stats.log_sum()
    lse = base + level if shift is None else shift + base + level
    loss = finish(stats, _of_row(class_weight, y), form=form, shift=shift)
    return torch.cat((loss.unsqueeze(1), lse), 1)


def _hard_step_and_lse(
    x: Tensor,
    up: Tensor,
    kept: Kept,
    y: Tensor,
    *,
    class_weight: Tensor | None,
    adjustment: Tensor | None,
    form: Form,
) -> tuple[None, Tensor]:
    z, _ = _logits(x, adjustment, form)
    stats, shift = _known(kept, adjustment)
    of_loss, more = up.split(1, 1)
    scale = _of_row(class_weight, y)
    dz = slope(
        z, y, stats, of_loss, scale, class_weight=class_weight, form=form, shift=shift, more=more
    )
    return None, uncap(dz, x, form)


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


_HELD = Formula(_held_result, _held_step, _held_stats, rereads=False)
INDICES = Formula(_hard_result, _hard_step, _hard_stats, block=2**19, in_one=_HELD, few=_HELD)
NLL = replace(INDICES, few=Formula(_nll_result, _nll_step, ahead=True))
"""Of class indices, where nothing but the classes themselves takes part."""
SHARES = Formula(_soft_result, _soft_step, _soft_stats, block=2**19)
INDICES_AND_LSE = Formula(_hard_result_and_lse, _hard_step_and_lse, _hard_stats, block=2**19)
SHARES_AND_LSE = Formula(_soft_result_and_lse, _soft_step_and_lse, _soft_stats, block=2**19)


def _smoothed(mass: Tensor, z: Tensor, class_weight: Tensor | None, form: Form) -> Tensor:
    """The target with its share spread over the classes; none goes to those masked by -inf."""
    assert form.smoothing is not None
    open = (z > -torch.inf).to(z.dtype)
    spread = open * (form.smoothing / open.sum(1, keepdim=True).clamp(min=1))
    if class_weight is not None:
        spread = spread * on_class_axis(class_weight, z)
    return (1 - form.smoothing) * mass + spread


def _logits(x: Tensor, adjustment: Tensor | None, form: Form) -> tuple[Tensor, Tensor | None]:
    """The logits that count, less a shift per row that lets small adjustments of large ones in."""
    z = cap(x, form)
    if adjustment is None:
        return z, None
    shift = z.detach().amax(1, keepdim=True)
    return (z - shift) + on_class_axis(adjustment, z), shift
