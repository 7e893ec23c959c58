"""Signals ``(..., T)``, padded to a common T: checks, energies, and sums of two signals.

Energies are added up in double precision: it holds the square of any single, and their sums may
cancel there. Inside ``torch.compile`` a double lives in a register and costs nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import check_floating, check_tensors
from aptt.core.formula import by_row
from aptt.core.ordinary import is_readable
from aptt.core.shapes import check_shapes

__all__ = [
    "centred",
    "check_signals",
    "combined",
    "count_samples",
    "inner",
    "inside",
    "present",
    "stretched",
    "wide",
]

_ROUNDING = 1e-12  # what is left of the energy of a constant without its mean, in double precision


def check_signals(estimate: Tensor, target: Tensor, lengths: Tensor | None) -> None:
    """Hold two signals to one shape, and lengths to integers from 0 to T, one a sample."""
    check_floating(estimate=estimate)
    check_shapes(estimate=(estimate, "*N T"), target=(target, "*N T"))
    if lengths is None:
        return
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


# ------------------------------------------------------------------------------- there: energies


def wide(x: Tensor) -> Tensor:
    """In a dtype that any square fits, and in which sums may cancel."""
    return x if x.device.type == "mps" else x.double()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row."""
    return (a * b).sum(1)


def products(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``<x, x>``, ``<t, t>`` and ``<x, t>`` of each row; equal where the two are."""
    if torch.compiler.is_compiling():  # which takes all three in one pass
        x, t = wide(x), wide(t)
        return inner(x, x), inner(t, t), inner(x, t)
    both = wide(torch.stack((x, t), 1))
    energy, cross, _, power = torch.bmm(both, both.mT).flatten(1).unbind(1)
    return energy, power, cross


def centred(energy: Tensor, total: Tensor, size: Tensor | float) -> Tensor:
    """The energy less that of the mean; 0, with a gradient of 0, where rounding is all it is."""
    left = energy - total.square() / size
    return torch.where(left <= _ROUNDING * energy, 0.0, left)


# --------------------------------------------------------------------------- back: sums of signals


def stretched(x: Tensor, t: Tensor, factor: Tensor, centre: Tensor | None = None) -> Tensor:
    """``factor * (x - t - centre)``, one factor and one centre a row, whatever their size.

    Eagerly and without a centre in single precision, which loses nothing of a difference of close
    numbers. The factor may leave its range where neither the difference nor the product does, and
    goes in two parts. Otherwise in double precision: a centre may be large beside what it leaves,
    and of a difference that forward takes as well a compiler would keep a copy from there.
    """
    if centre is not None or torch.compiler.is_compiling():
        d = wide(x) - wide(t)
        return (d if centre is None else d - by_row(centre)) * by_row(factor)
    half = factor.abs().sqrt()
    d = (x - t).mul_(by_row(half.to(x.dtype)))
    return d.mul_(by_row(torch.copysign(half, factor).to(x.dtype)))


def combined(
    x: Tensor, t: Tensor, on_x: Tensor, on_t: Tensor, offset: Tensor | None = None
) -> Tensor:
    """``on_x * x + on_t * t + offset``, one number each a row, in double precision.

    Of two signals that point the same way, what is left is small beside either.
    """
    sum_ = (wide(x) * by_row(on_x)).addcmul_(wide(t), by_row(on_t))
    return sum_ if offset is None else sum_.add_(by_row(offset))
