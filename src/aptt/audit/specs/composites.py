"""Row of the detection loss.

It reduces its terms only whole. Its row calls it through a form that, unreduced, gives the weighted
sums of its terms, so that promises about single values hold for terms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Case, Inputs, Maker, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.making import grid, indices, normal, uniform, with_
from aptt.core.reduction import Reduction
from aptt.loss import (
    DetectionLoss,
    TaskAlignedAssigner,
    detection_loss,
    detection_terms,
    focal_loss,
    giou_loss,
)

__all__ = ["COMPOSITES"]

_SIDE, _STRIDE, _CLASSES, _BINS = 2, 8.0, 2, 3


@wraps(detection_loss)
def _by_term(*, reduction: Reduction = "mean", **given: Any) -> Tensor:
    if reduction != "none":
        return detection_loss(**given, reduction=reduction)
    gains = {"class": ("class_gain", 0.5), "box": ("box_gain", 7.5), "dfl": ("dfl_gain", 1.5)}
    by_term = {term: given.pop(name, default) for term, (name, default) in gains.items()}
    terms = detection_terms(**given, reduction="sum")
    return torch.stack([by_term[term] * value for term, value in terms.items()])


# ---------------------------------------------------------------------------------- inputs


def _points(n: int) -> Tensor:
    along = (torch.arange(_SIDE, dtype=torch.float64) + 0.5) * _STRIDE
    return torch.cartesian_prod(along, along).expand(n, -1, -1).clone()


def _targets(g: Generator, n: int) -> Inputs:
    low = uniform(g, n, 2, 2, low=-2, high=5)
    return {
        "target_boxes": torch.cat((low, low + uniform(g, n, 2, 2, low=4, high=14)), -1),
        "target_labels": indices(g, _CLASSES, n, 2),
    }


def _predicted(g: Generator, n: int, first: str, *, sides: bool = False) -> Inputs:
    """The two predictions, the one to be looked at first."""
    points, reach = _points(n), uniform(g, n, _SIDE**2, 4, low=1, high=9)
    corners = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
    made = {
        "class_logits": normal(g, n, _SIDE**2, _CLASSES),
        "pred_boxes": normal(g, n, _SIDE**2, 4, _BINS) if sides else corners,
    }
    return {first: made.pop(first), **made}


def _assigned(first: str, *, sides: bool = False) -> Maker:
    def made(g: Generator, n: int) -> Inputs:
        inputs = {**_predicted(g, n, first, sides=sides), **_targets(g, n), "anchors": _points(n)}
        if sides:
            inputs["strides"] = torch.full((n, _SIDE**2), _STRIDE, dtype=torch.float64)
        return inputs

    return made


def _told_what_counts(g: Generator, n: int) -> Inputs:
    """A target is padding in every other image, a class not annotated; a region to be ignored."""
    inputs = _assigned("class_logits")(g, n)
    inputs["target_mask"] = torch.ones(n, 2, dtype=torch.bool)
    inputs["target_mask"][::2, 1] = False
    inputs["class_mask"] = torch.ones(n, _CLASSES, dtype=torch.bool)
    inputs["class_mask"][1::2, 0] = False
    inputs["ignore_regions"] = grid([0, 0, 16, 7], [0, 0, 0, 0]).expand(n, 2, 4).clone()
    return inputs


def _matched(first: str) -> Maker:
    """Matched already: one prediction for each target, background, one that does not count."""

    def made(g: Generator, n: int) -> Inputs:
        return {
            **_predicted(g, n, first),
            **_targets(g, n),
            "matches": torch.tensor([1, -1, 0, -2]).expand(n, -1).clone(),
            "match_scores": uniform(g, n, _SIDE**2, low=0.2, high=0.9),
        }

    return made


def _several(g: Generator, n: int) -> Inputs:
    """Matched, of one class more than targets have, which have any share of the others."""
    inputs = _matched("class_logits")(g, n)
    inputs["class_logits"] = normal(g, n, _SIDE**2, _CLASSES + 1)
    inputs["target_labels"] = uniform(g, n, 2, _CLASSES, low=0.1, high=0.9)
    return inputs


def _by_centre(g: Generator, n: int) -> Inputs:
    inputs = _matched("pred_boxes")(g, n)
    for name in ("pred_boxes", "target_boxes"):
        low, high = inputs[name].split(2, -1)
        inputs[name] = torch.cat(((low + high) / 2, high - low), -1)
    return inputs


def _extremes(first: str) -> Callable[[], Inputs]:
    """Logits and boxes at the ends of what there is, each in a batch of its own."""

    def made() -> Inputs:
        logits = grid([6e4, -6e4], [100, -100], [12, -12], [0, 1e-6], [-60, 3])
        pairs = grid(
            [0, 0, 1, 1, 0, 0, 1, 1],
            [3, 3, 4, 4, 0, 0, 1, 1],
            [0.5, 0.5, 0.5, 0.5, 0, 0, 1, 1],
            [1, 1, 0, 0, 0, 0, 1, 1],
            [0, 0, 1e6, 1e6, 0, 0, 1, 1],
        )
        inputs = {
            "class_logits": logits.unsqueeze(1).expand(-1, 2, -1).clone(),
            "pred_boxes": pairs[:, :4].unsqueeze(1).expand(-1, 2, -1).clone(),
            "target_boxes": pairs[:, None, 4:].clone(),
            "target_labels": torch.ones(5, 1, dtype=torch.long),
            "matches": torch.tensor([0, -1]).expand(5, 2).clone(),
            "match_scores": torch.full((5, 2), 0.5, dtype=torch.float64),
        }
        return {first: inputs.pop(first), **inputs}

    return made


# ------------------------------------------------------------------ what the promises need


def _hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    keep = keep if keep.ndim == 2 else keep[..., 0]
    weight = inputs.get("weight", torch.ones_like(inputs["class_logits"][..., 0]))
    return {**inputs, "weight": weight.masked_fill(~keep, 0)}


def _assignment_held(inputs: Inputs, options: Options) -> Callable[[Tensor], Tensor]:
    """The terms, with the matches and the scores as they are now."""
    given: dict[str, Any] = {**inputs, **options, "reduction": "none"}
    name = next(iter(inputs))
    if "matches" not in inputs:
        boxes = inputs["pred_boxes"]
        if boxes.ndim == 4:
            bins = torch.arange(_BINS, dtype=torch.float64)
            reach = (boxes.softmax(-1) * bins).sum(-1) * inputs["strides"].unsqueeze(-1)
            points = inputs["anchors"]
            boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1)
        labels = inputs["target_labels"]
        there = inputs.get("target_mask", torch.ones_like(labels, dtype=torch.bool))
        weight = inputs.get("weight", torch.ones_like(boxes[..., 0]))
        assigner = given.pop("assigner", TaskAlignedAssigner())
        targets = (inputs["target_boxes"], labels, there, weight != 0)
        found = assigner(inputs["class_logits"], boxes, inputs["anchors"], *targets)
        given |= {"matches": found.matches, "match_scores": found.scores}
    return lambda x: _by_term(**{**given, name: x})


def _of_positives(inputs: Inputs) -> Tensor:
    """1 at the class of each match, 0 elsewhere."""
    matches = inputs["matches"]
    labels = inputs["target_labels"].gather(1, matches.clamp(min=0))
    hot = torch.nn.functional.one_hot(labels, _CLASSES)
    return hot.double() * (matches >= 0).unsqueeze(-1)


def _best_logits(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    score, hot = inputs["match_scores"].unsqueeze(-1), _of_positives(inputs)
    return {**inputs, "class_logits": torch.where(hot == 1, score.logit(), -50.0)}, None


def _best_of_softmax(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    matches, labels = inputs["matches"], inputs["target_labels"]
    index = matches.clamp(min=0).unsqueeze(-1).expand(-1, -1, _CLASSES)
    labels = labels / labels.sum(-1, keepdim=True).clamp(min=1)
    found = (matches >= 0).unsqueeze(-1)
    share = torch.where(found, labels.gather(1, index) * inputs["match_scores"].unsqueeze(-1), 0.0)
    rest = (1 - share.sum(-1, keepdim=True)) * options["no_object"]
    q = torch.cat((share, rest), -1)  # weighed, so that a softmax is its share of the sum
    return {**inputs, "class_logits": (q / q.sum(-1, keepdim=True)).clamp(min=1e-30).log()}, None


def _best_boxes(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    index = inputs["matches"].clamp(min=0).unsqueeze(-1).expand(-1, -1, 4)
    return {**inputs, "pred_boxes": inputs["target_boxes"].gather(1, index)}, None


def _hopeless(inputs: Inputs, options: Options) -> Inputs:
    """Sure of every class; boxes far away; all distances at the far end."""
    name = next(iter(inputs))
    x = inputs[name]
    if name == "class_logits":
        if x.shape[-1] > _CLASSES:  # a softmax is sure of one alone
            return {**inputs, name: torch.zeros_like(x).index_fill(-1, torch.tensor(0), 30.0)}
        return {**inputs, name: torch.full_like(x, 30.0)}
    if x.ndim == 3:
        return {**inputs, name: x + 500}
    return {**inputs, name: torch.zeros_like(x).index_fill(-1, torch.tensor(_BINS - 1), 30.0)}


def _in_unit(inputs: Inputs, unit: float) -> Inputs:
    lengths = ("pred_boxes", "target_boxes", "anchors", "strides")
    return {k: t * unit if k in lengths else t for k, t in inputs.items()}


_ASSIGNED = {
    "perfect_is_minimal": "another prediction is assigned other targets",
    "gradient_reaches_all_who_ask": "anchor points decide who learns which target, and no more",
}
_NO_LENGTH = {"scale_invariance": "the prediction is no length: another scale is another one"}
_BY_LOGITS = {**_ASSIGNED, **_NO_LENGTH}


def _cases() -> dict[str, Case]:
    return {
        "assigned, and told what counts": case(
            _told_what_counts,
            assigner=TaskAlignedAssigner(topk=2),
            class_weight=torch.tensor([0.5, 2.0], dtype=torch.float64),
            exempt=_BY_LOGITS,
        ),
        "focal, hard targets": case(
            _assigned("class_logits"),
            class_loss=focal_loss,
            hard_scores=True,
            class_gain=2.0,
            exempt=_BY_LOGITS,
        ),
        "a softmax, and several classes": case(
            _several,
            no_object=0.5,
            perfect=_best_of_softmax,
            exempt=_NO_LENGTH,
        ),
        "boxes": case(
            _assigned("pred_boxes"),
            box_loss=giou_loss,
            exempt={
                **_ASSIGNED,
                "hopeless_keeps_a_gradient": "a box that overlaps no target is assigned none",
            },
        ),
        "distances": case(
            _assigned("pred_boxes", sides=True),
            box_loss=giou_loss,
            dfl_gain=3.0,
            exempt={**_NO_LENGTH, "perfect_is_minimal": _ASSIGNED["perfect_is_minimal"]},
        ),
        "matched, by class": case(
            with_(_matched("class_logits"), "weight", "match_scores"),
            perfect=_best_logits,
            extremes=_extremes("class_logits"),
            exempt=_NO_LENGTH,
        ),
        "matched, by box": case(
            _matched("pred_boxes"),
            box_loss=giou_loss,
            box_gain=2.0,
            perfect=_best_boxes,
            extremes=_extremes("pred_boxes"),
            reduction="sum",
        ),
        "matched, by centre and size": case(
            _by_centre,
            box_loss=giou_loss,
            box_format="cxcywh",
            perfect=_best_boxes,
        ),
    }


def _cut(name: str) -> Callable[[Inputs], Inputs]:
    return lambda i: {**i, name: i[name][..., :1]}


COMPOSITES = (
    Spec(
        name="detection_loss",
        function=_by_term,
        module=DetectionLoss,
        inputs=_assigned("class_logits"),
        cases=_cases(),
        features=-1,
        joint=True,
        walks=False,
        hide=_hide,
        hopeless=_hopeless,
        scaling=Scaling(_in_unit),
        frozen={"the assignment": _assignment_held},
        refused=(
            Refused("boxes of one number", "pred_boxes", change=_cut("pred_boxes")),
            Refused("points of one number", "anchors", change=_cut("anchors")),
            Refused("one target box", "target_boxes", change=_cut("target_boxes")),
            Refused("labels of one target", "target_labels", change=_cut("target_labels")),
            Refused(
                "a class too many",
                "target_labels",
                change=lambda i: {**i, "target_labels": i["target_labels"] + _CLASSES},
            ),
            Refused("weights of another shape", "class_weight", {"class_weight": torch.ones(3)}),
            Refused("a negative gain", "box_gain", {"box_gain": -1.0}),
        ),
        exempt={
            "counts_what_it_says": "three terms, each with a total of its own: its tests do",
            "streamed_equals_plain": "it has no formula of its own: its terms have, with rows of "
            "their own, and its tests compare both ways",
        },
    ),
)
