"""Adversarial losses, of the scores or the features in one tensor or in a list of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles.common import reduced, softplus

__all__ = [
    "discriminator_loss",
    "discriminator_terms",
    "feature_matching_loss",
    "feature_matching_terms",
    "generator_loss",
    "generator_terms",
    "sizes",
]


def _maps(t: Any) -> list[Tensor]:
    return [t] if isinstance(t, Tensor) else list(t)


def _weights(a: Any, maps: list[Tensor]) -> list[Tensor]:
    given = [None] * len(maps) if a.weight is None or not maps else _maps(a.weight)
    return [torch.ones(m.shape).double() if w is None else w.double() for m, w in zip(maps, given)]  # noqa: B905 # of one length


def _cost(x: Tensor, kind: str, real: bool) -> Tensor:
    """Mao 2017; Lim and Ye 2017; Goodfellow 2014; Arjovsky 2017."""
    if kind == "lsgan":
        return (x - float(real)) ** 2
    away = -x if real else x
    if kind == "bce":
        return softplus(away)
    return torch.relu(1 + away) if kind == "hinge" else away


def _joined(each: list[Tensor], combine: str) -> Tensor:
    return sum(each[1:], each[0]) / (len(each) if combine == "mean" else 1)


def _score(a: Any, maps: list[Tensor], kind: str, real: bool) -> Tensor:
    each = []
    for x, w in zip(maps, _weights(a, maps), strict=True):
        keep = w != 0
        each.append(reduced(w[keep] * _cost(x[keep], kind, real), w.sum(), a.reduction, ""))
    return _joined(each, a.combine)


def discriminator_terms(a: Any) -> dict[str, Tensor]:
    sides = {"real": _maps(a.real), "fake": [x.double() for x in _maps(a.fake)]}
    return {side: _score(a, maps, a.kind, side == "real") for side, maps in sides.items()}


def discriminator_loss(a: Any) -> Tensor:
    return sum(discriminator_terms(a).values())


def generator_loss(a: Any) -> Tensor:
    """Non-saturating; a hinge that is not bounded is a critic's."""
    kind = "wasserstein" if a.kind == "hinge" and not a.bounded else a.kind
    return _score(a, _maps(a.fake), kind, True)


def generator_terms(a: Any) -> dict[str, Tensor]:
    return {"fake": generator_loss(a)}


def sizes(a: Any) -> float:
    """What the scores come to if none has a sign."""
    total = 0.0
    for maps in (a.fake, getattr(a, "real", None)):
        each = []
        held = [] if maps is None else _maps(maps)
        for x, w in zip(held, _weights(a, held), strict=True):
            x = torch.where(w != 0, x.detach().double(), 0.0).abs()
            each.append(reduced(w * x, w.sum(), a.reduction, ""))
        total += _joined(each, a.combine).item() if each else 0.0
    return total


def feature_matching_loss(a: Any) -> Tensor:
    """Larsen et al. 2016; a list is the layers of one discriminator."""
    fake, real = _maps(a.fake), [r.double().detach() for r in _maps(a.real)]
    each = []
    for x, r, w in zip(fake, real, _weights(a, fake), strict=True):
        keep = w != 0
        x, r, w = x[keep], r[keep], w[keep]
        count = (w * r.abs()).sum() if a.relative else w.sum()
        each.append(reduced(w * (x - r).abs(), count, a.reduction, ""))
    return _joined(each if a.last else each[:-1], a.combine)


def feature_matching_terms(a: Any) -> dict[str, Tensor]:
    return {"features": feature_matching_loss(a)}
