"""Rows of the losses that compare embeddings with each other.

What they have in common: a value depends on all of the batch, and a weight of 0 takes a sample out
of it altogether. Over ranks their own tests hold them, with all ranks' rows gathered.
"""

from __future__ import annotations

import inspect
import math
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import NOTHING_FROZEN, indices, marked, normal, with_
from aptt.loss import (
    ContrastiveLoss,
    SigLIPLoss,
    SupConLoss,
    TripletLoss,
    contrastive,
    contrastive_loss,
    margin_loss,
    siglip_loss,
    supcon_loss,
    triplet_loss,
)

__all__ = ["EMBEDDINGS"]

_D, _C = 12, 5
_WHOLE = "a sample is compared with all others of its batch"
JOINT = {
    **NOTHING_FROZEN,
    "samples_stand_alone": _WHOLE,
    "size_changes_nothing": f"{_WHOLE}: a batch repeated has each of them more than once",
    "split_invariance": f"{_WHOLE}; its own tests split it over ranks",
    "streamed_equals_plain": "it walks on its own; its tests compare every chunk size",
}


def _pairs(g: Generator, n: int) -> Inputs:
    anchors = normal(g, n, _D)
    return {"anchors": anchors, "candidates": anchors + normal(g, n, _D)}


def _with_ids(g: Generator, n: int) -> Inputs:
    return {**_pairs(g, n), "ids": indices(g, 6, n)}


def _all_ids(g: Generator, n: int) -> Inputs:
    ids = indices(g, 6, n)
    return {**_pairs(g, n), "ids": ids, "candidate_ids": (ids + indices(g, 2, n)) % 6}


def _to_another(g: Generator, n: int) -> Inputs:
    return {**_pairs(g, n), "target": torch.arange(n).flip(0)}


