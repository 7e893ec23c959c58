"""The softmax of each pixel seen from its class, and that class among all: eagerly and compiled.

    top    the largest logit        rest   the sum of exp(z - top) over the classes other than y
    mine   exp(z[y] - top)          p[c] = exp(z[c] - top) share,   share = 1 / (rest + mine)

    right = p[y] = mine share       miss = 1 - p[y] = rest share

Neither right nor miss is a difference, so both keep their digits however confident a pixel is.

Eagerly a class is reached by gather and scatter. A compiler fuses a comparison with every class
instead. It compares in a third of the time where the class is a float in memory and not an int64;
and what is not in memory, it computes again for each class that reads it.

Axes: ``z`` is ``(N, C, S)``; ``at``, which marks one class a pixel, and weights ``(N, 1, S)``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.ordinary import inside_functorch, is_readable
from aptt.core.precision import widen
from aptt.core.softmax import on_class_axis

__all__ = [
    "Pixels",
    "by_class",
    "cleared",
    "in_memory",
    "mark",
    "measure",
    "of_class",
    "pull",
    "removes",
    "weighed",
]


class Pixels(NamedTuple):
    """The softmax of each pixel, in three numbers ``(N, 1, S)``."""

    top: Tensor
    rest: Tensor
    mine: Tensor

    @property
    def share(self) -> Tensor:
        """``1 / (rest + mine)``."""
        return (self.rest + self.mine).reciprocal()


def measure(z: Tensor, at: Tensor) -> tuple[Pixels, Tensor]:
    """The numbers of each pixel, and ``exp(z - top)`` of the other classes, 0 at its own."""
    top = z.detach().amax(1, keepdim=True)
    e = _exp(z - top, 1.0)
    mine = of_class(e, at)
    others = _put(e, at, 0.0)
    return Pixels(top, others.sum(1, keepdim=True), mine), others


def pull(
    z: Tensor,
    at: Tensor,
    pixels: Pixels,
    w: Tensor | None,
    *,
    false: Tensor,
    missed: Tensor,
    lift: Tensor | None = None,
) -> Tensor:
    """The gradient of what each pixel costs, times its weight, with respect to ``z``.

    It costs ``false[c] p[c]`` for each class other than y, and ``missed (1 - p[y])``. What else it
    costs falls by ``lift (1 - p[y])`` with the log-odds of y.
    """
    # With F = sum of false[c] p[c]: d / d z[c] = p[c] (false[c] - F + missed p[y]),
    # d / d z[y] = -p[y] (F + missed (1 - p[y])); lift adds lift p[c], and takes lift (1 - p[y]).
    share = pixels.share
    miss, right = pixels.rest * share, pixels.mine * share
    # top - z, because z - top is a number of forward: a compiler would hold it till here
    others = _put(_exp(pixels.top - z, -1.0), at, 0.0)
    priced = others * false
    total = priced.sum(1, keepdim=True) * share
    mean, mine = total - missed * right, -right * (total + missed * miss)
    if lift is not None:
        mean, mine = mean - lift, mine - lift * miss
    share, mean, mine = in_memory(weighed(share, w), mean, weighed(mine, w))
    return _put(priced.addcmul_(others, mean, value=-1).mul_(share), at, mine)


# ------------------------------------------------------------------------------------- the class


def mark(y: Tensor, w: Tensor | None, z: Tensor) -> Tensor:
    """The mark of each class index; where the weight is 0, there may be none."""
    at = y.unsqueeze(1)
    if not torch.compiler.is_compiling():
        return at
    at = at.to(z.dtype)
    return in_memory(at if w is None else torch.where(w == 0, -1.0, at), at)[0]


def in_memory(*numbers: Tensor) -> tuple[Tensor, ...]:
    """Numbers a pixel that every class reads: a compiler writes what it concatenates."""
    return torch.cat(numbers, 1).split(1, 1) if torch.compiler.is_compiling() else numbers


def of_class(z: Tensor, at: Tensor) -> Tensor:
    """The number at the marked class."""
    if torch.compiler.is_compiling():
        return torch.where(_classes(z) == at, z, 0.0).sum(1, keepdim=True)
    return z.gather(1, at)


def by_class(values: Tensor | None, at: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
    """The sums of one number a pixel over the pixels of each class of ``z``; None: their count."""
    if torch.compiler.is_compiling():
        ours = _classes(z) == at
        return torch.where(ours, 1.0 if values is None else values, 0.0).sum(2).to(dtype)
    y, nothing = at.squeeze(1), z.new_zeros(z.shape[:2], dtype=dtype)
    if values is None:
        values = z.new_ones((), dtype=dtype).expand(y.shape)
    else:
        values = values.squeeze(1).to(dtype)
    return nothing.scatter_add(1, y, values)


def _put(z: Tensor, at: Tensor, value: Tensor | float) -> Tensor:
    """``z`` with ``value`` at the marked class, in the memory of ``z`` where nothing forbids it."""
    if torch.compiler.is_compiling():
        return torch.where(_classes(z) == at, value, z)
    if torch.is_grad_enabled() or inside_functorch():
        return z.scatter(1, at, value)
    return z.scatter_(1, at, value)


def _classes(z: Tensor) -> Tensor:
    return on_class_axis(torch.arange(z.shape[1], dtype=z.dtype, device=z.device), z)


def _exp(gap: Tensor, sign: float) -> Tensor:
    """``exp(sign * gap)`` in the memory of fresh gaps; by exp2 as in :mod:`aptt.core.softmax`."""
    return gap.mul_(sign / math.log(2)).exp2_()


# ----------------------------------------------------------------------------------- the weights


def weighed(values: Tensor, w: Tensor | None) -> Tensor:
    """Times the weights, if there are any."""
    return values if w is None else values * w


def removes(x: Tensor, t: Tensor, w: Tensor | None) -> bool:
    """Whether something may be infinite or NaN where a weight is 0.

    Looked at where that costs no host sync, for a sum is far cheaper than to clear and to copy.
    """
    if w is None or (is_readable(w) and bool(w.all())):
        return False
    return not (_is_finite(x) and _is_finite(t))


def _is_finite(t: Tensor) -> bool:
    if not t.is_floating_point():
        return True
    return is_readable(t) and math.isfinite(t.sum(dtype=widen(t[:0]).dtype).item())


def cleared(z: Tensor, w: Tensor | None, at: Tensor | None = None) -> Tensor:
    """``z``, and 0 where the weight is; a compiler sees that by the mark."""
    if w is None:
        return z
    gone = at < 0 if at is not None and torch.compiler.is_compiling() else w == 0
    return torch.where(gone, 0.0, z)
