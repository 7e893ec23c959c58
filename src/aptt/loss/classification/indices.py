"""The cross-entropy of rows of logits and class indices, for the engine and for a linear head.

INDICES            in blocks; in one block, or of few rows, what is read once is held
NLL                the same, where nothing but the classes themselves takes part
INDICES_AND_LSE    the loss without its z-loss, and the log-sum-exp beside it: two values a row
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from aptt.core.formula import Formula, Kept, Product, by_row, scaled_
from aptt.core.held import Held, held_loss, held_slope, hold
from aptt.core.precision import widen
from aptt.core.vocabulary import Form, Stats, finish, measure, slope, uncap
from aptt.loss.classification.adjusted import counted_logits

__all__ = ["INDICES", "INDICES_AND_LSE", "NLL"]


def _hard_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = counted_logits(x, adjustment, form)
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
    z, _ = counted_logits(x, adjustment, form)
    stats, shift = _known(kept, adjustment)
    scale = _of_row(class_weight, y)
    dz = slope(z, y, stats, by_row(up), scale, class_weight=class_weight, form=form, shift=shift)
    return None, uncap(dz, x, form)


def _of_row(class_weight: Tensor | None, y: Tensor) -> Tensor | None:
    """The weight of each row's class."""
    return None if class_weight is None else class_weight[y].unsqueeze(1)


# --------------------------------------------------- where what is read once can be held


def _held_stats(
    x: Tensor, y: Tensor, *, class_weight: Tensor | None, adjustment: Tensor | None, form: Form
) -> Kept:
    z, shift = counted_logits(x, adjustment, form)
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
    z = x if form.smoothing is None else counted_logits(widen(x), adjustment, form)[0]
    held = Held.of(kept, weighted=class_weight is not None, form=form)
    scale = _of_row(class_weight, y)
    dz = held_slope(held, z, y, by_row(up), scale, class_weight=class_weight, form=form)
    if form.softcap is None:
        return None, dz
    x = widen(x)
    return None, uncap(dz.of(x.dtype) if isinstance(dz, Product) else dz, x, form)


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


# -------------------------------------------------------------- the log-sum-exp beside it


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
    z, _ = counted_logits(x, adjustment, form)
    stats, shift = _known(kept, adjustment)
    of_loss, more = up.split(1, 1)
    scale = _of_row(class_weight, y)
    dz = slope(
        z, y, stats, of_loss, scale, class_weight=class_weight, form=form, shift=shift, more=more
    )
    return None, uncap(dz, x, form)


_HELD = Formula(_held_result, _held_step, _held_stats, rereads=False)
INDICES = Formula(_hard_result, _hard_step, _hard_stats, block=2**19, in_one=_HELD, few=_HELD)
NLL = replace(INDICES, few=Formula(_nll_result, _nll_step, ahead=True))
INDICES_AND_LSE = Formula(_hard_result_and_lse, _hard_step_and_lse, _hard_stats, block=2**19)
