"""Where maps peak, finer than their cells: ``(N, K, height, width)`` to x and y in cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.logistic import finite

__all__ = ["Peaks", "mean_position", "vertex", "vertices"]

_FAINT = {t: torch.finfo(t).tiny for t in (torch.float32, torch.float64)}


class Peaks(NamedTuple):
    """Where each point is found ``(*N, K, D)``, x first, and how high the peak ``(*N, K)``."""

    points: Tensor
    scores: Tensor


def mean_position(maps: Tensor, temperature: float) -> Tensor:
    """The mean over the softmax of each map; in the middle where a map is -inf everywhere."""
    height, width = maps.shape[2:]
    share = (finite(maps) / temperature).flatten(2).softmax(2).unflatten(2, (height, width))
    columns = torch.arange(width, dtype=maps.dtype, device=maps.device)
    rows = torch.arange(height, dtype=maps.dtype, device=maps.device)
    return torch.stack(((share.sum(2) * columns).sum(2), (share.sum(3) * rows).sum(2)), 2)


def vertices(maps: Tensor, at: Tensor, *, log: bool) -> Tensor:
    """How far the vertices of parabolas lie from cells ``at`` ``(N, K)`` of the flattened maps.

    One along each axis, through the cell and its neighbours, or through their logarithms.
    """
    height, width = maps.shape[2:]
    flat = maps.flatten(2)
    flat = flat.clamp_min(_FAINT[flat.dtype]).log() if log else flat
    return torch.stack(
        (
            vertex(flat, at, at % width, width, 1),
            vertex(flat, at, at // width, height, width),
        ),
        2,
    )


def vertex(flat: Tensor, at: Tensor, along: Tensor, cells: int, step: int) -> Tensor:
    """How far the vertex of a parabola lies from cells ``at`` of lines ``(..., cells)``.

    At most half a cell; 0 at the border, and beside cells that are -inf.
    """
    inside = (along > 0) & (along < cells - 1)
    left, centre, right = (
        flat.gather(-1, torch.where(inside, at + k * step, at).unsqueeze(-1)).squeeze(-1)
        for k in (-1, 0, 1)
    )
    bend = 2 * centre - left - right
    curved = inside & (bend > 0) & (bend < torch.inf)
    lean = torch.where(curved, right - left, 0.0)
    return lean / (2 * torch.where(curved, bend, 1.0))
