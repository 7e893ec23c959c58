"""Signals ``(..., T)``, padded to a common T: checks, energies, and sums of two signals.

Energies are added up in double precision: it holds the square of any single, and their sums may
cancel there. Inside ``torch.compile`` a double lives in a register and costs nothing.

A signal less its mean is taken less its first sample, and the mean of that off its sums: a constant
is exactly 0, whatever its level, and nothing cancels by more than the number of its terms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_floating, check_tensors
from aptt.core.formula import by_row
from aptt.core.ordinary import inside_functorch, is_readable
from aptt.core.precision import to_widest, widest
from aptt.core.shapes import check_shapes

__all__ = [
    "Pair",
    "audible",
    "brightened",
    "check_recorded",
    "check_signals",
    "combined",
    "count_samples",
    "energy",
    "inside",
    "pair",
    "present",
    "products",
    "stretched",
]


def check_signals(estimate: Tensor, target: Tensor, lengths: Numbers | None) -> Tensor | None:
    """Hold two signals to one shape, and lengths to integers from 0 to T, one a sample.

    Returns the lengths, as a tensor.
    """
    check_recorded(target)
    check_floating(estimate=estimate)
    check_shapes(estimate=(estimate, "*N T"), target=(target, "*N T"))
    if lengths is None:
        return None
    lengths = as_tensor("lengths", lengths, estimate)
    check_tensors(estimate=estimate, lengths=lengths)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths: got {lengths.dtype}, wanted an integer dtype")
    wanted = tuple(estimate.shape[:-1][:1])
    if tuple(lengths.shape) != wanted:
        raise ValueError(
            f"lengths: got shape {tuple(lengths.shape)} for estimate {tuple(estimate.shape)}, "
            f"wanted {wanted}, one for each along the first axis"
        )
    if is_readable(lengths):
        low, high = lengths.amin().item(), lengths.amax().item()
        if low < 0 or high > estimate.shape[-1]:
            wrong = low if low < 0 else high
            raise ValueError(f"lengths: got {wrong}, wanted 0 to T={estimate.shape[-1]}")
    return lengths


def check_recorded(target: Tensor) -> None:
    """Refuse a target in whole numbers: no scale of theirs is that of an estimate."""
    check_tensors(target=target)
    if not target.is_floating_point():
        raise TypeError(
            f"target: got {target.dtype}, wanted a floating dtype, on the scale of the estimate: "
            "target / 32768 where a file holds 16 bits"
        )


def count_samples(estimate: Tensor, lengths: Tensor | None) -> Tensor:
    """How many samples each of the signals has, as one row of all signals."""
    shape = estimate.shape[:-1]
    if lengths is None:
        return estimate.new_full((math.prod(shape),), estimate.shape[-1], dtype=torch.int64)
    each = lengths.long().reshape(shape[:1] + (1,) * (len(shape) - 1))
    return each.expand(shape).reshape(-1)


def inside(counts: Tensor, size: int) -> Tensor:
    """``(N, size)``: which samples lie within the first ``counts``."""
    return torch.arange(size, device=counts.device) < counts.unsqueeze(1)


def present(signals: Tensor, counts: Tensor | None) -> Tensor:
    """The signals with 0 for what is padding, whatever it holds; all of it without ``counts``."""
    if counts is None:
        return signals
    return torch.where(inside(counts, signals.shape[1]), signals, 0.0)


def brightened(signals: Tensor, c: float) -> Tensor:
    """Pre-emphasis: ``y[n] = x[n] - c x[n - 1]``, with silence before the first sample."""
    if signals.ndim == 0 or signals.shape[-1] == 0:
        return signals
    return torch.cat((signals[..., :1], signals[..., 1:] - c * signals[..., :-1]), -1)


# ------------------------------------------------------------------------------- there: energies


def energy(x: Tensor) -> Tensor:
    """The sum of squares of each row, in the widest dtype."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():  # at 0 a norm has no second slope
        return to_widest(x).square().sum(1)
    return torch.linalg.vector_norm(x, dim=1, dtype=widest(x)).square()


class Pair(NamedTuple):
    """Two signals ``(N, T)`` in the widest dtype, and both of them in one, ``(N, 2, T)``."""

    x: Tensor
    t: Tensor
    both: Tensor | None
    """None inside ``torch.compile``, which needs no copy to read the two at once."""


def pair(x: Tensor, t: Tensor, counts: Tensor | None, *, means: bool) -> Pair:
    """Two signals, with 0 for what is padding; less their first samples for ``means``.

    The first sample is taken for a constant: signals less their means do not depend on what was
    subtracted before.
    """
    if torch.compiler.is_compiling():
        x, t = to_widest(x), to_widest(t)
        if means:
            x, t = (v - v[:, :1].detach() for v in (x, t))
        return Pair(present(x, counts), present(t, counts), None)
    if inside_functorch():
        both = to_widest(torch.stack((x, t), 1))
    else:
        both = x.new_empty((len(x), 2, x.shape[1]), dtype=widest(x))
        both[:, 0], both[:, 1] = x, t
    if means:
        both.sub_(both[:, :, :1].detach().clone())
    if counts is not None:
        both = torch.where(inside(counts, x.shape[1]).unsqueeze(1), both, 0.0)
    return Pair(both[:, 0], both[:, 1], both)


def products(p: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """``<x, x>``, ``<t, t>`` and ``<x, t>`` of each pair; equal where the two are."""
    if p.both is None:
        return p.x.square().sum(1), p.t.square().sum(1), (p.x * p.t).sum(1)
    of_x, cross, _, of_t = torch.bmm(p.both, p.both.mT).flatten(1).unbind(1)
    return of_x, of_t, cross


def audible(power: Tensor, mean: Tensor, size: Tensor | float, dtype: torch.dtype) -> Tensor:
    """The power of signals less their ``mean``, or 0 where it is no more than their rounding."""
    rounding = 8 * torch.finfo(dtype).eps * mean
    return torch.where(power <= rounding.square() * size, 0.0, power)


# --------------------------------------------------------------------------- back: sums of signals


def stretched(x: Tensor, t: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    """``2 * factor * rest * (x - t)``, two factors a row, for their product may leave the range.

    Eagerly in single precision, which loses nothing of a difference of close numbers. Of one that
    forward takes as well, a compiler would keep a copy from there.
    """
    if torch.compiler.is_compiling():
        return (to_widest(x) - to_widest(t)) * by_row(2 * factor * rest)
    first, rest = (by_row(v.to(x.dtype)) for v in (factor, rest))
    return torch.ops.aten.mse_loss_backward(first.expand_as(x), x, t, 0).mul_(rest)


def combined(
    x: Tensor, t: Tensor, on_x: Tensor, on_t: Tensor, offset: Tensor | None = None
) -> Tensor:
    """``on_x * x + on_t * t + offset``, one number each a row, in their dtype.

    Of two signals that point the same way, what is left is small beside either.
    """
    sum_ = (x * by_row(on_x)).addcmul_(t, by_row(on_t))
    return sum_ if offset is None else sum_.add_(by_row(offset))
