"""Masks at points: read between pixels, and drawn where they are uncertain."""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.precision import widen

__all__ = ["at_points", "uncertain_points"]


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps ``(B, N, H, W)`` between pixels, at points ``(B, N or 1, K, 2)``: ``(B, N, K)``.

    A pixel's middle is at (i + 0.5) / size; beyond the middles of the outer ones, theirs.
    """
    maps = widen(maps)
    height, width = maps.shape[2:]
    if not height * width:
        raise ValueError(f"mask_logits: got {tuple(maps.shape)}, with no pixel")
    flat, points = maps.flatten(2), points.to(maps.dtype)
    x = (points[..., 0] * width - 0.5).clamp(0, width - 1)
    y = (points[..., 1] * height - 0.5).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    right, below = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    dx, dy = x - left, y - top
    total = None
    for row, of_row in ((top, 1 - dy), (below, dy)):
        for column, share in ((left, 1 - dx), (right, dx)):
            index = (row * width + column).long().expand(*flat.shape[:2], -1)
            part = flat.gather(2, index) * (of_row * share)
            total = part if total is None else total + part
    assert total is not None
    return total


@torch.no_grad()
def uncertain_points(
    maps: Tensor,
    many: int,
    oversample: float,
    importance: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Points ``(B, N, K, 2)``: mostly those of the smallest logits among more, and some others."""
    size, device = maps.shape[:2], maps.device
    seen = round(many * oversample)
    chosen = round(many * importance)
    drawn = torch.rand(*size, seen, 2, device=device, generator=generator)
    doubt = -at_points(maps, drawn).abs()
    best = doubt.topk(min(chosen, seen), -1).indices.unsqueeze(-1).expand(-1, -1, -1, 2)
    rest = torch.rand(*size, many - best.shape[2], 2, device=device, generator=generator)
    return torch.cat((drawn.gather(2, best), rest), 2)
