"""Cross-entropy over the whole vocabulary, or over parts of it.

What a row has to know of its logits is a handful of numbers, :class:`Stats`. They are measured on
any part of the classes and merged: parts cut from one tensor (a language model's head that is never
multiplied out), or parts that live on different ranks. The gradient of a part needs the merged
numbers and that part's logits alone.

    loss   = (1 - e) w[y] nll + e / open * sum_c w[c] (lse - z[c]) + z_loss w[y] lse**2

with ``nll``, ``miss``, ``top``, ``rest`` and ``gap`` as :mod:`aptt.core.softmax` has them, and

    slack  = sum of w[c] (top - z[c])    mass = sum of w[c]     over the other open classes

so that ``sum_c w[c] (lse - z[c]) = w[y] nll + slack + mass * (lse - top)``. A class masked by -inf
is not open, and takes no smoothing. The class axis is axis 1, and is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import check_number, check_positive
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.softmax import (
    Against,
    exp_of_gaps,
    exp_of_gaps_,
    largest,
    of_class,
    on_class_axis,
    put_class_,
    with_class,
)

__all__ = [
    "Form",
    "Stats",
    "cap",
    "checked_form",
    "finish",
    "measure",
    "merge",
    "slope",
    "times",
    "uncap",
]


class Form(NamedTuple):
    """The numbers that choose the cross-entropy; what is None takes no part."""

    smoothing: float | None = None
    z_loss: float | None = None
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
    return Form(label_smoothing or None, z_loss or None, softcap)


class Stats(NamedTuple):
    """What the rows have to know of some classes; one number a row each, the class axis kept.

    The last three are there for label smoothing only.
    """

    top: Tensor
    """The largest logit of the classes other than y."""
    rest: Tensor
    """The sum of ``exp(z - top)`` over them."""
    mine: Tensor
    """``z[y]``, 0 where class y is in another part."""
    slack: Tensor | None = None
    """The sum of ``w[c] * (top - z[c])`` over those that are open."""
    mass: Tensor | None = None
    """The sum of ``w[c]`` over them."""
    open: Tensor | None = None
    """How many there are."""

    @property
    def against(self) -> Against:
        """What speaks against class y, once all parts are merged."""
        return Against.of(self.top, self.rest, self.mine)

    def log_sum(self) -> tuple[Tensor, Tensor]:
        """What to add up to ``lse``: the largest logit of all, and the rest, which is not large."""
        base = torch.maximum(self.top, self.mine.detach())
        return base, (self.rest * (self.top - base).exp() + (self.mine - base).exp()).log()


def measure(
    z: Tensor, y: Tensor, *, class_weight: Tensor | None, form: Form, start: int | None = None
) -> Stats:
    """The numbers of the classes ``start, start + 1, ...`` whose (capped) logits are ``z``.

    ``y`` are class indices of the whole vocabulary, without the class axis. ``start`` is None where
    ``z`` is all of it. Differentiable.
    """
    at, here = _within(y, z, start)
    mine = of_class(z, at)
    others = with_class(z, at, -torch.inf if here is None else torch.where(here, -torch.inf, mine))
    mine = mine if here is None else torch.where(here, mine, 0.0)
    top = largest(others)
    gap = others.sub_(top)  # which is a copy already
    if form.smoothing is None:
        return Stats(top, exp_of_gaps_(gap).sum(1, keepdim=True), mine)
    masked = torch.finfo(z.dtype).min
    slack = -torch.nn.functional.threshold(gap, masked, 0.0)  # a choice in one operator
    open = (gap > masked).to(z.dtype)
    count = open.sum(1, keepdim=True)
    mass = count
    if class_weight is not None:
        weights = _weights(class_weight, z, start)
        slack, mass = slack * weights, (open * weights).sum(1, keepdim=True)
    slack = slack.sum(1, keepdim=True)
    return Stats(top, exp_of_gaps(gap).sum(1, keepdim=True), mine, slack, mass, count)


def merge(a: Stats, b: Stats) -> Stats:
    """The numbers of two parts together."""
    top = torch.maximum(a.top, b.top)
    rest = a.rest * (a.top - top).exp() + b.rest * (b.top - top).exp()
    merged = Stats(top, rest, a.mine + b.mine)
    if a.slack is None or a.mass is None or a.open is None:
        return merged
    if b.slack is None or b.mass is None or b.open is None:
        raise AssertionError("one part was measured for smoothing, the other was not")
    slack = (a.slack + a.mass * (top - a.top)) + (b.slack + b.mass * (top - b.top))
    return merged._replace(slack=slack, mass=a.mass + b.mass, open=a.open + b.open)


def finish(
    stats: Stats, scale: Tensor | None, *, form: Form, shift: Tensor | None = None
) -> Tensor:
    """The loss of each row, from the numbers of the whole vocabulary.

    ``scale`` is the weight of each row's class, with the class axis; ``shift`` is what was taken
    off its logits before.
    """
    nll = stats.against.nll
    loss = nll if scale is None else times(scale, nll)
    if form.smoothing is None and form.z_loss is None:
        return loss.squeeze(1)
    base, level = stats.log_sum()
    if form.smoothing is not None and stats.slack is not None and stats.mass is not None:
        mine = torch.where(stats.mine > -torch.inf, loss, 0.0)
        # where no other class is open, top is none that mass could have a slope in
        above = torch.where(stats.rest > 0, base - stats.top, 0.0) + level
        spread = mine + (stats.slack + stats.mass * above)
        loss = times(1 - form.smoothing, loss) + _share(stats, form) * spread
    if form.z_loss is not None:
        square = (base + level if shift is None else shift + base + level).square()
        loss = loss + form.z_loss * (square if scale is None else scale * square)
    return loss.squeeze(1)


def times(factor: Tensor | float, nll: Tensor) -> Tensor:
    """The product; 0 times infinity is 0, for a class masked by -inf may weigh nothing."""
    if not isinstance(factor, Tensor) and factor:
        return factor * nll
    finite = nll.clamp(max=torch.finfo(nll.dtype).max)
    if isinstance(factor, Tensor):
        return factor * torch.where(factor != 0, nll, finite)
    return factor * finite


def slope(
    z: Tensor,
    y: Tensor,
    stats: Stats,
    up: Tensor | float,
    scale: Tensor | None,
    *,
    class_weight: Tensor | None,
    form: Form,
    shift: Tensor | None = None,
    start: int | None = None,
    more: Tensor | None = None,
) -> Tensor:
    """The gradient of ``up * loss + more * lse`` with respect to the logits ``z`` of a part.

    ``up``, ``scale`` and ``more`` have the class axis, or ``up`` is one number.
    """
    # d loss / d z[c] = every * p[c] - spread[c], less hard at y. There, with the part of every that
    # is not hard, it is part * (1 - miss) - hard * miss - spread, and part - spread[y] = own
    at, here = _within(y, z, start)
    share = stats.against.share
    hard = up if scale is None else up * scale
    every: Tensor | float = hard
    own = spread = None
    if form.smoothing is not None and stats.mass is not None:
        each = up * _share(stats, form)
        mine = (stats.mine > -torch.inf).to(z.dtype)
        own = each * stats.mass
        every = hard * (1 - form.smoothing) + own + each * (mine if scale is None else mine * scale)
        spread = each if class_weight is None else each * _weights(class_weight, z, start)
        spread = spread * (z > -torch.inf)
    if form.z_loss is not None:
        base, level = stats.log_sum()
        lse = base + level if shift is None else shift + base + level
        square = (2 * form.z_loss) * hard * lse
        more = square if more is None else more + square
    if more is not None:
        own, every = more if own is None else own + more, every + more
    dz = exp_of_gaps_(z - stats.top).mul_(every * share)
    dz = dz if spread is None else dz.sub_(spread)
    of_y = every * (stats.rest * share)
    of_y = -of_y if own is None else own - of_y
    return put_class_(dz, at, of_y if here is None else torch.where(here, of_y, of_class(dz, at)))


def cap(x: Tensor, form: Form) -> Tensor:
    """The logits, bounded to ``(-softcap, softcap)`` where that is asked for; -inf stays."""
    if form.softcap is None:
        return x
    u = x / form.softcap
    bounded = torch.tanh(u)
    if torch.is_grad_enabled():  # 1 - tanh**2 has no digits left where tanh is nearly 1
        side = torch.where(u < 0, -1.0, u.new_ones(()))
        again = side * (1 - 2 * torch.sigmoid(-2 * side * u))
        bounded = again + (bounded - again).detach()
    return torch.where(x == -torch.inf, x, form.softcap * bounded)


def uncap(dz: Tensor, x: Tensor, form: Form) -> Tensor:
    """Turn a gradient with respect to ``cap(x)`` into one with respect to ``x``."""
    if form.softcap is None:
        return dz
    e = ((-2 / form.softcap) * x.abs()).exp()
    return dz * (4 * e / (1 + e).square())


def _share(stats: Stats, form: Form) -> Tensor:
    """What smoothing gives to each open class."""
    assert stats.open is not None
    assert form.smoothing is not None
    return form.smoothing / (stats.open + (stats.mine > -torch.inf)).clamp(min=1)


def _within(y: Tensor, z: Tensor, start: int | None) -> tuple[Tensor, Tensor | None]:
    """Where class y is in a part, and whether it is there; None: it is, in each row."""
    if start is None:
        return y, None
    at = y - start
    here = (at >= 0) & (at < z.shape[1])
    return at.clamp(0, z.shape[1] - 1), here.unsqueeze(1)


def _weights(class_weight: Tensor, z: Tensor, start: int | None) -> Tensor:
    start = start or 0
    return on_class_axis(class_weight[start : start + z.shape[1]], z)
