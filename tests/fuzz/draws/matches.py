"""What a match costs, of boxes and of masks at points, and what matched masks cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.draw import Call, Draw, Loss
from tests.fuzz.draws.boxes import formatted
from tests.fuzz.draws.classes import NAN, poisoned
from tests.fuzz.oracles import matches as oracle

__all__ = ["LOSSES"]


def _minus_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """A cost of no particular meaning."""
    return -logits.gather(-1, labels.unsqueeze(-2).expand(*logits.shape[:-1], labels.shape[-1]))


def _match(d: Draw) -> Call:
    images, queries = d.pick("images", (2, 1, 0)), d.pick("queries", (3, 1, 0, 8))
    classes, objects = d.size("classes", low=1, high=17), d.pick("objects", (2, 1, 0, 5))
    layers = d.pick("layers", (None, 2))
    size = (images, queries) if layers is None else (layers, images, queries)
    box_format, dtype = d.pick("box_format", ("cxcywh", "xyxy", "xywh")), d.dtype("predictions")

    def drawn(label: str, shape: tuple[int, ...]) -> Tensor:
        corner = d.normal(f"{label} corner", (*shape, 2), 0.2).clamp(-1, 1)
        extent = d.normal(f"{label} size", corner.shape, 0.2).abs().clamp(max=0.9) + 0.05
        return formatted(torch.cat((corner, corner + extent), -1), box_format)

    goals = drawn("target", (images, objects)).float()
    labels = torch.randint(classes, (images, objects), generator=d.stream("labels"))
    there = d.mask("there", (images, objects), 0.8)
    args: dict[str, Any] = {}
    way = d.pick("targets", ("padded", "masked", "listed"))
    if way == "masked":
        args["target_mask"] = there
    elif way == "padded":
        labels = torch.where(there, labels, -1)
    else:
        many = torch.randint(objects + 1, (images,), generator=d.stream("many")).tolist()
        goals = [t[:n] for t, n in zip(goals, many, strict=True)]
        labels = [t[:n] for t, n in zip(labels, many, strict=True)]
    return d.call(
        "match_cost",
        args
        | dict(
            class_logits=d.tensor(
                "class_logits", d.numbers("class_logits", (*size, classes), 88.0), dtype
            ),
            pred_boxes=d.tensor("pred_boxes", drawn("box", size), dtype),
            target_boxes=goals,
            target_labels=labels,
            class_cost=d.pick("class_cost", ("focal", "softmax", _minus_logit)),
            class_gain=d.pick("class_gain", (2.0, 0.0)),
            l1_gain=d.pick("l1_gain", (5.0, 0.0, 0.1)),
            giou_gain=d.pick("giou_gain", (2.0, 0.0)),
            alpha=d.pick("alpha", (0.25, 1.0, 0.0)),
            gamma=d.pick("gamma", (2.0, 0.0, 0.5)),
            box_format=box_format,
        ),
        "class_logits",
        "pred_boxes",
    )


def _added_up(call: Call) -> tuple[Tensor, float]:
    """A cost is a sum of parts that may be larger than it is."""
    defaults = dict(target_mask=None)
    parts = oracle.match_parts(SimpleNamespace(**defaults | call.args))
    return 1e-6 * sum(part.detach().abs() for part in parts), 0.0


def _masks(d: Draw, images: int, targets: int, one: bool) -> Any:
    """Target masks of 0 and 1, of some size."""
    hard = d.mask("target masks", (images, targets, *_size(d, "target", one)), 0.5)
    kinds = (torch.float32, torch.bool, torch.uint8, torch.float16)
    return hard.to(d.pick("mask dtype", kinds))


def _size(d: Draw, label: str, one: bool) -> tuple[int, ...]:
    return tuple(1 if one else d.size(f"{label} {s}", low=1, high=17) for s in ("height", "width"))


def _scaled(d: Draw, shape: tuple[int, ...]) -> Tensor:
    return d.normal("mask_logits", shape, d.pick("logits scale", (1.0, 0.0, 1e-3, 8.0)))


def _mask_cost(d: Draw) -> Call:
    images, queries = d.pick("images", (2, 1, 0)), d.pick("queries", (3, 1, 0))
    targets, points = d.pick("objects", (2, 1, 0)), d.pick("points", (3, 1, 0, 17))
    masks = _masks(d, images, targets, False)
    if d.pick("listed", (False, True)):
        many = torch.randint(targets + 1, (images,), generator=d.stream("many")).tolist()
        masks = [t[:n] for t, n in zip(masks, many, strict=True)]
    g = d.stream("points")
    return d.call(
        "mask_match_cost",
        dict(
            mask_logits=d.tensor(
                "mask_logits", _scaled(d, (images, queries, *_size(d, "logits", False)))
            ),
            target_masks=masks,
            points=torch.rand(images, points, 2, generator=g),
            mask_gain=d.pick("mask_gain", (5.0, 0.0)),
            dice_gain=d.pick("dice_gain", (5.0, 0.0)),
        ),
        "mask_logits",
    )


def _point_masks(d: Draw) -> Call:
    images, targets = d.pick("images", (2, 1, 0)), d.pick("objects", (2, 1, 0, 3))
    groups = d.pick("groups", (1, 2))
    queries = groups * d.pick("queries", (3, 1, 0))
    drawn = d.pick("points drawn", (False, True))  # of maps of one pixel, where all are alike
    masks = _masks(d, images, targets, drawn)
    there = d.mask("there", (images, targets), 0.8)
    matches = torch.full((images, queries), -1)
    matches[d.mask("no part", matches.shape, 0.2)] = -2
    named = d.pick("target_mask", (False, True))
    each = queries // groups
    order = d.normal("order", (images, groups, each)).argsort(-1)
    for i in range(images):
        for group in range(groups):
            for m, at in enumerate(order[i, group].tolist()[:targets]):
                if there[i, m]:
                    matches[i, group * each + at] = m
    args: dict[str, Any] = {}
    if named:
        args["target_mask"] = there
    elif d.pick("listed", (False, True)):
        masks = list(masks)
    if drawn:
        args |= dict(
            num_points=d.pick("num_points", (4, 1)),
            oversample=d.pick("oversample", (3.0, 1.0)),
            importance=d.pick("importance", (0.75, 0.0, 1.0)),
            generator=d.pick("generator", (None, torch.Generator())),
        )
    else:
        many = d.pick("points", (3, 1, 0, 17))
        args["points"] = torch.rand(images, many, 2, generator=d.stream("points"))
    x = _scaled(d, (images, queries, *_size(d, "logits", drawn)))
    keep = (matches >= 0)[..., None, None].expand(x.shape)
    return d.call(
        "point_mask_terms",
        args
        | dict(
            mask_logits=d.tensor("mask_logits", poisoned(d, x, keep, "mask_logits")),
            target_masks=masks,
            matches=matches,
            groups=groups,
            reduction=d.reduction(none=False),
        ),
        "mask_logits",
    )


NEGATIVE = (-1.0, NAN)

LOSSES = {
    "match_cost": Loss(
        _match,
        oracle.match_cost,
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        limit=_added_up,
        watched=("loss",),
        rigid=("target_boxes",),
        wrong={
            "class_gain": NEGATIVE,
            "l1_gain": NEGATIVE,
            "giou_gain": NEGATIVE,
            "gamma": NEGATIVE,
            "alpha": (-1.0, 1.5, NAN),
        },
    ),
    "mask_match_cost": Loss(
        _mask_cost,
        oracle.mask_match_cost,
        conceded=lambda call: {"points"},
        unit=8.0,
        watched=("loss",),
        rigid=("target_masks",),
        wrong={"mask_gain": NEGATIVE, "dice_gain": NEGATIVE},
    ),
    "point_mask_terms": Loss(
        _point_masks,
        oracle.point_mask_terms,
        rows=2,
        conceded=lambda call: {"points"},
        rigid=("target_masks",),
        wrong={
            "reduction": ("none",),
            "groups": (0, -1),
            "num_points": (0, -1),
            "oversample": (0.5, NAN),
            "importance": (-0.1, 1.5, NAN),
        },
    ),
}
