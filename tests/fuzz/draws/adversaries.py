"""Adversarial losses, of one map or of a list of them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.classes import poisoned, shape_of
from tests.fuzz.oracles import adversaries as oracle

__all__ = ["LOSSES"]

KINDS = ("lsgan", "hinge", "bce", "wasserstein")


def _call(d: Draw, name: str, sides: tuple[str, ...], least: int = 1, **options: Any) -> Call:
    many = d.pick("maps", tuple(n for n in (0, 1, 2, 3) if n >= least or (n == 0 and least == 1)))
    args: dict[str, Any] = {}
    maps: dict[str, list[Tensor]] = {name: [] for name in (*sides, "weight")}
    weighted = d.chance("weighted", 2)
    dtype = d.dtype(sides[0])
    other = d.pick("side", (dtype, torch.float32))
    for i in range(max(many, 1)):
        shape = shape_of(d, low=0)
        weight = d.weights(f"weight {i}", shape)
        keep = weight != 0 if weighted else torch.ones(shape, dtype=torch.bool)
        for side in sides:
            x = poisoned(d, d.numbers(f"{side} {i}", shape, 1e4), keep, f"{side} {i}")
            maps[side].append(d.tensor(f"{side} {i}", x, dtype if side == sides[0] else other))
        maps["weight"].append(d.tensor(f"weight {i}", weight, torch.float32))
    for side, each in maps.items():
        if side != "weight" or weighted:
            args[side] = each if many else each[0]
    args |= options | {
        "combine": d.pick("combine", ("sum", "mean")),
        "reduction": d.reduction(none=False),
    }
    return d.call(name, args, sides[0], *(sides[1:] if name.startswith("discriminator") else ()))


def _discriminator(d: Draw, name: str) -> Call:
    return _call(d, name, ("real", "fake"), kind=d.pick("kind", KINDS))


def _generator(d: Draw, name: str) -> Call:
    kind = d.pick("kind", KINDS)
    options = dict(kind=kind, bounded=kind == "hinge" and d.pick("bounded", (False, True)))
    return _call(d, name, ("fake",), **options)


def _features(d: Draw, name: str) -> Call:
    last = d.pick("last", (True, False))
    options = dict(
        last=last,
        relative=d.pick("relative", (False, True)),
        detach_real=d.pick("detach_real", (True, False)),
    )
    return _call(d, name, ("fake", "real"), 1 if last else 2, **options)


def _added_up(call: Call) -> tuple[float, float]:
    """A critic's scores are of either sign: what a mean of them rounds is beside their sizes."""
    generates = call.name.startswith("generator") and not call.args["bounded"]
    if call.args["kind"] != "wasserstein" and not (generates and call.args["kind"] == "hinge"):
        return 0.0, 0.0
    return 1e-6 * oracle.sizes(SimpleNamespace(**{"weight": None} | call.args)), 0.0


LOSSES = {
    f"{side}_{kind}": Loss(
        partial(draw, name=f"{side}_{kind}"),
        getattr(oracle, f"{side}_{kind}"),
        limit=None if side == "feature_matching" else _added_up,
        wrong={"reduction": ("none",)},
    )
    for side, draw in (
        ("discriminator", _discriminator),
        ("generator", _generator),
        ("feature_matching", _features),
    )
    for kind in ("loss", "terms")
}
