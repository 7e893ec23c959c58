"""Euclidean distance to the nearest of some pixels: exact, batched, with a spacing of each axis.

    d(i)**2 = min over seeds j of sum over axes a of (spacing[a] (i[a] - j[a]))**2

The sum separates. Along the last axis the nearest seed is the last one passed, from either side;
along each other axis ``g[i] = min over j of f[j] + (spacing (i - j))**2``, a lower envelope of
parabolas. Two forms of it give the same bits:

    by shifts    k = 1, 2, ... steps to either side, until a parabola starts above all that is left,
                 some lines at a time, which stay in the cache
    by blocks    some i at once against all j: no look at values, for accelerators and compilers

All that is added is positive, and so in float32 the distance has all its digits, at any spacing.

Axes: seeds ``(M, *S)``; spacing ``(1, D)`` or ``(M, D)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from aptt.core.ordinary import is_readable

__all__ = ["Distances", "Rim", "distance", "signed_field"]


class Distances(Protocol):
    """What measures as :func:`distance` does."""

    def __call__(
        self, seeds: Tensor, spacing: Tensor | None, *, cap: float | None, dtype: torch.dtype
    ) -> Tensor:
        """How far the nearest seed of each mask is."""


Rim = Literal["zero", "centre"]
"""Where the distances inside are 0: on the outermost pixels, or nowhere."""

_ROOM = 2**20  # numbers of each mask that a block compares at once, or one i at a time
_TILE = 2**18  # numbers that are lowered at once, so that they stay in the cache
_LOOK = 8  # steps between two looks at what is left


def distance(
    seeds: Tensor, spacing: Tensor | None, *, cap: float | None, dtype: torch.dtype
) -> Tensor:
    """How far the nearest seed of each mask is; infinite in a mask without any, or ``cap``."""
    if seeds.numel() == 0:
        return seeds.to(dtype)
    squares = [_squares(seeds, axis, spacing, dtype) for axis in range(1, seeds.ndim)]
    f = _first(seeds, dtype, squares[-1])
    for axis in range(seeds.ndim - 2, 0, -1):
        lowered = _by_shifts if is_readable(f) else _by_blocks
        f = lowered(f, axis, squares[axis - 1], math.inf if cap is None else cap * cap)
    return f.sqrt() if cap is None else f.sqrt().clamp(max=cap)


def _squares(seeds: Tensor, axis: int, spacing: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The square of each number of steps along an axis, ``(1, n)`` or ``(M, n)``."""
    steps = torch.arange(seeds.shape[axis], device=seeds.device, dtype=dtype).unsqueeze(0)
    return (steps if spacing is None else steps * spacing[:, axis - 1 : axis].to(dtype)).square()


def _first(seeds: Tensor, dtype: torch.dtype, squares: Tensor) -> Tensor:
    """The squares along the last axis; infinite on a line without a seed."""
    at = torch.arange(seeds.shape[-1], device=seeds.device, dtype=dtype)
    before = torch.where(seeds, at, -torch.inf).cummax(-1).values
    after = torch.where(seeds, at, torch.inf).flip(-1).cummin(-1).values.flip(-1)
    steps = torch.minimum(at - before, after - at)
    if squares.shape[1] > 1:  # of one pixel the only step is none
        steps = steps * squares[:, 1].sqrt().view(-1, *[1] * (seeds.ndim - 1))
    return steps.square()


