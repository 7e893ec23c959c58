"""Contrastive losses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from aptt.parallel import gather
from tests.fuzz.draw import INTEGERS, Call, Draw, Loss
from tests.fuzz.draws.classes import NAN, poisoned
from tests.fuzz.oracles import embeddings as oracle

__all__ = ["LOSSES"]

_SCALES = (2.0, 20.0, 0.1, 100.0)


def _table(d: Draw, label: str, n: int, width: int, *, plain: bool = False) -> Tensor:
    """Embeddings in all directions; some of them zeros, short or long.

    Where rows are alike, a gradient is a sum that is 0 but for rounding: not here.
    """
    x = d.normal(label, (n, width)) * d.pick(f"{label} unit", (1.0, 1e-3, 30.0))
    if plain or not d.chance(f"{label} hard", 3):
        return x
    return x * d.among(f"{label} length", (n, 1), (1.0, 0.0, 1e-3, 1e3))


def _scale(d: Draw) -> Any:
    value = d.pick("scale", _SCALES)
    return torch.tensor(value, dtype=torch.float64) if d.chance("scale tensor", 3) else value


def _shared(d: Draw, scale: Any) -> dict[str, Any]:
    return dict(
        scale=scale,
        cosine=not d.chance("products", 4),
        chunk=d.pick("chunk", (None, 1, 3)),
        gather=d.pick("gather", (None, gather)),  # of a world of one
        reduction=d.reduction(),
    )


def _pairs(d: Draw) -> tuple[dict[str, Any], Tensor]:
    n, width = d.size("anchors"), d.size("width", low=1)
    m = n + d.pick("more candidates", (0, 0, 3))
    a, b = _table(d, "anchors", n, width), _table(d, "candidates", m, width)
    weight = d.maybe("weight", lambda: d.weights("weight", (n,)))
    keep = torch.ones(n, dtype=torch.bool) if weight is None else weight != 0
    theirs = torch.cat((keep, torch.ones(m - n, dtype=torch.bool)))
    dtype = d.dtype("ids", INTEGERS)
    ids = d.maybe("ids", lambda: torch.randint(4, (n,), generator=d.stream("ids")).to(dtype))
    others = None
    if ids is not None and (m != n or d.chance("candidate_ids given", 2)):
        others = torch.randint(4, (m,), generator=d.stream("candidate_ids"))
    args = dict(
        anchors=d.tensor("anchors", poisoned(d, a, keep[:, None].expand_as(a), "anchors")),
        candidates=d.tensor("candidates", poisoned(d, b, theirs[:, None].expand_as(b), "others")),
        ids=ids,
        candidate_ids=others,
        weight=None if weight is None else d.tensor("weight", weight),
        duplicates=d.pick("duplicates", ("mask", "positive")),
    )
    return args, keep


def _contrastive(d: Draw) -> Call:
    args, keep = _pairs(d)
    args |= _shared(d, _scale(d))
    args["within"] = d.chance("within", 3)
    n, m = len(args["anchors"]), len(args["candidates"])
    if bool(keep.all()) and m and d.chance("target given", 3):
        args["target"] = torch.randint(m, (n,), generator=d.stream("target"))
    else:
        args["symmetric"] = d.chance("symmetric", 2)
    sides = ("candidates", "weight", "scale")
    return d.call("contrastive_loss", args, "anchors", sides=sides)


def _siglip(d: Draw) -> Call:
    args, _ = _pairs(d)
    bias = d.pick("bias", (-1.0, -10.0, 0.0))
    bias = torch.tensor(bias, dtype=torch.float64) if d.chance("bias tensor", 3) else bias
    args |= _shared(d, _scale(d)) | dict(bias=bias)
    sides = ("candidates", "weight", "scale", "bias")
    return d.call("siglip_loss", args, "anchors", sides=sides)


def _samples(d: Draw, *, plain: bool = False) -> dict[str, Any]:
    n, width = d.size("samples", high=17), d.size("width", low=2 if plain else 1)
    x = _table(d, "embeddings", n, width, plain=plain)
    target = torch.randint(4, (n,), generator=d.stream("target"))
    weight = d.maybe("weight", lambda: d.weights("weight", (n,)))
    if weight is not None:
        x = poisoned(d, x, (weight != 0)[:, None].expand_as(x), "embeddings")
    return dict(
        embeddings=d.tensor("embeddings", x),
        target=d.laid("target", target.to(d.dtype("target", INTEGERS))),
        weight=None if weight is None else d.tensor("weight", weight),
    )


def _supcon(d: Draw) -> Call:
    args = _samples(d) | _shared(d, _scale(d)) | dict(kind=d.pick("kind", ("out", "in")))
    return d.call("supcon_loss", args, "embeddings", sides=("weight", "scale"))


def _triplet(d: Draw) -> Call:
    args = _samples(d, plain=True) | dict(
        margin=d.pick("margin", (0.3, "soft", 2.0, 0.01)),
        mining=d.pick("mining", ("hard", "all")),
        squared=d.chance("squared", 2),
        cosine=d.chance("directions", 2),
        chunk=d.pick("chunk", (None, 1, 3)),
        gather=d.pick("gather", (None, gather)),
        reduction=d.reduction(),
    )
    return d.call("triplet_loss", args, "embeddings", sides=("weight",))


def _margin(d: Draw) -> Call:
    n, width, classes = d.size("samples"), d.size("width", low=3), d.size("classes", low=1)
    ignored = d.pick("ignore_index", (-100, 0, None))
    target = torch.randint(classes, (n,), generator=d.stream("target"))
    weight = d.maybe("sample_weight", lambda: d.weights("sample_weight", (n,)))
    keep = torch.ones(n, dtype=torch.bool) if ignored is None else target != ignored
    keep = keep if weight is None else keep & (weight != 0)
    x = poisoned(d, _table(d, "embeddings", n, width), keep[:, None].expand(n, width), "embeddings")
    kind = d.pick("kind", ("angle", "cosine"))
    margin: Any = d.pick("margin", (0.5, 0.0, 0.1, 1.2))
    if d.chance("margins", 3):
        margin = torch.rand(classes, generator=d.stream("margins")).double()
    args = dict(
        embeddings=d.tensor("embeddings", x),
        weight=d.tensor("weight", _table(d, "weight", classes, width, plain=True)),
        target=d.laid("target", target),
        sample_weight=None if weight is None else d.tensor("sample_weight", weight),
        ignore_index=ignored,
        margin=margin,
        kind=kind,
        scale=_scale(d),
        chunk=d.pick("chunk", (None, 1, 3)),
        reduction=d.reduction(),
    )
    sides = ("weight", "sample_weight", "scale", "margin")
    call = d.call("margin_loss", args, "embeddings", sides=sides)
    if ignored is None:
        call.args["ignore_index"] = None
    return call


def _opposed(call: Call) -> bool:
    """Whether a mean over positives one way may be undone, to the last digit, by the other way."""
    return bool(call.args.get("symmetric")) and call.args["duplicates"] == "positive"


_CHUNK, _SCALE = (0, -1), (0.0, -1.0, NAN)

LOSSES = {
    "contrastive_loss": Loss(
        _contrastive,
        oracle.contrastive_loss,
        rows=0,
        several=_opposed,
        conceded=lambda call: {"anchors", "candidates", "scale"},
        rounded=lambda call: {"anchors": 1.0},  # as is any softmax
        wrong={"scale": _SCALE, "chunk": _CHUNK, "duplicates": ("drop",)},
    ),
    "margin_loss": Loss(
        _margin,
        oracle.margin_loss,
        rows=0,
        conceded=lambda call: {"embeddings", "weight", "scale", "margin"},
        wrong={"scale": _SCALE, "chunk": _CHUNK, "margin": (-1.0, NAN), "kind": ("sine",)},
    ),
    "siglip_loss": Loss(
        _siglip,
        oracle.siglip_loss,
        rows=0,
        conceded=lambda call: {"anchors", "candidates", "scale"},
        wrong={"scale": _SCALE, "chunk": _CHUNK, "bias": (math.inf, NAN)},
    ),
    "supcon_loss": Loss(
        _supcon,
        oracle.supcon_loss,
        rows=0,
        conceded=lambda call: {"embeddings", "scale"},
        rounded=lambda call: {"embeddings": 1.0},  # as is any softmax
        wrong={"scale": _SCALE, "chunk": _CHUNK, "kind": ("mean",)},
    ),
    "triplet_loss": Loss(
        _triplet,
        oracle.triplet_loss,
        rows=0,
        conceded=lambda call: {"embeddings"},
        wrong={"margin": (-1.0, NAN, "hard"), "chunk": _CHUNK, "mining": ("semi",)},
    ),
}
