"""Mistakes by their distance from the boundary; distances from all pixels to all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced
from tests.fuzz.oracles.regions import _class_weight, _over, pixels

__all__ = ["boundary_loss", "cl_dice_loss", "cl_dice_terms", "hausdorff_loss"]


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


# ---------------------------------------------------------------------------------- skeletons


def _around(x: Tensor, beyond: float, *, cross: bool) -> Tensor:
    """Each cell with its neighbours, those with a face in common or all, on a new first axis."""
    axes = range(2, x.ndim)
    shifts = [(0,) * len(axes)]
    for axis in range(len(axes)):
        if cross:
            shifts += [tuple(s * (i == axis) for i in range(len(axes))) for s in (1, -1)]
        else:
            shifts = [(*s[:axis], by, *s[axis + 1 :]) for s in shifts for by in (-1, 0, 1)]
    padded = torch.nn.functional.pad(x, (1, 1) * len(axes), value=beyond)
    size = x.shape[2:]
    cut = [tuple(slice(1 + b, 1 + b + n) for b, n in zip(s, size, strict=True)) for s in shifts]
    return torch.stack([padded[(..., *at)] for at in cut])


def _skeleton(yes: Tensor, no: Tensor, a: Any) -> Tensor:
    """Shit et al. 2021 (arXiv:2003.07311), algorithm 1, by differences of p or of 1 - p."""
    beyond, found = 0.0 if a.border == "background" else torch.inf, None
    for _ in range(a.iterations + 1):
        eroded = _around(yes, beyond, cross=True).amin(0)
        held = _around(no, 1 - beyond, cross=True).amax(0)
        opened = _around(eroded, -torch.inf, cross=False).amax(0)
        left = _around(held, torch.inf, cross=False).amin(0)
        ridge = torch.where(yes > 0.5, left - no, yes - opened)
        some = ridge > 1e-12 * torch.minimum(yes, no)  # beyond the rounding of the softmax
        more = torch.where(some, ridge, 0.0)
        found = more if found is None else found + torch.relu(more - found * more)
        yes, no = eroded, held
    return found


def cl_dice_terms(a: Any) -> dict[str, Tensor]:
    """What the two rates lack, of each class, averaged."""
    (stray, _), (lost, _), rest = _rates(a)
    return {
        "precision": _of_classes(a, stray, *rest),
        "sensitivity": _of_classes(a, lost, *rest),
    }


def cl_dice_loss(a: Any) -> Tensor:
    """Shit et al. 2021 (arXiv:2003.07311): one less the harmonic mean of the two rates."""
    (stray, right), (lost, kept), rest = _rates(a)
    both = right + kept
    loss = torch.where(both > 0, _over(right * lost + kept * stray, both), 1.0)
    return _of_classes(a, loss, *rest)


def _rates(a: Any) -> Any:
    v, own, known = _sides(a)
    shape = (*own.shape[:2], *_size(a))
    p, t = torch.where(known, v.yes, 0.0), own.double()
    mine = theirs = p
    if p.numel():
        no = torch.where(known, v.no, 1.0)
        mine = _skeleton(p.reshape(shape), no.reshape(shape), a).flatten(2)
        theirs = _skeleton(t.view(shape), 1 - t.view(shape), a).flatten(2)
    if a.skeleton is not None:
        theirs = torch.where(known, a.skeleton.reshape(known.shape), 0.0)
    axes = (2,) if a.pool == "sample" else (0, 2)
    values = (mine * t, mine * (1 - t), theirs * v.yes, theirs * v.no, p, t, v.w * 0 + 1)
    hit, stray, kept, lost, predicted, truth, size = ((v.w * x).sum(axes) for x in values)
    predicted = torch.where(truth > 0, 0.0, predicted)
    whole, held = hit + stray, kept + lost
    lacks = torch.where(whole > 0, _over(stray, whole), 1.0), _over(hit, whole)
    return lacks, (_over(lost, held), _over(kept, held)), (held > 0, predicted, size)


def _of_classes(a: Any, loss: Tensor, there: Tensor, predicted: Tensor, size: Tensor) -> Tensor:
    alone = _over(predicted, size) if a.absent == "penalize" else torch.zeros(())
    loss = torch.where(there, loss, alone)
    share = (there if a.absent == "skip" else size > 0).double() * _class_weight(a, loss)
    return reduced(share * loss, share.sum(), a.reduction, "cl_dice")
