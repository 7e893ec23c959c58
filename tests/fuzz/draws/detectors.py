"""Detectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import aptt.loss
from aptt.loss import Assignment
from tests.fuzz.draw import FLOATS, Call, Draw, Loss
from tests.fuzz.draws.boxes import formatted
from tests.fuzz.draws.classes import NAN, poisoned
from tests.fuzz.oracles import detectors as oracle

__all__ = ["LOSSES"]


def _centernet(name: str) -> Any:
    def draw(d: Draw) -> Call:
        samples, classes, objects = (d.size(s, high=3) for s in ("samples", "classes", "objects"))
        height, width = d.size("height", low=1, high=17), d.size("width", low=1, high=17)
        shape = (samples, classes, height, width)
        dtype = d.dtype("predictions")
        hm = d.shares("hm target", shape)
        mask = d.weights("mask", (samples, objects))
        targets: dict[str, Tensor] = {}
        if d.chance("positive", 2):
            targets["positive"] = d.mask("peaks", shape, 0.2)
        elif hm.numel():
            hm[:, 0, 0, 0] = 1.0
        else:
            mask = mask * 0
        weight = d.maybe("weight", lambda: d.weights("weight", shape))
        keep = torch.ones(shape, dtype=torch.bool) if weight is None else weight != 0
        if weight is not None:
            targets["weight"] = weight.float()
        logits = poisoned(d, d.numbers("hm", shape), keep, "hm")
        there = (mask != 0).unsqueeze(-1).expand(samples, objects, 2)
        for key in ("wh", "reg"):
            goal = d.normal(f"{key} target", there.shape, 3.0)
            targets[key] = poisoned(d, goal, there, f"{key} target").float()
        cells = torch.randint(height * width, (samples, objects), generator=d.stream("ind"))
        targets |= dict(hm=hm.float(), ind=torch.where(mask != 0, cells, -7), mask=mask.float())
        predictions = {"hm": d.tensor("hm", logits, dtype)}
        for key in ("wh", "reg"):
            maps = d.normal(key, (samples, 2, height, width), 3.0)
            predictions[key] = d.tensor(key, maps, dtype)
        options: dict[str, Any] = dict(
            alpha=d.pick("alpha", (2.0, 1.0)),
            beta=d.pick("beta", (4.0, 0.0)),
            normalize=d.pick("normalize", ("coordinates", "objects")),
            reduction=d.reduction(none=False),
        )
        if name == "centernet_loss":
            options |= dict(
                hm_weight=d.pick("hm_weight", (1.0, 0.0)),
                wh_weight=d.pick("wh_weight", (0.1, 1.0)),
                reg_weight=d.pick("reg_weight", (1.0, 0.3)),
            )
        args = dict(predictions=predictions, targets=targets) | options
        return d.call(name, args, "predictions")

    return draw


def _in_turn(
    logits: Tensor,
    boxes: Tensor,
    anchors: Tensor,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    *_: object,
    strides: object = None,
) -> Assignment:
    """An assigner of no particular meaning: every other prediction, in turn."""
    turn = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    target = turn % goals.shape[1]
    known = mask.gather(1, target) & (turn % 2 == 0)
    return Assignment(torch.where(known, target, -1), known * 0.75)


def _detection(name: str) -> Any:
    def draw(d: Draw) -> Call:
        images, points = d.pick("images", (2, 1, 0)), d.pick("points", (3, 1, 0, 17))
        classes, objects = d.size("classes", low=1, high=17), d.pick("objects", (2, 1, 5))
        dense, dtype = d.pick("dense", (False, True)), d.dtype("predictions", FLOATS)
        box_format = d.pick("box_format", ("xyxy", "cxcywh", "xywh"))
        anchors = d.normal("anchors", (points, 2), 10.0).float()
        strides = d.among("strides", (points,), (1.0, 2.0, 8.0)).float()
        per_image = d.pick("per image", (False, True))
        if per_image:
            anchors, strides = anchors.expand(images, -1, -1), strides.expand(images, -1)
        corner = d.normal("corner", (images, objects, 2), 10.0)
        goals = torch.cat((corner, corner + d.normal("size", corner.shape, 5.0).abs() + 0.5), -1)
        no_object = d.pick("no_object", (None, None, 0.1, 1.0)) if classes > 1 else None
        told = classes - (no_object is not None)
        labels = torch.randint(told, (images, objects), generator=d.stream("labels"))
        there = d.mask("there", (images, objects), 0.8)
        several = d.pick("several", (False, False, True))
        named = several or d.pick("target_mask", (False, True))
        as_list = d.pick("as list", (False, True)) and not named and bool(there.all())
        args: dict[str, Any] = {}
        matched = d.pick("by assigner", (False, True, False))
        if named:
            args["target_mask"] = there
        else:
            labels = torch.where(there, labels, -1)
        if several:
            labels = d.mask("labels", (images, objects, told), 0.4).float()
        if matched:
            args |= dict(assigner=_in_turn, anchors=anchors)
        else:
            at = torch.randint(-2, objects, (images, points), generator=d.stream("matches"))
            known = there.gather(1, at.clamp(min=0)) if points else at == 0
            args["matches"] = torch.where((at >= 0) & ~known, -1, at)
            if d.chance("match_scores", 2):
                args["match_scores"] = d.shares("scores", (images, points)).float()
        if d.chance("ignore_regions", 3):
            corner = d.normal("region", (images, 2, 2), 10.0)
            regions = torch.cat((corner, corner + 10.0), -1).float()
            regions = formatted(regions, box_format)
            args["ignore_regions"] = list(regions) if d.pick("listed", (False, True)) else regions
            args["anchors"] = anchors
        if no_object is None and d.chance("class_mask", 4):
            args["class_mask"] = d.mask("annotated", (images, told), 0.7)
        weight = d.maybe("weight", lambda: d.weights("weight", (images, points)))
        logits = d.numbers("class_logits", (images, points, classes), 88.0)
        if dense:
            args |= dict(anchors=anchors, strides=strides)
            bins = d.size("bins", low=2, high=17)
            boxes = d.normal("boxes", (images, points, 4, bins), 2.0)
        else:
            corner = d.normal("box corner", (images, points, 2), 10.0)
            side = d.normal("box size", corner.shape, 5.0).abs() + 0.5
            boxes = formatted(torch.cat((corner, corner + side), -1), box_format)
        keep = torch.ones(images, points, dtype=torch.bool) if weight is None else weight != 0
        logits = poisoned(d, logits, keep.unsqueeze(-1).expand(logits.shape), "class_logits")
        hard = d.pick("hard_scores", (False, True))
        names = ["binary_cross_entropy", "quality_focal_loss", *(["focal_loss"] * hard)]
        names = names if no_object is None else names[:1]
        goals = formatted(goals, box_format)
        args |= dict(
            class_logits=d.tensor("class_logits", logits, dtype),
            pred_boxes=d.tensor("pred_boxes", boxes, dtype),
            target_boxes=list(goals.float()) if as_list else goals.float(),
            target_labels=list(labels) if as_list else labels,
            weight=None if weight is None else d.tensor("weight", weight, FLOATS[0]),
            class_loss=getattr(aptt.loss, d.pick("class_loss", names)),
            box_loss=getattr(aptt.loss, d.pick("box_loss", ("ciou_loss", "giou_loss"))),
            class_weight=d.maybe(
                "class_weight", lambda: d.tensor("cw", d.weights("cw", (told,)), FLOATS[0])
            ),
            hard_scores=hard,
            no_object=no_object,
            box_format=box_format,
            reduction=d.reduction(none=False),
        )
        if name == "detection_loss":
            args |= dict(
                class_gain=d.pick("class_gain", (0.5, 0.0)),
                box_gain=d.pick("box_gain", (7.5, 1.0)),
                dfl_gain=d.pick("dfl_gain", (1.5, 0.0)),
            )
        return d.call(name, args, "class_logits", "pred_boxes")

    return draw


def _by_turns(
    logits: Tensor,
    boxes: Tensor,
    anchors: object,
    goals: Tensor,
    labels: Tensor,
    mask: Tensor,
    *_: object,
) -> Assignment:
    """A matcher of no particular meaning, for the set loss."""
    return _in_turn(logits, boxes, boxes, goals, labels, mask)


def _detr(name: str) -> Any:
    def draw(d: Draw) -> Call:
        images, queries = d.pick("images", (2, 1, 0)), d.pick("queries", (4, 2, 0, 8))
        classes, objects = d.size("classes", low=2, high=17), d.pick("objects", (2, 1, 5))
        layers = d.pick("layers", (None, 2, 1))
        size = (images, queries) if layers is None else (layers, images, queries)
        box_format, dtype = d.pick("box_format", ("cxcywh", "xyxy", "xywh")), d.dtype("predictions")

        def drawn(label: str, shape: tuple[int, ...]) -> Tensor:
            corner = d.normal(f"{label} corner", (*shape, 2), 0.3)
            extent = d.normal(f"{label} size", corner.shape, 0.3).abs() + 0.05
            return formatted(torch.cat((corner, corner + extent), -1), box_format)

        no_object = d.pick("no_object", (None, None, 0.1, 1.0))
        known = classes - (no_object is not None)
        labels = torch.randint(known, (images, objects), generator=d.stream("labels"))
        there = d.mask("there", (images, objects), 0.8)
        args: dict[str, Any] = {}
        if d.pick("target_mask", (False, True)):
            args["target_mask"] = there
        else:
            labels = torch.where(there, labels, -1)
        shared = size[-2:] if d.pick("for all layers", (False, True)) else size
        at = torch.randint(-2, objects, shared, generator=d.stream("matches"))
        known_at = there.expand(*shared[:-1], objects).gather(-1, at.clamp(min=0))
        if d.chance("by matcher", 4):
            args["matcher"] = _by_turns
        else:
            args["matches"] = torch.where((at >= 0) & ~known_at, -1, at)
        weight = d.maybe("weight", lambda: d.weights("weight", shared))
        keep = torch.ones(size, dtype=torch.bool) if weight is None else (weight != 0).expand(size)
        logits = d.numbers("class_logits", (*size, classes), 88.0)
        logits = poisoned(d, logits, keep.unsqueeze(-1).expand(logits.shape), "class_logits")
        if d.chance("ignore_regions", 3):
            regions = drawn("region", (images, 2)).float()
            args["ignore_regions"] = list(regions) if d.pick("listed", (False, True)) else regions
        quality = d.pick("quality", (None, "iou")) if no_object is None else None
        by = ("varifocal_loss",) if quality else ("focal_loss", "varifocal_loss")
        class_loss = d.pick("class_loss", by) if no_object is None else "focal_loss"
        if layers is not None and d.chance("layer_weight given", 2):
            chosen = d.among("layer_weight", (layers,), (1.0, 0.5, 2.0))
            as_list = d.pick("layer_weight listed", (False, True))
            args["layer_weight"] = chosen.tolist() if as_list else chosen.float()
        args |= dict(
            class_logits=d.tensor("class_logits", logits, dtype),
            pred_boxes=d.tensor("pred_boxes", drawn("box", size), dtype),
            target_boxes=drawn("target", (images, objects)).float(),
            target_labels=labels,
            weight=None if weight is None else d.tensor("weight", weight, FLOATS[0]),
            class_loss=getattr(aptt.loss, class_loss),
            quality=quality,
            no_object=no_object,
            box_loss=getattr(aptt.loss, d.pick("box_loss", ("giou_loss", "diou_loss"))),
            groups=d.pick("groups", (1, 2)),
            normalize=d.pick("normalize", ("targets", "matches")),
            box_format=box_format,
            reduction=d.reduction(none=False),
        )
        if name == "detr_loss":
            args |= dict(
                class_gain=d.pick("class_gain", (1.0, 0.0)),
                l1_gain=d.pick("l1_gain", (5.0, 1.0)),
                box_gain=d.pick("box_gain", (2.0, 0.0)),
            )
        return d.call(name, args, "class_logits", "pred_boxes")

    return draw


NEGATIVE = (-1.0, NAN)
NONE = {"reduction": ("none",)}
LOSSES = {
    "centernet_loss": Loss(
        _centernet("centernet_loss"),
        oracle.centernet_loss,
        wrong=NONE | {"hm_weight": NEGATIVE, "alpha": NEGATIVE, "beta": NEGATIVE},
    ),
    "centernet_terms": Loss(_centernet("centernet_terms"), oracle.centernet_terms, wrong=NONE),
    "detection_loss": Loss(
        _detection("detection_loss"),
        oracle.detection_loss,
        rows=2,
        kinked=True,
        rigid=("target_boxes", "strides"),
        conceded=lambda call: {"match_scores", "pred_boxes"},
        wrong=NONE | {"class_gain": NEGATIVE, "box_gain": NEGATIVE, "dfl_gain": NEGATIVE},
    ),
    "detection_terms": Loss(
        _detection("detection_terms"),
        oracle.detection_terms,
        rows=2,
        kinked=True,
        rigid=("target_boxes", "strides"),
        conceded=lambda call: {"match_scores", "pred_boxes"},
        wrong=NONE,
    ),
    "detr_loss": Loss(
        _detr("detr_loss"),
        oracle.detr_loss,
        rows=-1,
        kinked=True,
        rigid=("target_boxes",),
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        wrong=NONE | {"class_gain": NEGATIVE, "box_gain": NEGATIVE, "no_object": NEGATIVE},
    ),
    "detr_terms": Loss(
        _detr("detr_terms"),
        oracle.detr_terms,
        rows=-1,
        kinked=True,
        rigid=("target_boxes",),
        conceded=lambda call: {"pred_boxes", "target_boxes"},
        wrong=NONE | {"groups": (0, -1)},
    ),
}
