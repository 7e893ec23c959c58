"""Contrastive losses, on the whole matrix of pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced, scattered, softplus

__all__ = ["contrastive_loss", "margin_loss", "siglip_loss", "supcon_loss", "triplet_loss"]

INF = float("inf")


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1; of zeros, zeros."""
    top = x.detach().abs().amax(1, keepdim=True) if len(x) else x[:, :1].detach()
    some = x / torch.where(top > 0, top, 1.0)
    square = some.square().sum(1, keepdim=True)
    return some / torch.where(square > 0, square, 1.0).sqrt() * (square > 0)


def _sum_exp(s: Tensor, some: Tensor) -> Tensor:
    """The logarithm of a sum of exponentials; -inf of none."""
    there = some.any(1)
    safe = s.masked_fill(~some & there[:, None], -INF)
    return torch.where(there, safe.logsumexp(1), -INF)


def _weights(a: Any, n: int) -> Tensor:
    return torch.ones(n, dtype=torch.float64) if a.weight is None else a.weight


def _of_positives(s: Tensor, positive: Tensor, negative: Tensor, form: str) -> Tensor:
    """Khosla et al. 2020 (arXiv:2004.11362), eq. 2 and 3, of rows that have a positive.

    log(exp(n) + exp(p)) - p is softplus(n - p), with n and p the sums of either.
    """
    count, mine = positive.sum(1), _sum_exp(s, positive)
    loss = softplus(_sum_exp(s, negative) - mine)
    if form == "in":
        return loss + count.double().log()
    spread = _sum_exp(s, positive) - torch.where(positive, s, 0.0).sum(1) / count
    return loss + torch.where(count > 1, spread, 0.0)


