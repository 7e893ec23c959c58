"""Losses with a teacher: decoupled, of other vocabularies, of features, of relations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.classes import class_rows
from tests.fuzz.oracles.common import costs, heard, reduced, scattered
from tests.fuzz.oracles.language import kl

__all__ = [
    "decoupled_distillation_loss",
    "decoupled_distillation_terms",
    "feature_distillation_loss",
    "relational_distillation_loss",
    "relational_distillation_terms",
    "uld_loss",
]


def decoupled_distillation_terms(a: Any) -> dict[str, Tensor]:
    """Zhao et al. 2022 (arXiv:2203.08679): TCKD and NCKD, T**2 times."""
    x, axis = class_rows(a.student_logits, a.target, a.class_dim)
    t = a.teacher_logits.movedim(axis, -1).reshape(x.shape)
    s = torch.ones(len(x)).double() if a.sample_weight is None else a.sample_weight.reshape(-1)
    keep = (s != 0) & heard(a.target.reshape(-1), a.ignore_index)
    y = a.target.reshape(-1)[keep].long()[:, None]
    left = torch.ones(len(y), x.shape[1]).scatter(1, y, 0.0).bool()
    parts, others = [], []
    for z in (t[keep] / a.temperature, x[keep] / a.temperature):  # the teacher first
        rest = z[left].view(len(y), x.shape[1] - 1)
        parts.append(-costs(torch.cat((z.gather(1, y), rest.logsumexp(1, keepdim=True)), 1)))
        others.append(-costs(rest))
    where, count = keep.reshape(a.target.shape), s[keep].sum()
    made = {"target": kl(*parts), "others": kl(*others)}
    return {
        name: reduced(scattered(s[keep] * a.temperature**2 * v, where), count, a.reduction, name)
        for name, v in made.items()
    }


def decoupled_distillation_loss(a: Any) -> Tensor:
    terms = decoupled_distillation_terms(a)
    return a.target_weight * terms["target"] + a.others_weight * terms["others"]


def uld_loss(a: Any) -> Tensor:
    """Boizard et al. 2024 (arXiv:2402.12030): of sorted probabilities, padded with 0."""
    axis = (1 if a.class_dim is None else a.class_dim) % a.student_logits.ndim
    x, t = (z.movedim(axis, -1) for z in (a.student_logits, a.teacher_logits))
    s = torch.ones(x.shape[:-1]).double() if a.sample_weight is None else a.sample_weight
    keep = s != 0
    q, p = (
        torch.exp(-costs(z[keep] / a.temperature)).sort(1, descending=True).values for z in (x, t)
    )
    n = min(q.shape[1], p.shape[1])
    values = (q[:, :n] - p[:, :n]).abs().sum(1) + q[:, n:].sum(1) + p[:, n:].sum(1)
    return reduced(scattered(s[keep] * values, keep), s[keep].sum(), a.reduction, "uld")


def _direction(v: Tensor) -> Tensor:
    """Along the last axis; 0 has none."""
    top = v.abs().amax(-1, keepdim=True)
    none = top == 0
    v = v / torch.where(none, 1.0, top).detach()
    return torch.where(none, 0.0, v / torch.where(none, 1.0, v).norm(dim=-1, keepdim=True))


def _length(v: Tensor) -> Tensor:
    none = (v == 0).all(-1)
    return torch.where(none, 0.0, torch.where(none[..., None], 1.0, v).norm(dim=-1))


def _unscaled(v: Tensor) -> Tensor:
    """Each sample over its largest number."""
    top = v.flatten(1).abs().sum(1).view(-1, *[1] * (v.ndim - 1)).detach()
    return v / torch.where(top == 0, 1.0, top)


def feature_distillation_loss(a: Any) -> Tensor:
    x, t = a.student_features, a.teacher_features
    shape = (len(x), *x.shape[2:]) if a.kind == "cosine" else (len(x),)
    s = torch.ones(shape).double() if a.weight is None else a.weight
    keep = s != 0
    if a.kind == "cosine":
        x, t = (v.movedim(1, -1)[keep] for v in (x, t))
    else:
        x, t = (v[keep] for v in (x, t))
        if a.kind == "attention":
            x, t = (_unscaled(v).square().sum(1) for v in (x, t))
        x, t = x.flatten(1), t.flatten(1)
    apart = _direction(x) - _direction(t)
    values = apart.square().sum(-1) / 2 if a.kind == "cosine" else _length(apart)
    return reduced(
        scattered(s[keep] * values, keep), s[keep].sum(), a.reduction, "feature_distillation"
    )


def _huber(d: Tensor) -> Tensor:
    return torch.where(d.abs() < 1, d.square() / 2, d.abs() - 0.5)


def relational_distillation_terms(a: Any) -> dict[str, Tensor]:
    """Park et al. 2019 (arXiv:1904.05068), section 3.2, as means over pairs and triples."""
    x, t = a.student_embeddings, a.teacher_embeddings
    s = torch.ones(len(x)).double() if a.weight is None else a.weight
    keep = s != 0
    x, t, s = x[keep], t[keep], s[keep]
    n = len(x)
    apart = ~torch.eye(n, dtype=torch.bool)
    pair = torch.where(apart, s[:, None] * s, 0.0)
    triple = pair[:, :, None] * s  # corner, then two others
    triple = torch.where(apart[:, None] & apart[None], triple, 0.0)
    relations: list[tuple[Tensor, Tensor]] = []
    for z in (x, t):
        sides = z - z[:, None]
        d = _length(sides)
        mean = (pair * d).sum() / pair.sum() if n > 1 else d.new_ones(())
        unit = _direction(sides)
        relations.append((d / torch.where(mean == 0, 1.0, mean), unit @ unit.mT))
    of_pairs, of_triples = (_huber(a - b) for a, b in zip(*relations, strict=True))
    return {
        "distance": reduced((pair * of_pairs).sum(), pair.sum(), a.reduction, "distance"),
        "angle": reduced((triple * of_triples).sum(), triple.sum(), a.reduction, "angle"),
    }


def relational_distillation_loss(a: Any) -> Tensor:
    terms = relational_distillation_terms(a)
    return a.distance_weight * terms["distance"] + a.angle_weight * terms["angle"]
