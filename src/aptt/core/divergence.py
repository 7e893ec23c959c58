"""How far a student's softmax is from its teacher's: two KL divergences, and the one between them.

    a    = exp((student - its largest) / T)    q = a / sum a
    b    = exp((teacher - its largest) / T)    p = b / sum b
    w    = log(a / b)                          m = beta * p + (1 - beta) * q

    forward_kl    sum p log(p / q) = log(sum a / sum b) - sum p w
    reverse_kl    sum q log(q / p) = sum q w - log(sum a / sum b)
    jsd           beta * sum p log(p / m) + (1 - beta) * sum q log(q / m)

These are sums of what nearly cancels where student and teacher are nearly the same. As p and q each
have a sum of 1, and ``p - q = (p + q) tanh y`` with ``y = log(p / q) / 2``, the same of terms that
are nowhere below 0 is

    sum p log(p / q) - p + q = sum (p + q) (y tanh y + y - tanh y)

whose last two are ``y tanh y (y / 3 - y**3 / 45)`` where y is small. ``w`` is taken from the
logits, and what a rounding of ``log(sum a / sum b)`` moved shows in the sum of ``(p + q) tanh y``,
which is 0 for the right one. So loss and gradient have the digits of the logits' differences,
however close the two are and however sure of a class.

In one block, as on an accelerator, ``forward_kl`` is made of two log-softmaxes, which are rounded
at ``log C``: exact within 1e-6 there, and 0 for a student that is its teacher. Where the student
alone masks a class, ``log(p / q)`` is 1e4 there, and 1e4 + log(sum a / sum b) elsewhere. The class
axis is axis 1, and is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.exponential import expm1, tanh_of_half
from aptt.core.formula import Formula, Kept, Product, by_row
from aptt.core.softmax import largest

__all__ = [
    "BY_NAME",
    "HERE",
    "SOFT",
    "Divergence",
    "Excess",
    "Form",
    "Over",
    "at_least_0",
    "excess_of",
]


class Form(NamedTuple):
    """The numbers that choose the loss; what is None takes no part."""

    temperature: float
    beta: float
    soft: float
    """The factor of the divergence, T**2 included."""
    hard: float | None = None
    """That of the cross-entropy beside it."""


class Over:
    """What a row takes of its classes, all of which are here; over ranks, what all of them have."""

    def tops(self, *logits: Tensor) -> Sequence[Tensor]:
        """The largest of each row."""
        return [largest(z) for z in logits]

    def sums(self, *parts: Tensor) -> Sequence[Tensor]:
        """The sum of each row."""
        return [_sum(t) for t in parts]


HERE = Over()


class Divergence(NamedTuple):
    """One of the three: numbers of each row, the value from them, the gradient times ``scale``."""

    sums: Callable[[Tensor, Tensor, Form, Over], Kept]
    value: Callable[[Kept, Form], Tensor]
    slope: Callable[[Tensor, Tensor, Kept, Tensor | float, Form], Tensor]


_FAR = 1e4  # the log-ratio of a class that one of the two masks by -inf
_NOTHING = 80.0  # exp(-80) of a probability is nothing beside it, to float64's last digit


def _soften(z: Tensor, top: Tensor, form: Form) -> Tensor:
    """``exp((z - top) / T)``, by ``exp2``, which does not crawl where results underflow."""
    return (z - top).mul_(1 / (math.log(2) * form.temperature)).exp2_()


def _log_ratio(
    x: Tensor, t: Tensor, top: Tensor, peak: Tensor, form: Form, *, masked: float = _FAR
) -> Tensor:
    """``w``, exact where the logits are close; ``masked`` where only the teacher masks a class."""
    ratio = (x - t).sub_(top - peak).mul_(1 / form.temperature)
    return ratio.nan_to_num_(nan=0.0, posinf=masked, neginf=-_FAR)


def _sum(t: Tensor) -> Tensor:
    return t.sum(1, keepdim=True)


def _mean(
    of: Tensor, weight: Tensor, total: Tensor, over: Over, *more: Tensor
) -> tuple[Tensor, ...]:
    """The weighted mean in two steps: as rounded, and that of what is left, times ``total``.

    ``(of - mean) - rest / total`` has all its digits at a class that has nearly all the weight.
    Sums of ``more`` come first.
    """
    *sums, first = over.sums(*more, of * weight)
    mean = (first / total).detach()
    (rest,) = over.sums((of - mean) * weight)
    return *sums, mean, rest


class _Pair(NamedTuple):
    """Two distributions, times e, and how they compare."""

    q: Tensor
    p: Tensor
    b: Tensor
    ratio: Tensor
    """``w``."""
    ahead: Tensor
    """``log(p / q)``, but for a rounding of all of them alike."""
    kept: Kept
    """The largest logits, and the sums."""
    level: Tensor
    """``log(e / f)``, with that rounding."""


def _compare(x: Tensor, t: Tensor, form: Form, over: Over) -> _Pair:
    top, peak = over.tops(x, t)
    a, b = _soften(x, top, form), _soften(t, peak, form)
    e, f = over.sums(a, b)
    w, level = _log_ratio(x, t, top, peak, form), (e / f).log()
    return _Pair(a, b * (e / f), b, w, level - w, (top, peak, e, f), level)


class Excess(NamedTuple):
    """``of log(of / other) - of + other``, nowhere below 0, and ``of - other``."""

    excess: Tensor
    more: Tensor


def excess_of(of: Tensor, other: Tensor, log_ratio: Tensor) -> Excess:
    """What ``of`` and ``other`` add to a divergence, from the logarithm of their ratio."""
    both, tanh = of + other, tanh_of_half(log_ratio)
    even, near = log_ratio * tanh, log_ratio.clamp(-0.5, 0.5)
    third = near * near.square().mul_(-1 / 360).add_(1 / 6)  # far away, any number
    odd = torch.addcmul(log_ratio.sub(tanh, alpha=2), even, third, value=-1)
    odd = torch.nn.functional.hardshrink(odd, _ROUNDING[odd.dtype])
    return Excess(both * torch.addcmul(even, even, third).add_(odd).mul_(0.5), both * tanh)


_ROUNDING = {torch.float32: 1e-8, torch.float64: 2e-19}
"""Of ``y - tanh y`` and its first two terms, where they begin to differ."""


# ------------------------------------------------------------------------------ the two KL


def _forward_kl_sums(x: Tensor, t: Tensor, form: Form, over: Over = HERE) -> Kept:
    pair = _compare(x, t, form, over)
    excess, off = over.sums(*excess_of(pair.p, pair.q, pair.ahead))
    level, value = _settled(pair, excess, off)
    if torch.is_grad_enabled():  # far apart, autograd of the short form is rounded less
        (dot,) = over.sums(pair.b * pair.ratio)
        short = pair.level - dot / pair.kept[3]
        value = torch.where(value > 0.1, short + (value - short).detach(), value)
    return *pair.kept, level, value


def _settled(pair: _Pair, excess: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
    """The level and the value, once it is known how far the level is off."""
    e = pair.kept[2]
    off = (off / e).detach()
    return pair.level - off, excess / e - 0.5 * off.square()


def _forward_kl(kept: Kept, form: Form) -> Tensor:
    return kept[5]


def _forward_kl_slope(
    x: Tensor, t: Tensor, kept: Kept, scale: Tensor | float, form: Form
) -> Tensor:
    # q - p = (p + q) tanh(log(q / p) / 2); 0 where the student alone masks, which is no gradient
    top, peak, e, f, level, _ = kept
    ratio = (x - t).sub_(top - peak).mul_(1 / form.temperature).sub_(level)
    ratio = ratio.nan_to_num_(nan=0.0, posinf=_FAR, neginf=0.0)
    both = _soften(x, top, form).addcmul_(_soften(t, peak, form), e / f)
    return tanh_of_half(ratio).mul_(both).mul_(scale / e)


def _reverse_kl_sums(x: Tensor, t: Tensor, form: Form, over: Over = HERE) -> Kept:
    pair = _compare(x, t, form, over)
    parts = excess_of(pair.q, pair.p, -pair.ahead)
    excess, off, mean, rest = _mean(pair.ratio, pair.q, pair.kept[2], over, *parts)
    return *pair.kept, _settled(pair, excess, off)[1], mean, rest


def _reverse_kl(kept: Kept, form: Form) -> Tensor:
    return kept[4]


def _reverse_kl_slope(
    x: Tensor, t: Tensor, kept: Kept, scale: Tensor | float, form: Form
) -> Tensor:
    # q (w - its mean over q); w changes with x, except where it is a number for a masked class
    top, peak, e, _, _, mean, rest = kept
    ratio = _log_ratio(x, t, top, peak, form, masked=_FAR - 1)
    return ratio.sub_(mean).sub_(rest / e).mul_(_soften(x, top, form)).mul_(scale / e)


# --------------------------------------------------------------------------------- between


def _to_mixture(ahead: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """``log(p / q)``, and ``log(m / q) = log(1 + beta (p / q - 1))``."""
    ahead = ahead.clamp(-_NOTHING, _NOTHING)
    return ahead, (expm1(ahead) * form.beta).log1p()


def _jsd_sums(x: Tensor, t: Tensor, form: Form, over: Over = HERE) -> Kept:
    pair = _compare(x, t, form, over)
    p, q, beta = pair.p, pair.q, form.beta
    m = beta * p + (1 - beta) * q
    ahead, to_m = _to_mixture(pair.ahead, form)
    of_p, of_q = excess_of(p, m, ahead - to_m), excess_of(q, m, -to_m)
    by = beta * (1 - beta)  # how much a level that is off counts here
    parts = of_p.excess / (1 - beta) + of_q.excess / beta, of_p.more - of_q.more
    excess, off, mean, rest = _mean(to_m, q, pair.kept[2], over, *parts)
    return *pair.kept, by * _settled(pair, excess, off)[1], mean, rest


def _jsd(kept: Kept, form: Form) -> Tensor:
    return kept[4]


def _jsd_slope(x: Tensor, t: Tensor, kept: Kept, scale: Tensor | float, form: Form) -> Tensor:
    # (1 - beta) q (log(q / m) - its mean over q): what rounding did to the level goes with the mean
    top, peak, e, f, _, mean, rest = kept
    ahead = (e / f).log() - _log_ratio(x, t, top, peak, form)
    to_m = _to_mixture(ahead, form)[1]
    by = (form.beta - 1) * scale / e
    return to_m.sub_(mean).sub_(rest / e).mul_(_soften(x, top, form)).mul_(by)


# ------------------------------------------------------------------------------ as formulas


def at_least_0(value: Tensor) -> Tensor:
    """A value that only rounding led below 0; its gradient stays."""
    return value + torch.relu(-value.detach())


def _stats(of: Divergence, x: Tensor, t: Tensor, _: None = None, *, form: Form) -> Kept:
    return of.sums(x, t, form, HERE)


def _result(
    of: Divergence, x: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form
) -> Tensor:
    return (form.soft * at_least_0(of.value(kept, form))).squeeze(1)


def _step(
    of: Divergence,
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    t: Tensor,
    _: None = None,
    *,
    form: Form,
) -> tuple[None, Tensor]:
    return None, of.slope(x, t, kept, by_row(up) * (form.soft / form.temperature), form)


def _tempered(z: Tensor, temperature: float) -> Tensor:
    """``z / T`` up to a shift of each row, exact at any logit."""
    if temperature == 1:
        return z
    if math.frexp(temperature)[0] != 0.5:  # no power of two, by which a division is exact
        z = z - largest(z)
    return z * (1 / temperature)


def _held_stats(x: Tensor, t: Tensor, _: None = None, *, form: Form) -> Kept:
    """In one block: minus the gradient, but for its factor, and the value of the forward KL."""
    masked = torch.finfo(x.dtype).min
    log_q = _tempered(x, form.temperature).log_softmax(1)
    p = _tempered(t, form.temperature).log_softmax(1)
    ratio = (p - log_q).nan_to_num_(nan=0.0, posinf=_FAR, neginf=-_FAR)
    p.exp_()
    value = _sum(ratio.mul_(p)).masked_fill_(
        log_q[:, :1].isnan(), torch.nan
    )  # all of a row, or none
    del ratio
    # p - q sum p, which is minus the gradient
    held = torch.ops.aten._log_softmax_backward_data(p, log_q, 1, x.dtype)
    return torch.ops.aten.threshold_backward(held, x, masked), value  # masked: no gradient


def _held_result(x: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form) -> Tensor:
    return kept[1].clamp(min=0).mul_(form.soft).squeeze(1)


def _held_step(
    x: Tensor, up: Tensor, kept: Kept, t: Tensor, _: None = None, *, form: Form
) -> tuple[None, Product]:
    return None, Product(kept[0], by_row(up) * (-form.soft / form.temperature))


BY_NAME = {
    "forward_kl": Divergence(_forward_kl_sums, _forward_kl, _forward_kl_slope),
    "reverse_kl": Divergence(_reverse_kl_sums, _reverse_kl, _reverse_kl_slope),
    "jsd": Divergence(_jsd_sums, _jsd, _jsd_slope),
}

_IN_ONE = {"forward_kl": Formula(_held_result, _held_step, _held_stats, rereads=False)}

SOFT = {
    name: Formula(
        partial(_result, of), partial(_step, of), partial(_stats, of), in_one=_IN_ONE.get(name)
    )
    for name, of in BY_NAME.items()
}
"""The formulas of student logits, with one side, the teacher logits; a second one is None."""
