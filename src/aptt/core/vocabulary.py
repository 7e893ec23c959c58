"""Cross-entropy by hand, over the whole vocabulary or over parts of it.

What a row has to know of its logits is a handful of numbers, :class:`Stats`. They are measured on
any part of the classes and merged: parts cut from one tensor (a language model's head that is never
multiplied out), or parts that live on different ranks. The gradient of a part needs the merged
numbers and that part's logits alone.

    nll    = (top - z[y]) + log(mine + rest),   mine = exp(z[y] - top),  rest: the other classes
    spread = e / open * sum_c w[c] * ((top - z[c]) + log(mine + rest)),  over the open classes
    z-loss = z_loss * w[y] * (top + log(mine + rest))**2

``rest`` is kept apart from ``mine`` so that 1 - p[y] is never a difference of two numbers near 1. A
class masked by -inf is not open, and takes no smoothing. The class axis is axis 1, and is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.reduction import Reduction, check_reduction
from aptt.core.shapes import check_number, check_positive
from aptt.core.softmax import on_class_axis
from aptt.core.streaming import Work, exp_

__all__ = [
    "Form",
    "Stats",
    "cap",
    "checked_form",
    "finish",
    "measure",
    "merge",
    "slope_",
    "times",
    "uncap_",
]


class Form(NamedTuple):
    """The numbers that choose the cross-entropy."""

    smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None


def checked_form(
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    reduction: Reduction,
) -> Form:
    """The options of a cross-entropy, held to their ranges."""
    check_reduction(reduction)
    check_number("label_smoothing", label_smoothing, 0.0, 1.0)
    check_number("z_loss", z_loss)
    if softcap is not None:
        check_positive("softcap", softcap)
    return Form(label_smoothing, z_loss, softcap)


class Stats(NamedTuple):
    """What the rows have to know of some classes; one number a row each, the class axis kept.

    The last three are there for label smoothing only.
    """

    top: Tensor
    """The largest logit."""
    mine: Tensor
    """``exp(z[y] - top)``, 0 where class y is in another part."""
    rest: Tensor
    """The sum of ``exp(z - top)`` over the other classes."""
    chosen: Tensor
    """``z[y]``, 0 where class y is in another part."""
    gap: Tensor | None = None
    """The sum of ``w[c] * (top - z[c])`` over the open classes."""
    mass: Tensor | None = None
    """The sum of ``w[c]`` over them."""
    open: Tensor | None = None
    """How many there are."""


def measure(
    z: Tensor,
    y: Tensor,
    work: Work,
    *,
    class_weight: Tensor | None,
    form: Form,
    start: int | None = None,
) -> Stats:
    """The numbers of the classes ``start, start + 1, ...`` whose (capped) logits are ``z``.

    ``y`` are class indices of the whole vocabulary, without the class axis. ``start`` is None where
    ``z`` is all of it.
    """
    at, here = _within(y, z, start)
    top = z.amax(1, keepdim=True)
    top = top if here is None else top.clamp_min(torch.finfo(z.dtype).min)  # all masked
    chosen = z.gather(1, at)
    e = exp_(torch.sub(z, top, out=work("e", z)))
    mine = e.gather(1, at)
    if here is None:
        rest = e.scatter_(1, at, 0.0).sum(1, keepdim=True)
    else:
        mine, chosen = torch.where(here, mine, 0.0), torch.where(here, chosen, 0.0)
        rest = e.scatter_add_(1, at, -mine).sum(1, keepdim=True)
    if not form.smoothing:
        return Stats(top, mine, rest, chosen)
    gap, weights = torch.sub(top, z, out=work("e", z)), _weights(class_weight, z, start)
    if _has_masked(z):
        open = (z > -torch.inf).to(z.dtype)
        gap.nan_to_num_(nan=torch.nan, posinf=0.0)
        mass = (open if weights is None else open * weights).sum(1, keepdim=True)
        count = open.sum(1, keepdim=True)
    else:
        count = torch.full_like(top, z.shape[1])
        mass = count if weights is None else weights.sum().expand_as(top)
    gap = gap if weights is None else gap.mul_(weights)
    return Stats(top, mine, rest, chosen, gap.sum(1, keepdim=True), mass, count)


def merge(a: Stats, b: Stats) -> Stats:
    """The numbers of two parts together."""
    top = torch.maximum(a.top, b.top)
    down_a, down_b = (a.top - top).exp(), (b.top - top).exp()
    merged = Stats(
        top,
        a.mine * down_a + b.mine * down_b,
        a.rest * down_a + b.rest * down_b,
        a.chosen + b.chosen,
    )
    if a.gap is None or a.mass is None or a.open is None:
        return merged
    if b.gap is None or b.mass is None or b.open is None:
        raise AssertionError("one part was measured for smoothing, the other was not")
    gap = (a.gap + a.mass * (top - a.top)) + (b.gap + b.mass * (top - b.top))
    return merged._replace(gap=gap, mass=a.mass + b.mass, open=a.open + b.open)


def finish(
    stats: Stats, scale: Tensor | float, *, form: Form, shift: Tensor | float = 0.0
) -> Tensor:
    """The loss of each row, from the numbers of the whole vocabulary.

    ``scale`` is the weight of each row's class, ``shift`` what was taken off its logits before.
    """
    top, mine, rest, chosen, *_ = stats
    log_sum = torch.log1p(rest + (mine - 1))  # of a sum that is at least 1
    loss = times((1 - form.smoothing) * scale, ((top - chosen) + log_sum).squeeze(1))
    if stats.gap is not None and stats.mass is not None and stats.open is not None:
        share = form.smoothing / stats.open.clamp_min(1)
        loss = loss + (share * (stats.gap + stats.mass * log_sum)).squeeze(1)
    if form.z_loss:
        loss = loss + form.z_loss * scale * (shift + top + log_sum).squeeze(1).square()
    return loss


def times(factor: Tensor | float, nll: Tensor) -> Tensor:
    """The product; 0 times infinity is 0, for a class masked by -inf may weigh nothing."""
    finite = nll.clamp(max=torch.finfo(nll.dtype).max)
    if isinstance(factor, Tensor):
        return factor * torch.where(factor != 0, nll, finite)
    return factor * (nll if factor else finite)


def slope_(
    out: Tensor,
    z: Tensor,
    y: Tensor,
    stats: Stats,
    up: Tensor,
    scale: Tensor | float,
    *,
    class_weight: Tensor | None,
    form: Form,
    shift: Tensor | float = 0.0,
    start: int | None = None,
) -> None:
    """Write the gradient of ``up * loss`` with respect to the logits ``z`` of a part into ``out``.

    ``up`` and ``scale`` have the class axis, or are numbers.
    """
    # d loss / d z[c] = a * p[c] - b * [c = y] - spread[c], with p[y] - 1 = -rest / total
    top, mine, rest, *_ = stats
    (at, here), total = _within(y, z, start), rest + mine
    a = b = (1 - form.smoothing) * up * scale
    if form.z_loss:
        a = a + 2 * form.z_loss * up * scale * (shift + top + total.log())
    spread = None
    if stats.mass is not None and stats.open is not None:
        share = up * (form.smoothing / stats.open.clamp_min(1))
        a = a + share * stats.mass
        weights = _weights(class_weight, z, start)
        spread = share if weights is None else share * weights
        if _has_masked(z):
            spread = spread * (z > -torch.inf)
    exp_(torch.sub(z, top, out=out)).mul_(a / total)
    of_y = ((a - b) * mine - b * rest) / total
    out.scatter_(1, at, of_y if here is None else torch.where(here, of_y, out.gather(1, at)))
    if spread is not None:
        out.sub_(spread)


def cap(x: Tensor, form: Form) -> Tensor:
    """The logits, bounded to ``(-softcap, softcap)`` where that is asked for; -inf stays."""
    if form.softcap is None:
        return x
    u = x / form.softcap
    bounded = torch.tanh(u)
    if torch.is_grad_enabled():  # 1 - tanh**2 has no digits left where tanh is nearly 1
        side = torch.where(u < 0, -1.0, 1.0)
        again = side * (1 - 2 * torch.sigmoid(-2 * side * u))
        bounded = again + (bounded - again).detach()
    return torch.where(x == -torch.inf, x, form.softcap * bounded)


def uncap_(out: Tensor, x: Tensor, form: Form) -> None:
    """Turn a gradient with respect to ``cap(x)`` into one with respect to ``x``."""
    if form.softcap is not None:
        e = (x / form.softcap).abs_().mul_(-2).exp_()
        out *= 4 * e / (1 + e).square_()


def _within(y: Tensor, z: Tensor, start: int | None) -> tuple[Tensor, Tensor | None]:
    """Where class y is in a part, and whether it is there; None: it is, in each row."""
    at = y.unsqueeze(1)
    if start is None:
        return at, None
    at = at - start
    return at.clamp(0, z.shape[1] - 1), (at >= 0) & (at < z.shape[1])


def _weights(class_weight: Tensor | None, z: Tensor, start: int | None) -> Tensor | None:
    if class_weight is None:
        return None
    start = start or 0
    return on_class_axis(class_weight[start : start + z.shape[1]], z)


def _has_masked(z: Tensor) -> bool:
    """Whether some class may be masked by -inf; on a GPU, asking would stop it."""
    return z.device.type != "cpu" or not bool(z.amin() > -torch.inf)
