"""What is asked of each query: the target that it is to answer for, and whether it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.checks import as_floats, as_weight, check_tensors, check_weight
from aptt.core.pairwise import covered
from aptt.core.targets import IGNORED, Targets, index_of, matched, regions_of
from aptt.loss.matching import Assignment, HungarianMatcher
from aptt.loss.matching.assignment import checked

__all__ = ["Asked", "Matcher", "asked_of", "hungarian", "of_layers"]

Matcher = Callable[..., Assignment]

_HALF = 0.5  # the share of a query's own area in a region from which on it is ignored


class Asked(NamedTuple):
    """What is asked of each query; all ``(L, B, Q)``, boxes ``(L, B, Q, 4)``."""

    every: Tensor  # the weight of a query, 0 where it does not count
    share: Tensor  # the same, 0 where it has no target too
    positive: Tensor
    labels: Tensor
    goals: Tensor
    spoiled: Tensor | None  # what no matcher picks, and is to be seen


def asked_of(
    x: Tensor,
    b: Tensor,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    matches: Tensor | None,
    weight: Tensor | None,
    ignore_regions: Targets | None,
    matcher: Matcher,
    box_format: BoxFormat,
) -> Asked:
    """What a batch asks of all layers' queries, by its matches or by a matcher's."""
    layers = len(x)
    ones = torch.ones_like(b[..., 0])
    if weight is not None:
        weight = as_weight("weight", _for_layers("weight", weight, x), b)
        check_weight("weight", weight)
    may = None if weight is None else weight != 0
    goals = goals.to(torch.promote_types(goals.dtype, b.dtype))
    spoiled = None
    if matches is None:
        with torch.no_grad():
            matches = _by_matcher(matcher, x, b, goals, labels, mask, may)
        spoiled = ~b.isfinite()
    matches = _for_layers("matches", matches, x)
    flat = x.flatten(0, 1), mask.expand(layers, -1, -1).flatten(0, 1)
    matches, _ = matched(matches.flatten(0, 1), None, *flat)
    index = index_of(matches, flat[1]).unflatten(0, x.shape[:2])
    matches = matches.unflatten(0, x.shape[:2])

    rows = matches != IGNORED if may is None else (matches != IGNORED) & may
    positive = (matches >= 0) & rows
    if ignore_regions is not None:
        regions = regions_of(ignore_regions, x[0])
        share = covered(b.detach(), regions.to(b.dtype), box_format)
        rows = rows & (positive | ~(share >= _HALF).any(-1))
    every = torch.where(rows, ones if weight is None else weight, 0.0)
    at = index.unsqueeze(-1).expand(-1, -1, -1, 4)
    return Asked(
        every,
        torch.where(positive, every, 0.0),
        positive,
        labels.expand(layers, -1, -1).gather(2, index),
        goals.expand(layers, -1, -1, -1).gather(2, at),
        None if spoiled is None else spoiled & rows.unsqueeze(-1),
    )


def _by_matcher(
    matcher: Matcher,
    x: Tensor,
    b: Tensor,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    may: Tensor | None,
) -> Tensor:
    """The matches of all layers, by one call; layers are images to a matcher of the caller's."""
    layers = len(x)
    if layers == 1:
        of_it = None if may is None else may[0]
        return checked("matcher", matcher(x[0], b[0], None, goals, labels, mask, of_it)).matches
    if isinstance(matcher, HungarianMatcher):
        return matcher(x, b, None, goals, labels, mask, may).matches
    of_all = (t.expand(layers, *t.shape).flatten(0, 1) for t in (goals, labels, mask))
    which = None if may is None else may.flatten(0, 1)
    found = matcher(x.flatten(0, 1), b.flatten(0, 1), None, *of_all, which)
    matches = checked("matcher", found).matches
    if matches.shape[:1] != (layers * x.shape[1],):
        raise ValueError(
            f"matcher: returned matches of shape {tuple(matches.shape)}, wanted "
            f"{(layers * x.shape[1], x.shape[2])}, of each layer's images in turn"
        )
    return matches.unflatten(0, x.shape[:2])


def hungarian(
    matcher: HungarianMatcher | None, no_object: float | None, groups: int, box_format: BoxFormat
) -> HungarianMatcher:
    """The published costs, or the caller's matcher with what the loss says."""
    if matcher is None:
        if no_object is None:
            return HungarianMatcher(groups=groups, box_format=box_format)
        return HungarianMatcher(
            class_cost="softmax", class_gain=1.0, groups=groups, box_format=box_format
        )
    if matcher.groups not in (1, groups):
        raise ValueError(
            f"matcher: got {matcher.groups} groups, wanted those of the loss, groups={groups}"
        )
    return replace(matcher, groups=groups, box_format=matcher.box_format or box_format)


def _for_layers(name: str, t: Tensor, x: Tensor) -> Tensor:
    """``(B, Q)`` for all layers, or ``(L, B, Q)``."""
    check_tensors(class_logits=x, **{name: t})
    size = x.shape[:3]
    if t.shape not in (size, size[1:]):
        raise ValueError(
            f"{name}: got {tuple(t.shape)}, wanted {tuple(size[1:])}, for images and queries, or "
            f"{tuple(size)}, for layers too"
        )
    return t.expand(size)


def of_layers(weight: Tensor | Sequence[float], x: Tensor, layered: bool) -> Tensor:
    """The weights of layers, ``(L,)``."""
    made = as_floats("layer_weight", weight, x)
    check_tensors(class_logits=x, layer_weight=made)
    if not layered or made.shape != x.shape[:1]:
        wanted = f"({len(x)},), one for each layer" if layered else "None: there is one layer"
        raise ValueError(f"layer_weight: got shape {tuple(made.shape)}, wanted {wanted}")
    check_weight("layer_weight", made)
    return made.to(torch.promote_types(x.dtype, torch.float32))
