"""Row of the set loss: it is called through a form that takes its layers on the second axis.

Unreduced, that form gives the weighted sums of its terms, as that of the detection loss does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Spec, case
from aptt.audit.specs.making import grid, indices, normal, uniform
from aptt.core.reduction import Reduction
from aptt.core.targets import Targets
from aptt.loss import (
    FocalLoss,
    HungarianMatcher,
    box_iou_loss,
    detr,
    detr_loss,
    detr_terms,
    diou_loss,
    focal_loss,
    giou_loss,
    varifocal_loss,
)

__all__ = ["SETS"]

_QUERIES, _CLASSES, _LAYERS = 4, 3, 2
_GAINS = {"class": 1.0, "l1": 5.0, "box": 2.0}
_LAYERED = ("class_logits", "pred_boxes")


def _layers_first(given: dict[str, Any]) -> dict[str, Any]:
    """Samples lie on the first axis of all that an audit cuts; layers are moved before them."""
    return {
        k: v.transpose(0, 1) if k in _LAYERED and isinstance(v, Tensor) and v.ndim == 4 else v
        for k, v in given.items()
    }


@wraps(detr_loss)
def _by_term(*, reduction: Reduction = "mean", **given: Any) -> Tensor:
    given = _layers_first(given)
    if reduction != "none":
        return detr_loss(**given, reduction=reduction)
    gains = {name: given.pop(f"{name}_gain", gain) for name, gain in _GAINS.items()}
    terms = detr_terms(**given, reduction="sum")
    return torch.stack([gains[name] * value.sum() for name, value in terms.items()])


class DETRLoss(detr.DETRLoss):
    """The module, with layers on the second axis."""

    def forward(
        self,
        class_logits: Tensor,
        pred_boxes: Tensor,
        target_boxes: Targets,
        target_labels: Targets,
        *,
        target_mask: Tensor | None = None,
        matches: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_regions: Targets | None = None,
    ) -> Tensor:
        """The loss of one batch."""
        moved = _layers_first({"class_logits": class_logits, "pred_boxes": pred_boxes})
        return super().forward(
            moved["class_logits"],
            moved["pred_boxes"],
            target_boxes,
            target_labels,
            target_mask=target_mask,
            matches=matches,
            weight=weight,
            ignore_regions=ignore_regions,
        )


# ---------------------------------------------------------------------------------- inputs


def _boxes(g: Generator, *shape: int) -> Tensor:
    centre = uniform(g, *shape, 2, low=0.3, high=0.7)
    return torch.cat((centre, uniform(g, *shape, 2, low=0.1, high=0.5)), -1)


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes.chunk(2, -1)
    return torch.cat((centre - size / 2, centre + size / 2), -1)


def _set(first: str, *, layers: bool = False) -> Maker:
    """Two objects an image, and four queries, half of which are near one."""

    def made(g: Generator, n: int) -> Inputs:
        goals, size = _boxes(g, n, 2), (n, _LAYERS, _QUERIES) if layers else (n, _QUERIES)
        boxes = _boxes(g, *size)
        near = goals.unsqueeze(1) if layers else goals
        boxes[..., :2, :] = near + uniform(g, *near.shape, low=-0.05, high=0.05)
        made = {
            "class_logits": normal(g, *size, _CLASSES),
            "pred_boxes": boxes,
            "target_boxes": goals,
            "target_labels": indices(g, _CLASSES - 1, n, 2),
        }
        return {first: made.pop(first), **made}

    return made


def _told_what_counts(g: Generator, n: int) -> Inputs:
    """One object is padding in every other image; weights; and a region to be ignored."""
    inputs = _set("class_logits")(g, n)
    inputs["target_mask"] = torch.ones(n, 2, dtype=torch.bool)
    inputs["target_mask"][::2, 1] = False
    inputs["ignore_regions"] = grid([0.5, 0.25, 1, 0.5], [0, 0, 0, 0]).expand(n, 2, 4).clone()
    inputs["weight"] = uniform(g, n, _QUERIES, low=0.25, high=2.0)
    return inputs


def _matched(first: str, *, corners: bool = False) -> Maker:
    """Matched already: one query for each object, background, one that does not count."""

    def made(g: Generator, n: int) -> Inputs:
        inputs = _set(first)(g, n)
        inputs["matches"] = torch.tensor([1, -1, 0, -2]).expand(n, -1).clone()
        if corners:
            inputs |= {k: _corners(inputs[k]) for k in ("pred_boxes", "target_boxes")}
        return inputs

    return made


def _extremes(first: str) -> Callable[[], Inputs]:
    """Logits and boxes at the ends of what there is, each in a batch of its own."""

    def made() -> Inputs:
        logits = grid([6e4, -6e4, 0], [100, -100, 30], [12, -12, 1], [0, 1e-6, 0], [-60, 3, 60])
        pairs = grid(
            [0.5, 0.5, 1, 1, 0.5, 0.5, 1, 1],
            [3, 3, 1, 1, 0, 0, 1, 1],
            [0.5, 0.5, 0, 0, 0.5, 0.5, 1, 1],
            [1, 1, -1, -1, 0.5, 0.5, 1, 1],
            [0, 0, 1e6, 1e6, 0.5, 0.5, 1, 1],
        )
        inputs = {
            "class_logits": logits.unsqueeze(1).expand(-1, 2, -1).clone(),
            "pred_boxes": pairs[:, :4].unsqueeze(1).expand(-1, 2, -1).clone(),
            "target_boxes": pairs[:, None, 4:].clone(),
            "target_labels": torch.ones(5, 1, dtype=torch.long),
            "matches": torch.tensor([0, -1]).expand(5, 2).clone(),
        }
        return {first: inputs.pop(first), **inputs}

    return made


def _layered_extremes() -> Inputs:
    inputs = _extremes("class_logits")()
    return {
        k: t.unsqueeze(1).expand(-1, _LAYERS, -1, -1).clone() if k in _LAYERED else t
        for k, t in inputs.items()
    }


# ------------------------------------------------------------------ what the promises need


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    """Queries that weigh nothing; an image without any has no object either."""
    by_image = keep[:, 0] if keep.ndim > 2 else keep
    weight = inputs.get("weight", torch.ones_like(by_image, dtype=inputs["pred_boxes"].dtype))
    gone = ~by_image.any(1, keepdim=True)
    hidden = {**inputs, "target_labels": inputs["target_labels"].masked_fill(gone, -1)}
    if "target_mask" in inputs:
        hidden["target_mask"] = inputs["target_mask"] & ~gone
    if "matches" in inputs:
        hidden["matches"] = inputs["matches"].masked_fill(gone, -2)
    return {**hidden, "weight": weight.masked_fill(~by_image, 0)}


def _matching_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """The terms, with the matches as they are now."""
    given: dict[str, Any] = {**inputs, **options, "reduction": "none"}
    name = next(iter(inputs))
    if "matches" not in inputs:
        usual = HungarianMatcher(groups=options.get("groups", 1), box_format="cxcywh")
        if "no_object" in options:
            usual = replace(usual, class_cost="softmax", class_gain=1.0)
        matcher = given.pop("matcher", None) or usual
        labels = inputs["target_labels"]
        there = inputs.get("target_mask", torch.ones_like(labels, dtype=torch.bool))
        moved = _layers_first({k: inputs[k] for k in _LAYERED})
        may = None if "weight" not in inputs else inputs["weight"] != 0
        x, boxes = moved["class_logits"], moved["pred_boxes"]
        targets = inputs["target_boxes"], labels, there
        given["matches"] = matcher(x, boxes, None, *targets, may).matches
    return lambda x: _by_term(**{**given, name: x})


def _hot(inputs: Inputs) -> Tensor:
    """1 at the class of each match, 0 elsewhere."""
    labels = inputs["target_labels"].gather(1, inputs["matches"].clamp(min=0))
    hot = torch.nn.functional.one_hot(labels, _CLASSES)
    return hot.double() * (inputs["matches"] >= 0).unsqueeze(-1)


def _best_logits(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    index = inputs["matches"].clamp(min=0).unsqueeze(-1).expand(-1, -1, 4)
    goals = inputs["target_boxes"].gather(1, index)
    iou = 1 - box_iou_loss(inputs["pred_boxes"], goals, box_format="cxcywh", reduction="none")
    sure = iou.clamp(1e-6, 1 - 1e-6).logit() if "quality" in options else torch.tensor(50.0)
    return {
        **inputs,
        "class_logits": torch.where(_hot(inputs) == 1, sure.unsqueeze(-1), -50.0),
    }, None


def _best_boxes(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    index = inputs["matches"].clamp(min=0).unsqueeze(-1).expand(-1, -1, 4)
    return {**inputs, "pred_boxes": inputs["target_boxes"].gather(1, index)}, None


def _hopeless(inputs: Inputs, options: Options) -> Inputs:
    """Sure of every class, and boxes far away."""
    name = next(iter(inputs))
    x = inputs[name]
    if name == "pred_boxes":
        return {**inputs, name: x + 5}
    away = 30 * torch.arange(1.0, _CLASSES + 1, dtype=x.dtype, device=x.device)
    return {**inputs, name: away.expand_as(x).clone()}


_ASSIGNED = {"perfect_is_minimal": "another prediction is matched with other targets"}
_NO_LENGTH = {"scale_invariance": "boxes are parts of an image, and the L1 distance has that unit"}


def _cases() -> dict[str, Case]:
    return {
        "matched, a softmax": case(no_object=0.1, box_gain=3.0, exempt=_ASSIGNED),
        "matched, and told what counts": case(
            _told_what_counts,
            matcher=HungarianMatcher(class_gain=1.0, box_format="cxcywh"),
            class_loss=FocalLoss(alpha=0.5, gamma=1.5),
            class_gain=2.0,
            normalize="matches",
            exempt={
                **_ASSIGNED,
                "gradient_reaches_all_who_ask": "regions decide what counts, and no more",
            },
        ),
        "layers of a decoder": case(
            _set("class_logits", layers=True),
            layer_weight=torch.tensor([0.5, 2.0], dtype=torch.float64),
            groups=2,
            class_loss=focal_loss,
            box_loss=giou_loss,
            extremes=_layered_extremes,
            exempt=_ASSIGNED,
        ),
        "qualities": case(
            _matched("class_logits"),
            class_loss=varifocal_loss,
            quality="iou",
            perfect=_best_logits,
            extremes=_extremes("class_logits"),
        ),
        "by box": case(
            _matched("pred_boxes", corners=True),
            box_format="xyxy",
            box_loss=diou_loss,
            l1_gain=1.0,
            perfect=_best_boxes,
            reduction="sum",
        ),
        "by centre and size": case(
            _matched("pred_boxes"),
            perfect=_best_boxes,
            extremes=_extremes("pred_boxes"),
        ),
    }


def _cut(name: str) -> Callable[[Inputs], Inputs]:
    return lambda i: {**i, name: i[name][..., :1]}


SETS = (
    Spec(
        name="detr_loss",
        function=_by_term,
        module=DETRLoss,
        inputs=_set("class_logits"),
        cases=_cases(),
        features=-1,
        joint=True,
        walks=False,
        hide=_hide,
        hopeless=_hopeless,
        extremes=_extremes("class_logits"),
        frozen={"the matching": _matching_held},
        refused=(
            Refused("boxes of one number", "pred_boxes", change=_cut("pred_boxes")),
            Refused("one target box", "target_boxes", change=_cut("target_boxes")),
            Refused("labels of one target", "target_labels", change=_cut("target_labels")),
            Refused(
                "a class too many",
                "target_labels",
                change=lambda i: {**i, "target_labels": i["target_labels"] + _CLASSES},
            ),
            Refused(
                "a softmax and a loss", "class_loss", {"no_object": 0.1, "class_loss": diou_loss}
            ),
            Refused("an unknown quality", "quality", {"quality": "giou"}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
            Refused("no group", "groups", {"groups": 0}),
            Refused("an unknown format", "box_format", {"box_format": "yxyx"}),
            Refused("a negative gain", "box_gain", {"box_gain": -1.0}),
        ),
        asks={"_to_copy": "the costs are solved on the host, all of them in one copy"},
        exempt={
            **_NO_LENGTH,
            "counts_what_it_says": "three terms, each with a total of its own: its tests do",
            "streamed_equals_plain": "it has no formula of its own: its terms have, with rows of "
            "their own, and its tests compare both ways",
        },
    ),
)
