"""Mistakes by their distance from the boundary; distances from all pixels to all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced
from tests.fuzz.oracles.regions import pixels

__all__ = ["boundary_loss", "hausdorff_loss"]


def _size(a: Any) -> tuple[int, ...]:
    if a.mode != "binary" or a.logits.shape[1:2] == (1,):
        return tuple(a.logits.shape[2:])
    return tuple(a.logits.shape[1:])


def _far(seeds: Tensor, size: tuple[int, ...], spacing: Tensor) -> Tensor:
    """To the nearest seed of each of masks ``(..., S)``; infinite without one."""
    axes = [torch.arange(n) for n in size]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).double().flatten(0, -2) * spacing
    apart = torch.cdist(at, at, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(seeds.unsqueeze(-2), apart, torch.inf).amin(-1)


def _edge(own: Tensor, other: Tensor, size: tuple[int, ...]) -> Tensor:
    """The pixels of one side that have a face in common with the other."""
    near, shape = torch.zeros_like(own), (*own.shape[:-1], *size)
    for axis in range(len(own.shape) - 1, len(shape)):
        for by in (1, -1):
            moved = other.view(shape).roll(by, axis)
            index = torch.tensor([0 if by == 1 else -1]) % shape[axis]
            near = near | moved.index_fill(axis, index, False).view(own.shape)
    return own & near


def _map(a: Any, own: Tensor, known: Tensor, *, rim: str) -> Tensor:
    """How far each pixel is from the boundary, ``(N, C, S)``; 0 where there is none."""
    size, other = _size(a), known & ~own
    if not own.numel():
        return own.double()
    spacing = (
        torch.ones(len(size)).double()
        if a.spacing is None
        else torch.as_tensor(a.spacing, dtype=torch.float64)
    )
    found = []
    for n in range(len(own)):
        by = spacing if spacing.ndim < 2 else spacing[n]
        edge = _edge(own[n], other[n], size) if rim == "zero" else other[n]
        seeds = torch.where(edge.any(-1, keepdim=True), edge, other[n])
        far = torch.where(own[n], _far(seeds, size, by), _far(own[n], size, by))
        there = own[n].any(-1) & other[n].any(-1)
        far = torch.where(there[:, None] & known[n], far, 0.0)
        found.append(far if a.cap is None else far.clamp(max=a.cap))
    return torch.stack(found)


def _mean(a: Any, far: Tensor, own: Tensor, known: Tensor, v: Any, term: str, square: bool) -> Any:
    there = (far > 0).any(-1)
    if a.absent == "penalize":
        far = torch.where(there[..., None], far, 1.0)
    share = (there if a.absent == "skip" else torch.ones_like(there)).double()
    by = torch.ones(far.shape[1]).double() if a.class_weight is None else a.class_weight
    if not a.background:
        by = by * (torch.arange(len(by)) > 0)
    w = (share * by).unsqueeze(-1) * torch.where(known, v.w, 0.0)
    miss = torch.where(own, v.no, v.yes)
    values = w * far * (miss.square() if square else miss)
    if a.reduction == "none":
        return values.reshape(a.logits.shape)
    return reduced(values, w.sum(), a.reduction, term)


def _sides(a: Any) -> tuple[Any, Tensor, Tensor]:
    v = pixels(a)
    known = v.w != 0
    return v, (v.t != 0) & known, known


def _given(a: Any, known: Tensor) -> Tensor:
    far = torch.where(known, a.distance_map.reshape(known.shape), 0.0).abs()
    return far if a.cap is None else far.clamp(max=a.cap)


def boundary_loss(a: Any) -> Tensor:
    """Kervadec et al. 2019 (arXiv:1812.07032), as mean of |phi| |p - t|."""
    v, own, known = _sides(a)
    far = _map(a, own, known, rim=a.rim) if a.distance_map is None else _given(a, known)
    return _mean(a, far, own, known, v, "boundary", False)


def hausdorff_loss(a: Any) -> Tensor:
    """Karimi and Salcudean 2019 (arXiv:1904.10030), by distance transforms."""
    v, own, known = _sides(a)
    far = _map(a, own, known, rim="centre") if a.distance_map is None else _given(a, known)
    price = far**a.distance_power
    if not a.one_sided:
        likely = (v.yes > 0.5).detach() & known
        there = (far > 0).any(-1, keepdim=True)
        both = _map(a, likely, known, rim="centre") ** a.distance_power
        price = price + torch.where(there, both, 0.0)
    return _mean(a, price, own, known, v, "hausdorff", True)
