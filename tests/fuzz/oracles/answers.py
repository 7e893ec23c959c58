"""Preferences between answers, and policies of sampled ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced, rise, softplus

__all__ = [
    "dpo_loss",
    "dpo_terms",
    "kl_penalty_loss",
    "kto_loss",
    "kto_terms",
    "orpo_loss",
    "orpo_terms",
    "policy_loss",
    "policy_terms",
    "simpo_loss",
    "simpo_terms",
]


def _weights(a: Any, like: Tensor) -> Tensor:
    return torch.ones_like(like) if a.weight is None else a.weight


def _put(values: Tensor, weight: Tensor, keep: Tensor, a: Any, term: str) -> Tensor:
    whole = torch.zeros(keep.shape, dtype=torch.float64).masked_scatter(keep, values * weight)
    return reduced(whole, weight.sum(), a.reduction, term)


def _cost(h: Tensor, m: Tensor, a: Any) -> Tensor:
    """Of pairs that lead by h, and should by m."""
    u, e = a.beta * h - m, a.label_smoothing
    if a.kind == "hinge":
        return torch.relu(1 - u)  # with no slope where it ends
    if a.kind == "ipo":
        return (h - (0.5 + m) / a.beta) ** 2
    if a.kind == "robust":
        return ((1 - e) * softplus(-u) - e * softplus(u)) / (1 - 2 * e)
    return (1 - e) * softplus(-u) + e * softplus(u)


_SCORES = (
    *("chosen", "rejected", "reference_chosen", "reference_rejected"),
    *("score", "reference_score"),
)


def _plain(a: Any) -> Tensor:
    """Scores as numbers, by their tokens if so asked; and which answers have any."""
    some = torch.tensor(True)
    divides = getattr(a, "per_token", None)
    divides = getattr(a, "kind", None) == "ipo" if divides is None else divides
    for key in _SCORES:
        given = getattr(a, key, None)
        if isinstance(given, tuple):
            score, tokens = given
            some = some & (tokens > 0)
            by = torch.where(tokens > 0, tokens, 1) if divides else 1
            setattr(a, key, score / by)
    return some


def _pairs(a: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    some = _plain(a)
    w = _weights(a, a.chosen.detach())
    keep = (w != 0) & some
    x, y = a.chosen[keep], a.rejected[keep]
    if a.reference_chosen is not None:
        x, y = x - a.reference_chosen[keep], y - a.reference_rejected[keep]
    return x, y, w[keep], keep


def dpo_loss(a: Any) -> Tensor:
    return dpo_terms(a)["preference"]


def dpo_terms(a: Any) -> dict[str, Tensor]:
    x, y, w, keep = _pairs(a)
    m = _margins(x, a, keep)
    values = {
        "preference": _cost(x - y, m, a),
        "reward_chosen": a.beta * x.detach(),
        "reward_rejected": a.beta * y.detach(),
        "accuracy": (x > y).double(),
    }
    seen = w.detach()
    return {
        name: _put(v, w if name == "preference" else seen, keep, a, "preference")
        for name, v in values.items()
    }


def beyond_the_hinge(a: Any) -> Tensor:
    """How far each pair is from where a hinge ends, beside its scores; and the size of these."""
    x, y, _, keep = _pairs(a)
    m = _margins(x, a, keep)
    size = 1 + m.abs() + a.beta * (x.abs() + y.abs())
    return torch.stack(((a.beta * (x - y) - m - 1) / size, size), -1)


def _margins(x: Tensor, a: Any, keep: Tensor) -> Tensor:
    m = torch.full_like(x, a.margin).detach()
    return m if getattr(a, "pair_margin", None) is None else m + a.pair_margin[keep]


def simpo_loss(a: Any) -> Tensor:
    return simpo_terms(a)["preference"]


def simpo_terms(a: Any) -> dict[str, Tensor]:
    a.kind, a.reference_chosen = "sigmoid", None
    return dpo_terms(a)


def orpo_loss(a: Any) -> Tensor:
    terms = orpo_terms(a)
    return terms["nll"] + a.odds_weight * terms["odds"]


def orpo_terms(a: Any) -> dict[str, Tensor]:
    a.reference_chosen = None
    x, y, w, keep = _pairs(a)
    odds = softplus(_odds(-x) - _odds(-y))
    return {
        "nll": reduced(-x * w, w.sum(), a.reduction, "nll"),
        "odds": _put(odds, w, keep, a, "odds"),
    }


def _odds(a: Tensor) -> Tensor:
    """log(exp(a) - 1), whose slope is finite at 0 beside what it is weighed with."""
    a = a + 1e-300
    return a + rise(a).log()


def kto_loss(a: Any) -> Tensor:
    return kto_terms(a)["preference"]


def kto_terms(a: Any) -> dict[str, Tensor]:
    some = _plain(a)
    w = _weights(a, a.score.detach())
    keep = (w != 0) & some
    r = a.score[keep]
    r = r if a.reference_score is None else r - a.reference_score[keep]
    z0 = a.baseline
    if z0 is None:
        gains = a.mismatched
        gains = gains[0][gains[1] > 0] if isinstance(gains, tuple) else gains
        gains = gains.detach()
        z0 = gains.mean().clamp(min=0) if gains.numel() else 0.0
    good = a.desirable[keep]
    away = a.beta * torch.where(good, z0 - r, r - z0)
    each = torch.tensor([a.undesirable_weight, a.desirable_weight], dtype=torch.float64)
    price = each[good.long()]
    terms = {
        "preference": _put(price * torch.exp(-softplus(-away)), w[keep], keep, a, "preference"),
        "baseline": torch.as_tensor(z0, dtype=torch.float64),
    }
    for name, kind in (("reward_desirable", good), ("reward_undesirable", ~good)):
        seen = torch.where(kind, w[keep].detach().double(), 0.0)
        terms[name] = _put(a.beta * r.detach(), seen, keep, a, name)
    return terms


# ----------------------------------------------------------------------------------- policies


def _parts(a: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Which tokens count, the part of each in the mean's total, and the sequences."""
    keep = torch.ones(a.log_prob.shape, dtype=torch.bool) if a.mask is None else a.mask
    if a.sequence_ids is not None:
        keep = keep & (a.sequence_ids >= 0)
        ids = a.sequence_ids.long()
    elif a.log_prob.ndim > 1:
        shape = a.log_prob.shape
        ids = torch.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1).expand(shape)
    else:
        ids = torch.zeros(a.log_prob.shape, dtype=torch.long)
    sequences = [keep & (ids == i) for i in ids[keep].unique().tolist()]
    part = torch.zeros(keep.shape, dtype=torch.float64)
    for one in sequences:
        part[one] = {
            "token": 1.0,
            "sequence": 1 / int(one.sum()),
            "constant": 1 / (a.nominal_length or 1),
        }[a.average]
    return keep, part, sequences


