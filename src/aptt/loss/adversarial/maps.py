"""Scores and features of one discriminator or of several: lists of one form, and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from aptt.core.checks import as_weight, check_choice, check_floating
from aptt.core.reduction import Combine, Reduction, check_reduction
from aptt.core.shapes import check_shapes

__all__ = ["Map", "Maps", "check_options", "features", "joined", "scores"]

Maps: TypeAlias = Tensor | Sequence[Tensor] | Sequence[Sequence[Tensor]]


class Map(NamedTuple):
    """What one discriminator, or one layer of it, says of either side."""

    sides: tuple[Tensor, ...]
    weight: Tensor | None
    suffix: str
    """What follows the name of its term: nothing where it is the only one."""


def scores(weight: Maps | None, **sides: Maps) -> list[Map]:
    """The scores of each discriminator, as named sides: the last of its features, if it has any."""
    if all(isinstance(maps, Tensor) for maps in sides.values()):
        return [_map({name: [maps] for name, maps in sides.items()}, weight, 0, "", "")]
    listed = {name: _listed(name, maps) for name, maps in sides.items()}
    count = _same_length(listed, "discriminators")
    ends = {
        name: [_listed(f"{name}[{i}]", each)[-1] for i, each in enumerate(maps)]
        for name, maps in listed.items()
    }
    weights = None if weight is None else _listed("weight", weight)
    if weights is not None:
        _same_length({**listed, "weight": weights}, "discriminators")
    return [
        _map(ends, None if weights is None else weights[i], i, f"[{i}]", f"_{i}")
        for i in range(count)
    ]


def features(weight: Maps | None, last: bool, **sides: Maps) -> list[Map]:
    """Each layer of each discriminator; of one, if no list has lists in it."""
    if all(isinstance(maps, Tensor) for maps in sides.values()):
        if not last:
            raise ValueError(_NO_LAYER)
        return [_map({name: [maps] for name, maps in sides.items()}, weight, 0, "", "")]
    given = sides if weight is None else {**sides, "weight": weight}
    grouped = {name: _grouped(name, maps) for name, maps in given.items()}
    found = []
    for d in range(_same_length(grouped, "discriminators")):
        layers = {f"{name}[{d}]": groups[d] for name, groups in grouped.items()}
        count = _same_length(layers, "layers")
        weights = layers.pop(f"weight[{d}]", None)
        found += [
            _map(layers, None if weights is None else weights[k], k, f"[{k}]", f"_{d}_{k}")
            for k in range(count if last else count - 1)
        ]
    if not found:
        raise ValueError(_NO_LAYER)
    return found


_NO_LAYER = "last: got False for one layer, the score; wanted features before it"


def _map(sides: dict[str, list[object]], weight: object, i: int, at: str, suffix: str) -> Map:
    """One map, its sides and its weight of one shape."""
    named: dict[str, Any] = {f"{name}{at}": maps[i] for name, maps in sides.items()}
    check_floating(**named)
    first = next(iter(named.values()))
    made = None if weight is None else as_weight(f"weight{at}", weight, first)
    alike = {name: (t, "*N") for name, t in named.items()}
    check_shapes(**alike, **({} if made is None else {f"weight{at}": (made, "*N")}))
    flat = tuple(
        t.reshape(-1).to(torch.promote_types(t.dtype, first.dtype)) for t in named.values()
    )
    return Map(flat, None if made is None else made.reshape(-1), suffix)


def _listed(name: str, maps: object) -> list[object]:
    if isinstance(maps, Tensor):
        return [maps]
    if isinstance(maps, str) or not isinstance(maps, Sequence) or len(maps) == 0:
        got = "an empty list" if isinstance(maps, list | tuple) else type(maps).__name__
        raise TypeError(f"{name}: got {got}, wanted a tensor, or a list of one and more")
    return list(maps)


def _grouped(name: str, maps: object) -> list[list[object]]:
    listed = _listed(name, maps)
    if all(isinstance(each, Tensor) for each in listed):
        return [listed]
    return [_listed(f"{name}[{i}]", each) for i, each in enumerate(listed)]


def _same_length(listed: Mapping[str, Sequence[object]], what: str) -> int:
    (first, maps), *rest = listed.items()
    for name, others in rest:
        if len(others) != len(maps):
            raise ValueError(
                f"{name}: got {len(others)} {what}, wanted {len(maps)}, as many as of {first}"
            )
    return len(maps)


def joined(each: list[Tensor], combine: Combine) -> Tensor:
    """The sum or the mean of the terms of several maps."""
    total = each[0] if len(each) == 1 else torch.stack(each).sum()
    return total / len(each) if combine == "mean" else total


def check_options(combine: str, reduction: Reduction) -> None:
    """Refuse unknown names."""
    check_choice("combine", combine, ("sum", "mean"))
    check_reduction(reduction, none=False)