def _samples(g: Generator, n: int) -> Inputs:
    target = torch.arange(n) % 3 + 2 * (torch.arange(n) // 9)
    return {
        "embeddings": normal(g, n, _D) + 2 * torch.eye(9, _D).double()[target % 9],
        "target": target,
    }


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    weight = inputs.get("weight", torch.ones_like(keep, dtype=torch.float64))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _rows(inputs: Inputs) -> Tensor:
    return next(iter(inputs.values()))


def _each(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else len(_rows(inputs))


def _found(inputs: Inputs, options: Options) -> Tensor:
    """The weights of the samples that have another of their class."""
    target = inputs["target"]
    there = inputs.get("weight", torch.ones(len(target)).double())
    same = (target.unsqueeze(1) == target) & (there > 0)
    return (there * (same.sum(1) > 1)).sum()


def _mixed(inputs: Inputs, options: Options) -> Inputs:
    """Samples near others of other classes, and far from their own."""
    x = inputs["embeddings"]
    place = torch.eye(_D, dtype=x.dtype, device=x.device)[torch.arange(len(x)) // 3 % _D]
    return {**inputs, "embeddings": 3 * place + x / 9}


def _simplex(n: int, like: Tensor) -> Tensor:
    """As many directions as far from each other as they can be."""
    far = torch.eye(n, dtype=like.dtype, device=like.device) - 1 / n
    return torch.nn.functional.pad(far, (0, like.shape[1] - n))


def _best_pairs(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    far = _simplex(len(_rows(inputs)), _rows(inputs))
    return {**inputs, "anchors": far, "candidates": far}, None


def _levels(*units: float) -> Tensor:
    """Directions, equal, opposite, and none, of several lengths."""
    some = normal(torch.Generator().manual_seed(3), 6, _D)
    some[3], some[4], some[5] = -some[1], 2 * some[2], 0.0
    return torch.cat([some * unit for unit in units])


def _extreme_pairs() -> Inputs:
    x = _levels(1.0, 1e-20, 1e-4, 1e15)
    return {"anchors": x, "candidates": torch.cat((x[:12], -x[12:18], x[18:].flip(0)))}


def _extreme_samples() -> Inputs:
    x = _levels(1.0, 1e-20, 1e-4)
    return {"embeddings": x, "target": torch.arange(len(x)) % 5}


def _no_ties() -> Inputs:
    """Of every length, each in a direction of its own: of two nearest either may be taken."""
    length = torch.tensor([1.0, 1e-20, 1e-4, 1e15]).double().repeat(6).unsqueeze(1)
    x = length * normal(torch.Generator().manual_seed(4), 24, _D)
    return {"embeddings": x, "target": torch.arange(24) % 5}


def _at_most(inputs: Inputs) -> Tensor:
    """What a row's cosines can move, of all the losses that it has a part in."""
    x = _rows(inputs)
    length = x.norm(dim=1, keepdim=True)
    return 4 * 20 * len(x) / length


def _measured(inputs: Inputs, unit: float) -> Inputs:
    tables = ("anchors", "candidates", "embeddings")
    return {k: t * unit if k in tables else t for k, t in inputs.items()}


_DIRECTIONS = Scaling(_measured)
_NO_CHUNK = Refused("chunks of 0", "chunk", {"chunk": 0})
_NO_SCALE = Refused("scale 0", "scale", {"scale": 0.0})
_NO_GATHER = Refused(
    "a gather without a place", "gather", {"gather": len}, error=TypeError, exercises=True
)
_WEIGHT_OF_ONE = Refused(
    "weights of one", "weight", change=lambda i: {**i, "weight": torch.ones(1)}
)
_NEUTRAL = {"chunk": "it says how much is multiplied at once"}


_SEVERAL = {"perfect_is_minimal": "between several positives the best place is another"}
_PLAIN_PRODUCTS = {
    "scale_invariance": "products have a unit, the square of that of the vectors",
    "perfect_is_minimal": "a longer vector is a better one, without an end",
    "finite_at_extremes": "products of the largest vectors are not finite",
}

_PAIRS: dict[str, Any] = {
    "inputs": _pairs,
    "features": 1,
    "joint": True,
    "hide": _hide,
    "count": _each,
    "perfect": _best_pairs,
    "hopeless": lambda i, o: {**i, "anchors": i["candidates"].roll(1, 0)},
    "extremes": _extreme_pairs,
    "bound": _at_most,
    "scaling": _DIRECTIONS,
    "neutral": _NEUTRAL,
    "asks": {"kernels": "a chunk is multiplied at once, and more rows are more chunks"},
    "exempt": JOINT,
}
_PAIR_REFUSALS = (
    _NO_CHUNK,
    _NO_SCALE,
    _NO_GATHER,
    _WEIGHT_OF_ONE,
    Refused("an unknown treatment", "duplicates", {"duplicates": "drop"}),
    Refused("another width", "candidates", change=lambda i: {**i, "candidates": _rows(i)[:, 1:]}),
)
_SAMPLES: dict[str, Any] = {
    "inputs": _samples,
    "features": 1,
    "joint": True,
    "hide": _hide,
    "count": _found,
    "hopeless": _mixed,
    "extremes": _extreme_samples,
    "bound": _at_most,
    "neutral": _NEUTRAL,
    "asks": {"kernels": "a chunk is multiplied at once, and more rows are more chunks"},
}


def _directions(embeddings: Tensor) -> Tensor:
    return _simplex(_C, embeddings.new_empty(0, _C))


def _margin(embeddings: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The loss with the directions of five classes filled in."""
    return margin_loss(embeddings, _directions(embeddings), target, **options)


def _signed() -> Any:
    signed: Any = wraps(margin_loss)(_margin)
    signature = inspect.signature(margin_loss)
    rest = [p for name, p in signature.parameters.items() if name != "weight"]
    signed.__signature__ = signature.replace(parameters=rest)
    return signed


class MarginLoss(contrastive.MarginLoss):
    """The module with the directions filled in."""

    def forward(  # type: ignore[override] # the audit has no classes
        self, embeddings: Tensor, target: Tensor, *, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``embeddings`` of the classes ``target``."""
        directions = _directions(embeddings)
        return super().forward(embeddings, directions, target, sample_weight=sample_weight)


def _of_classes(g: Generator, n: int) -> Inputs:
    target = indices(g, _C, n)
    x = normal(g, n, _C) + 2 * torch.eye(_C).double()[target]
    return {"embeddings": x, "target": target}


def _marked(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    ignored = options.get("ignore_index", -100)
    return {**inputs, "target": inputs["target"].masked_fill(~keep, ignored)}


def _taken(inputs: Inputs, options: Options) -> Tensor:
    keep = inputs["target"] != options.get("ignore_index", -100)
    return (keep * inputs.get("sample_weight", torch.ones(len(keep)).double())).sum()


def _own(turn: int) -> Any:
    def made(inputs: Inputs, options: Options) -> Inputs:
        far = _directions(inputs["embeddings"])
        place = (inputs["target"].clamp(min=0) + turn) % _C
        return {**inputs, "embeddings": far[place]}

    return made


def _extreme_classes() -> Inputs:
    g = torch.Generator().manual_seed(3)
    x = torch.cat(
        (normal(g, 3, _C), _simplex(_C, torch.empty(0, _C).double())[:2], torch.zeros(1, _C))
    )
    x = torch.cat([x * unit for unit in (1.0, -1.0, 1e-20, 1e-4, 1e15)])
    return {"embeddings": x, "target": torch.arange(len(x)) % _C}


EMBEDDINGS = (
    Spec(
        name="margin_loss",
        function=_signed(),
        module=MarginLoss,
        inputs=_of_classes,
        cases={
            "angle": case(),
            "cosine, weighted": case(
                with_(_of_classes, "sample_weight", "target"),
                kind="cosine",
                margin=torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]),
                scale=8.0,
                chunk=4,
                reduction="sum",
                exempt={"perfect_is_minimal": "margins that differ pull to one side"},
            ),
            "another ignored": case(
                marked(_of_classes, 2),
                ignore_index=2,
                margin=0.2,
                scale=20.0,
                reduction="none",
                exempt={"hopeless_keeps_a_gradient": "what is ignored has none, by definition"},
            ),
        },
        features=1,
        hide=_marked,
        count=_taken,
        perfect=lambda i, o: (_own(0)(i, o), None),
        hopeless=_own(1),
        extremes=_extreme_classes,
        bound=lambda i: 64 * 50 / _rows(i).norm(dim=1, keepdim=True),
        scaling=_DIRECTIONS,
        neutral=_NEUTRAL,
        asks={"kernels": "a chunk is multiplied at once, and more rows are more chunks"},
        refused=(
            _NO_CHUNK,
            _NO_SCALE,
            Refused("margins of one class", "margin", {"margin": torch.ones(1)}),
            Refused("a margin beyond a right angle", "margin", {"margin": 2.0}),
            Refused("an unknown kind", "kind", {"kind": "sine"}),
            Refused(
                "a class too many", "target", change=lambda i: {**i, "target": i["target"] + 5}
            ),
        ),
        exempt={
            **NOTHING_FROZEN,
            "streamed_equals_plain": "it walks on its own; its tests compare every chunk size",
        },
    ),
    Spec(
        name="contrastive_loss",
        function=contrastive_loss,
        module=ContrastiveLoss,
        cases={
            "duplicates masked": case(_with_ids),
            "both ways, within": case(symmetric=True, within=True, scale=7.0, chunk=4),
            "weighted, several": case(
                with_(_all_ids, "weight", "ids"),
                duplicates="positive",
                reduction="sum",
                exempt=_SEVERAL,
            ),
            "to another": case(
                _to_another,
                cosine=False,
                scale=0.5,
                reduction="none",
                exempt={
                    **_PLAIN_PRODUCTS,
                    "ignoring_is_removing": "a target is a place, which is another in fewer",
                },
            ),
        },
        refused=(
            *_PAIR_REFUSALS,
            Refused(
                "both ways to another",
                "symmetric",
                {"symmetric": True},
                lambda i: {**i, "target": torch.arange(len(_rows(i)))},
            ),
        ),
        **_PAIRS,
    ),
    Spec(
        name="siglip_loss",
        function=siglip_loss,
        module=SigLIPLoss,
        cases={
            "duplicates masked": case(_with_ids),
            "weighted, several": case(
                with_(_all_ids, "weight", "ids"),
                duplicates="positive",
                scale=3.0,
                bias=-1.0,
                chunk=4,
                reduction="sum",
                exempt=_SEVERAL,
            ),
            "products": case(cosine=False, scale=0.5, reduction="none", exempt=_PLAIN_PRODUCTS),
        },
        refused=(*_PAIR_REFUSALS, Refused("no bias", "bias", {"bias": math.inf})),
        **_PAIRS,
    ),
    Spec(
        name="supcon_loss",
        function=supcon_loss,
        module=SupConLoss,
        cases={
            "out": case(),
            "in, weighted": case(
                with_(_samples, "weight", "target"), kind="in", scale=4.0, chunk=4, reduction="sum"
            ),
            "products": case(
                cosine=False,
                scale=0.5,
                reduction="none",
                exempt={
                    **_PLAIN_PRODUCTS,
                    "noncontiguous": "one sample expanded has a gradient of rounding alone",
                },
            ),
        },
        refused=(
            _NO_CHUNK,
            _NO_SCALE,
            _NO_GATHER,
            _WEIGHT_OF_ONE,
            Refused("an unknown form", "kind", {"kind": "mean"}),
        ),
        scaling=_DIRECTIONS,
        **_SAMPLES,
        exempt={
            **JOINT,
            "perfect_is_minimal": "its best arrangement depends on how many there are",
        },
    ),
    Spec(
        name="triplet_loss",
        function=triplet_loss,
        module=TripletLoss,
        cases={
            "hard": case(),
            "all, soft, weighted": case(
                with_(_samples, "weight", "target"), mining="all", margin="soft", chunk=4
            ),
            "squared directions": case(
                squared=True, cosine=True, margin=1.0, reduction="none", extremes=_no_ties
            ),
        },
        refused=(
            _NO_CHUNK,
            _NO_GATHER,
            _WEIGHT_OF_ONE,
            Refused("a negative margin", "margin", {"margin": -1.0}),
            Refused("an unknown margin", "margin", {"margin": "hard"}),
            Refused("an unknown choice", "mining", {"mining": "semi"}),
        ),
        **_SAMPLES,
        exempt={
            **JOINT,
            "perfect_is_minimal": "whatever lies apart by the margin is perfect",
            "scale_invariance": "a margin is a length, and stays where distances are scaled",
        },
    ),
)