def _pair_marks(a: Any, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positives and negatives of all pairs, and which columns are there."""
    n, m = len(a.anchors), len(a.candidates)
    at = torch.arange(n) if getattr(a, "target", None) is None else a.target.long()
    own = torch.arange(m) == at[:, None]
    there = torch.ones(m, dtype=torch.bool)
    if getattr(a, "target", None) is None:
        there[:n] = keep
    same = torch.zeros_like(own)
    if a.ids is not None:
        theirs = a.ids if a.candidate_ids is None else a.candidate_ids
        same = a.ids[:, None] == theirs
    positive = own | same if a.duplicates == "positive" else own
    return positive, ~(own | same), there


def _one_way(
    x: Tensor, y: Tensor, positive: Tensor, negative: Tensor, scale: Any, form: str = "out"
) -> Tensor:
    if not len(x):
        return x.sum(1)
    return _of_positives(scale * x @ y.T, positive, negative, form)


def contrastive_loss(a: Any) -> Tensor:
    """van den Oord et al. 2018 (arXiv:1807.03748), eq. 4; SimCLR (arXiv:2002.05709), eq. 1."""
    weight = _weights(a, len(a.anchors))
    keep = weight != 0
    positive, negative, there = _pair_marks(a, keep)
    x, y = a.anchors[keep], a.candidates[there]
    if a.cosine:
        x, y = _unit(x), _unit(y)
    positive, negative = (t[keep][:, there] for t in (positive, negative))
    ids = None if a.ids is None else a.ids[keep]
    values = _one_way(x, *_beside(a, y, x, positive, negative, ids, ids), a.scale)
    if a.symmetric:
        n = len(x)
        theirs = a.ids if a.candidate_ids is None else a.candidate_ids
        other = None if ids is None else theirs[there]
        own = torch.eye(n, dtype=torch.bool)
        same = torch.zeros_like(own) if ids is None else other[:n, None] == ids
        p = own | same if a.duplicates == "positive" else own
        back = _beside(a, x, y, p, ~(own | same), None if other is None else other[:n], other)
        values = (values + _one_way(y[:n], *back, a.scale)) / 2
    values = values * weight[keep]
    return reduced(
        scattered(values, keep) if a.reduction == "none" else values,
        weight[keep].sum(),
        a.reduction,
        "contrastive",
    )


def _beside(a: Any, y: Tensor, x: Tensor, p: Tensor, q: Tensor, ids: Any, others: Any) -> tuple:
    """The columns with the other rows of the same table beside them."""
    if not a.within:
        return y, p, q
    n, m = len(p), len(x)
    other = torch.arange(m) != torch.arange(n)[:, None]
    same = torch.zeros_like(other) if ids is None else ids[:, None] == others
    more = same & other if a.duplicates == "positive" else torch.zeros_like(other)
    return torch.cat((y, x)), torch.cat((p, more), 1), torch.cat((q, other & ~same), 1)


def siglip_loss(a: Any) -> Tensor:
    """Zhai et al. 2023 (arXiv:2303.15343), section 3.2."""
    weight = _weights(a, len(a.anchors))
    keep = weight != 0
    positive, negative, there = _pair_marks(a, keep)
    x, y = a.anchors[keep], a.candidates[there]
    if a.cosine:
        x, y = _unit(x), _unit(y)
    positive, negative = (t[keep][:, there] for t in (positive, negative))
    z = a.scale * x @ y.T + a.bias
    values = torch.where(positive, softplus(-z), 0.0) + torch.where(negative, softplus(z), 0.0)
    values = values.sum(1) * weight[keep]
    return reduced(
        scattered(values, keep) if a.reduction == "none" else values,
        weight[keep].sum(),
        a.reduction,
        "siglip",
    )


def supcon_loss(a: Any) -> Tensor:
    """Khosla et al. 2020 (arXiv:2004.11362), eq. 2 and 3."""
    weight = _weights(a, len(a.embeddings))
    keep = weight != 0
    x, y = a.embeddings[keep], a.target[keep]
    x = _unit(x) if a.cosine else x
    same, other = y[:, None] == y, ~torch.eye(len(x), dtype=torch.bool)
    found = (same & other).any(1)
    values = _one_way(x[found], x, (same & other)[found], ~same[found], a.scale, a.kind)
    values = values * weight[keep][found]
    counted = weight[keep][found].sum()
    places = keep.clone()
    places[keep] = found
    return reduced(
        scattered(values, places) if a.reduction == "none" else values,
        counted,
        a.reduction,
        "supcon",
    )


def triplet_loss(a: Any) -> Tensor:
    """Hermans et al. 2017 (arXiv:1703.07737), eq. 5; the mean over the triplets of a sample."""
    weight = _weights(a, len(a.embeddings))
    keep = weight != 0
    x, y = a.embeddings[keep], a.target[keep]
    x = _unit(x) if a.cosine else x
    square = (x[:, None] - x).square().sum(2)
    apart = square if a.squared else torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
    same, other = y[:, None] == y, ~torch.eye(len(x), dtype=torch.bool)
    values, places = [], keep.clone()
    has = [bool((same[i] & other[i]).any() and (~same[i]).any()) for i in range(len(x))]
    places[keep] = torch.tensor(has, dtype=torch.bool)
    for i in range(len(x)):
        if not has[i]:
            continue
        far, near = apart[i][same[i] & other[i]], apart[i][~same[i]]
        every = (far[:, None] - near).flatten()
        gap = far.max() - near.min() if a.mining == "hard" else every
        cost = softplus(gap) if a.margin == "soft" else (gap + a.margin).clamp(min=0)
        values.append(cost.mean())
    total = (
        torch.stack(values) if values else a.embeddings.masked_fill(~keep[:, None], 0).sum(1)[:0]
    )
    total = total * weight[places]
    return reduced(
        scattered(total, places) if a.reduction == "none" else total,
        weight[places].sum(),
        a.reduction,
        "triplet",
    )


def margin_loss(a: Any) -> Tensor:
    """ArcFace (arXiv:1801.07698), eq. 3, CosFace (arXiv:1801.09414), eq. 4."""
    weight = torch.ones(len(a.target)).double() if a.sample_weight is None else a.sample_weight
    keep = torch.ones(len(a.target), dtype=torch.bool)
    if a.ignore_index is not None:
        keep = a.target != a.ignore_index
    keep = keep & (weight != 0)
    y = a.target[keep].long()
    x, w = _unit(a.embeddings[keep]), _unit(a.weight)
    c = x @ w.T
    own = c.gather(1, y[:, None])[:, 0]
    m = a.margin[y] if isinstance(a.margin, Tensor) else torch.tensor(a.margin, dtype=torch.float64)
    held = own - m
    if a.kind == "angle":
        sine = (1 - own.square()).clamp(min=1e-4).sqrt()
        held = torch.where(own > -m.cos(), own * m.cos() - sine * m.sin(), own - m * m.sin())
    s = a.scale * c
    others = torch.arange(len(w)) != y[:, None]
    values = softplus(_sum_exp(s, others) - a.scale * held) * weight[keep]
    return reduced(
        scattered(values, keep) if a.reduction == "none" else values,
        weight[keep].sum(),
        a.reduction,
        "margin",
    )
