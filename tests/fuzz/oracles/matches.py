"""What a match costs, of boxes and of masks at points, and what matched masks cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles import boxes as box_oracles
from tests.fuzz.oracles.common import chance, logistic, reduced, softplus

__all__ = ["mask_match_cost", "match_cost", "match_parts", "point_mask_terms"]


def match_parts(a: Any) -> list[Tensor]:
    """Carion et al. 2020 (arXiv:2005.12872), eq. 1: what is added up, pair by pair."""
    layers = [None] if a.class_logits.ndim == 3 else range(len(a.class_logits))
    found = [[] for _ in range(4)]
    for n in layers:
        x, b = (t if n is None else t[n] for t in (a.class_logits, a.pred_boxes))
        for i, goals in enumerate(a.target_boxes):
            goals, labels = goals.double(), a.target_labels[i].long().clamp(min=0)
            z = x[i].double()
            if callable(a.class_cost):
                costs = [a.class_cost(z[None], labels[None])[0], None]
            elif a.class_cost == "softmax":
                costs = [-z.softmax(-1)[:, labels], None]
            else:
                z = z[:, labels]
                costs = [
                    a.alpha * chance(-z) ** a.gamma * softplus(-z),
                    (a.alpha - 1) * chance(z) ** a.gamma * softplus(z),
                ]
            costs[1] = torch.zeros(costs[0].shape).double() if costs[1] is None else costs[1]
            mine, theirs = b[i].double()[:, None], goals[None]
            both = [t.expand(len(b[i]), len(goals), 4) for t in (mine, theirs)]
            options = dict(box_format=a.box_format, weight=None, validate=False, gate=False)
            giou = box_oracles.giou_loss(
                SimpleNamespace(
                    pred_boxes=both[0].reshape(-1, 4),
                    target_boxes=both[1].reshape(-1, 4),
                    power=1.0,
                    normalize="elements",
                    reduction="none",
                    **options,
                )
            ).reshape(both[0].shape[:2])
            parts = [a.class_gain * c for c in costs]
            parts += [a.l1_gain * (mine - theirs).abs().sum(-1), a.giou_gain * (giou - 1)]
            for each, part in zip(found, parts, strict=True):
                each.append(part)
    most = _most(a.target_labels)
    size = (*a.class_logits.shape[:-1], most)
    parts = [torch.zeros(size).double().flatten(0, -3) for _ in found]
    for part, each in zip(parts, found, strict=True):
        for i, one in enumerate(each):
            part[i, :, : one.shape[1]] = one.detach()
    return [part.reshape(size) for part in parts]


def _most(by_image: Any) -> int:
    """How many targets an image has, with padding."""
    if isinstance(by_image, Tensor):
        return by_image.shape[1]
    return max(map(len, by_image), default=0)


def match_cost(a: Any) -> Tensor:
    cost = sum(match_parts(a))
    for i, labels in enumerate(a.target_labels):
        there = labels != -1 if a.target_mask is None else a.target_mask[i]
        gone = torch.ones(cost.shape[-1], dtype=torch.bool)
        gone[: len(labels)] = ~there
        cost[..., i, :, :] = cost[..., i, :, :].masked_fill(gone, torch.inf)
    return cost


def _at(maps: Tensor, points: Tensor) -> Tensor:
    """Maps ``(N, H, W)`` at points ``(K, 2)``: of each pixel the share that falls off linearly."""
    shares = []
    for axis in (0, 1):
        size = maps.shape[2 - axis]
        middle = points[:, axis] * size - 0.5
        place = middle.clamp(0, size - 1)[:, None]
        shares.append((1 - (place - torch.arange(size)).abs()).clamp(min=0))
    return torch.einsum("nhw,kw,kh->nk", maps.double(), *shares)


def mask_match_cost(a: Any) -> Tensor:
    """Cheng et al. 2022 (arXiv:2112.01527), section 3.3, of every pair."""
    most = _most(a.target_masks)
    found = torch.zeros(*a.mask_logits.shape[:2], most).double()
    for i, masks in enumerate(a.target_masks):
        x = _at(a.mask_logits[i].detach(), a.points[i])[:, None]
        t = torch.zeros(1, most, x.shape[2]).double()
        t[0, : len(masks)] = _at(masks, a.points[i])
        cost, dice = _pair(x, t)
        found[i] = a.mask_gain * cost + a.dice_gain * dice
    return found


def _pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    p = chance(x)
    missed = ((p - t) ** 2 + p * (1 - p) + t * (1 - t)).sum(-1)  # of p + t - 2 p t
    return logistic(x, t).sum(-1) / max(x.shape[-1], 1), missed / ((p + t).sum(-1) + 1)


def point_mask_terms(a: Any) -> dict[str, Tensor]:
    """The same section, of the pairs that are matched."""
    totals = {name: a.mask_logits[a.matches >= 0].sum() * 0 for name in ("mask", "dice")}
    for i, q in (a.matches >= 0).nonzero().tolist():
        points = torch.zeros(a.num_points, 2).double() if a.points is None else a.points[i]
        x = _at(a.mask_logits[i, q][None], points)
        t = _at(a.target_masks[i][int(a.matches[i, q])][None], points)
        for name, value in zip(totals, _pair(x, t), strict=True):
            totals[name] = totals[name] + value.sum()
    many = sum(map(len, a.target_masks)) if a.target_mask is None else a.target_mask.sum().item()
    count = max(many * a.groups, 1) if a.reduction == "mean" else many * a.groups
    return {name: reduced(v, float(count), a.reduction, name) for name, v in totals.items()}