def _by_shifts(f: Tensor, axis: int, squares: Tensor, limit: float) -> Tensor:
    n, inner = f.shape[axis], math.prod(f.shape[axis + 1 :])
    shape = (len(squares), -1, n, inner)  # masks of one spacing lie side by side
    flat = f.reshape(shape)
    g = torch.empty_like(flat)
    wide = max(min(inner, _TILE // n), 1)
    many = max(_TILE // (n * wide), 1)
    for of, steps in enumerate(squares.tolist()):
        for row in range(0, flat.shape[1], many):
            for column in range(0, inner, wide):
                tile = of, slice(row, row + many), slice(None), slice(column, column + wide)
                g[tile] = _lowered(flat[tile].contiguous(), steps, limit)
    return g.view(f.shape)


def _lowered(f: Tensor, squares: list[float], limit: float) -> Tensor:
    """The envelope along the middle axis of a tile that fits the cache."""
    g, n, least = f.clone(), f.shape[1], f.min().item()
    for k in range(1, n):
        more = squares[k]
        if k % _LOOK == 1 and (more >= limit or g.max().item() <= least + more):
            break
        ahead, behind = g.narrow(1, k, n - k), g.narrow(1, 0, n - k)
        torch.minimum(ahead, f.narrow(1, 0, n - k) + more, out=ahead)
        torch.minimum(behind, f.narrow(1, k, n - k) + more, out=behind)
    return g


def _by_blocks(f: Tensor, axis: int, squares: Tensor, limit: float) -> Tensor:
    f = f.movedim(axis, -1)
    n, parts = f.shape[-1], []
    at = torch.arange(n, device=f.device)
    size = max(_ROOM // math.prod(f.shape[1:]), 1)
    for start in range(0, n, size):
        steps = (at[start : start + size, None] - at).abs()
        more = squares[:, steps]
        more = more.view(len(more), *[1] * (f.ndim - 2), *steps.shape)
        parts.append((f.unsqueeze(-2) + more).amin(-1))
    return torch.cat(parts, -1).movedim(-1, axis)


# -------------------------------------------------------------------------------- of masks


def signed_field(
    t: Tensor,
    known: Tensor | None,
    classes: int | None,
    spacing: Tensor | None,
    *,
    rim: Rim,
    cap: float | None,
    dtype: torch.dtype,
    distances: Distances = distance,
) -> Tensor:
    """How far from its own boundary each class ``(N, C, *S)`` is: positive outside, negative in.

    ``t`` holds the ``classes`` of pixels, ``(N, *S)``, or without them masks ``(N, C, *S)``.
    Pixels that are not ``known``, ``(N, 1, *S)`` or like the field, are no seeds, and 0. So is a
    class that has no pixels, or no others: it has no boundary.
    """
    many = t.shape[1] if classes is None else classes
    shape = (len(t), many, *(t.shape[2:] if classes is None else t.shape[1:]))
    if math.prod(shape) == 0:
        return t.new_zeros(shape, dtype=dtype)
    measure = partial(distances, cap=cap, dtype=dtype)
    group, parts = max(_ROOM // math.prod(shape[2:]), 1), []
    for start in range(0, many, group):
        these = slice(start, start + group)
        if classes is None:
            own = t[:, these].bool()
        else:
            names = torch.arange(classes, device=t.device)[these]
            own = t.unsqueeze(1) == names.view(-1, *[1] * (t.ndim - 1))
        here = known
        if here is not None:
            here = here[:, these] if here.shape[1] > 1 else here
        other = ~own if here is None else ~own & here
        own = own if here is None else own & here
        each = spacing
        if each is not None and len(each) > 1:
            each = each.repeat_interleave(own.shape[1], 0)
        field = _field(own.flatten(0, 1), other.flatten(0, 1), each, rim, measure)
        parts.append(field.view(own.shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _field(
    own: Tensor,
    other: Tensor,
    spacing: Tensor | None,
    rim: Rim,
    measure: Callable[..., Tensor],
) -> Tensor:
    """Of masks ``(M, *S)``."""
    field = torch.where(other, measure(own, spacing), 0.0)
    seeds = other
    if rim == "zero":
        edge = own & _beside(other)
        # known pixels of both sides, and nowhere a known boundary: as of the centres
        seeds = torch.where(_any(edge), edge, other)
    field = torch.where(own, 0.0 - measure(seeds, spacing), field)
    return torch.where(_any(own) & _any(other), field, 0.0)


def _any(mask: Tensor) -> Tensor:
    """Whether each has a pixel, shaped as one."""
    return mask.flatten(1).any(1).view(-1, *[1] * (mask.ndim - 1))


def _beside(mask: Tensor) -> Tensor:
    """Which pixels have a face in common with one of the mask."""
    found = torch.zeros_like(mask)
    for axis in range(1, mask.ndim):
        n = mask.shape[axis]
        none = torch.zeros_like(mask.narrow(axis, 0, 1))
        left = torch.cat((none, mask.narrow(axis, 0, n - 1)), axis)
        right = torch.cat((mask.narrow(axis, 1, n - 1), none), axis)
        found = found | left | right
    return found
