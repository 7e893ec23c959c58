"""Gaussians on a grid: one map for each point, or the largest of many on a few maps.

A cell's coordinate is that of its centre, so a point at (3, 5) lies in the middle of column 3,
row 5, and a Gaussian there has its peak of 1 on that cell.

    g(u, v) = exp(-((u - x)**2 + (v - y)**2) / (2 sigma**2))

It is the product of a column and a row, so a map costs ``height + width`` exponentials.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["RadiusRule", "gaussian_maps", "gaussian_radius", "paint_gaussians"]

RadiusRule = Literal["exact", "original"]

_FAR = 100  # sigmas, from which on a Gaussian is 0 in float64 too
_AT_ONCE = 2**22  # cells painted in one go


def gaussian_maps(points: Tensor, sigma: float | Tensor, size: tuple[int, int]) -> Tensor:
    """Gaussians ``(..., height, width)`` around points ``(..., 2)``, anywhere between cells."""
    height, width = size
    if not isinstance(sigma, Tensor):
        sigma = points.new_full((), sigma)
    scale = sigma.to(points)[..., None]

    def along(centre: Tensor, cells: int) -> Tensor:
        off = torch.arange(cells, dtype=points.dtype, device=points.device) - centre.unsqueeze(-1)
        return torch.exp(-0.5 * (off / scale).clamp(-_FAR, _FAR).square())

    rows, columns = along(points[..., 1], height), along(points[..., 0], width)
    return rows.unsqueeze(-1) * columns.unsqueeze(-2)


def gaussian_radius(
    height: Tensor, width: Tensor, *, min_overlap: float, rule: RadiusRule = "exact"
) -> Tensor:
    """How far both corners of a box may stray before its IoU falls below ``min_overlap``.

    Both inwards, both outwards or one each: inwards costs the most, whatever the box. ``"exact"``
    solves that quadratic equation; ``"original"`` is the least of the roots that CornerNet was
    first published with and CenterNet kept, which is that of outwards, up to several times too
    large.
    """
    total, area, m = height + width, height * width, min_overlap
    if rule == "original":
        return (((2 * m * total).square() + 16 * m * (1 - m) * area).sqrt() - 2 * m * total) / 2
    root = (total.square() - 4 * (1 - m) * area).clamp_min(0).sqrt()
    # the smaller root, written as a quotient so that nothing cancels
    return area * (1 - m) / (total + root).clamp_min(torch.finfo(total.dtype).tiny)


def paint_gaussians(
    maps: Tensor, plane: Tensor, column: Tensor, row: Tensor, radius: Tensor
) -> Tensor:
    """Raise ``maps`` ``(P, height, width)``, in place, to Gaussians around cells ``(B,)``.

    The cells lie on the maps. Each Gaussian is cut off at its ``radius`` in cells, which is three
    sigma less half a cell, and at the maps' size. All of one radius are painted together: the loop
    is over radii, not over cells. Radii are read by the host.
    """
    height, width = maps.shape[1:]
    flat, order = maps.view(-1), radius.argsort()
    radii, counts = radius[order].unique_consecutive(return_counts=True)
    for r, same in zip(radii.tolist(), order.split(counts.tolist()), strict=True):
        far = min(r, max(height, width))
        reach = torch.arange(-far, far + 1, device=maps.device)
        profile = torch.exp(-0.5 * (reach.to(maps.dtype) * (6 / (2 * r + 1))).square())
        for some in same.split(max(_AT_ONCE // len(reach) ** 2, 1)):
            x, y = column[some, None] + reach, row[some, None] + reach
            value = (
                (profile * ((y >= 0) & (y < height))).unsqueeze(2)
                * (profile * ((x >= 0) & (x < width))).unsqueeze(1)
            )  # fmt: skip
            line = plane[some, None] * height + y.clamp(0, height - 1)
            cell = line.unsqueeze(2) * width + x.clamp(0, width - 1).unsqueeze(1)
            flat.scatter_reduce_(0, cell.flatten(), value.flatten(), "amax")
    return maps