def _averaged(values: Tensor, a: Any, term: str) -> Tensor:
    keep, part, sequences = _parts(a)
    count = keep.sum() if a.average == "token" else len(sequences)
    whole = torch.zeros(keep.shape, dtype=torch.float64).masked_scatter(keep, values)
    return reduced(whole * part, torch.as_tensor(count).double(), a.reduction, term)


def policy_loss(a: Any) -> Tensor:
    return policy_terms(a)["policy"]


def policy_terms(a: Any) -> dict[str, Tensor]:
    keep, _, sequences = _parts(a)
    advantage = a.advantage.detach()
    if advantage.ndim < a.log_prob.ndim:
        advantage = advantage.unsqueeze(-1).expand(a.log_prob.shape)
    advantage, x = advantage[keep], a.log_prob[keep]
    alone = log_ratio = x - a.old_log_prob.detach()[keep]
    if a.ratio == "sequence":
        log_ratio = torch.zeros_like(x)
        for one in sequences:
            log_ratio = torch.where(one[keep], alone[one[keep]].mean(), log_ratio)
    by = advantage if a.importance is None else advantage * a.importance.detach()[keep]
    if a.kind == "cispo":
        ratio = log_ratio.detach().clamp(max=math.log(a.cap)).exp()
        value, held = -ratio * by * x, log_ratio > math.log(a.cap)
    else:
        low = math.log1p(-a.clip_low) if a.clip_low < 1 else -math.inf
        least = log_ratio.clamp(min=low)
        least = least if a.dual_clip is None else least.clamp(max=math.log(a.dual_clip))
        inside = torch.where(advantage > 0, log_ratio.clamp(max=math.log1p(a.clip_high)), least)
        value = torch.where(by == 0, 0.0, -by * torch.where(by == 0, 0.0, inside).exp())
        held = inside != log_ratio
    alone = alone.detach()
    return {
        "policy": _averaged(value, a, "policy"),
        "clipped": _averaged(held.double(), a, "policy"),
        "kl_old": _averaged(torch.expm1(alone) - alone, a, "policy"),
    }


def kl_penalty_loss(a: Any) -> Tensor:
    keep = _parts(a)[0]
    d = a.log_prob[keep] - a.reference_log_prob[keep]
    value = {"k1": d, "k2": d**2 / 2, "k3": _k3(d)}[a.kind]
    if a.old_log_prob is not None:
        value = value * (a.log_prob - a.old_log_prob.detach())[keep].exp()
    return _averaged(value, a, "kl")


def _k3(d: Tensor) -> Tensor:
    """exp(-d) - 1 + d, near 0 by its series."""
    small = torch.where(d.abs() < 0.1, d, 0.0)
    series = small**2 / 2
    total = series
    for k in range(3, 14):
        series = -series * small / k
        total = total + series
    return torch.where(d.abs() < 0.1, total, torch.expm1(-d) + d)
