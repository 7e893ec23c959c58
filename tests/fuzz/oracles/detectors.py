"""Detectors: a dense or matched one, and CenterNet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.oracles import boxes as box_oracles
from tests.fuzz.oracles import classes as class_oracles
from tests.fuzz.oracles.common import against, reduced, softplus
from tests.fuzz.oracles.points import heatmap_loss

__all__ = [
    "centernet_loss",
    "centernet_terms",
    "detection_loss",
    "detection_terms",
    "detr_loss",
    "detr_terms",
]


def centernet_terms(a: Any) -> dict[str, Tensor]:
    """Zhou et al. 2019 (arXiv:1904.07850), eq. 1 to 3."""
    hm = heatmap_loss(
        SimpleNamespace(
            prediction=a.predictions["hm"],
            target=a.targets["hm"],
            kind="focal",
            visibility=None,
            weight=a.targets.get("weight"),
            positive=a.targets.get("positive"),
            alpha=a.alpha,
            beta=a.beta,
            normalize="positives",
            reduction=a.reduction,
        )
    )
    terms, mask = {"hm": hm}, a.targets["mask"].double()
    count = mask.sum() * (2 if a.normalize == "coordinates" else 1)
    for name in ("wh", "reg"):
        total = a.predictions[name].sum() * 0
        for i, j in (mask != 0).nonzero().tolist():
            found = a.predictions[name][i].flatten(1)[:, a.targets["ind"][i, j].long()]
            total = total + mask[i, j] * (found - a.targets[name][i, j]).abs().sum()
        terms[name] = reduced(total, count, a.reduction, name)
    return terms


def centernet_loss(a: Any) -> Tensor:
    """Zhou et al. 2019, eq. 4."""
    terms = centernet_terms(a)
    weights = {"hm": a.hm_weight, "wh": a.wh_weight, "reg": a.reg_weight}
    return sum(weights[name] * term for name, term in terms.items())


def detection_terms(a: Any) -> dict[str, Tensor]:
    """One mean for all terms, over the positives' scores: Feng et al. 2021 (arXiv:2108.07755)."""
    x, boxes = a.class_logits, a.pred_boxes
    dense, size = boxes.ndim == 4, x.shape[:2]
    goals, labels = (
        v if isinstance(v, Tensor) else torch.stack(v) if v else x.new_zeros((0, 1, 4)[:last])
        for v, last in ((a.target_boxes, 3), (a.target_labels, 2))
    )
    matches, scores = a.matches, a.match_scores
    ends = _ends(goals.double(), a.box_format)
    if matches is None:
        there = labels != -1 if a.target_mask is None else a.target_mask
        found = a.assigner(x, boxes, a.anchors, ends, labels, there)
        matches, scores = found[0], found[1].double()
    scores = torch.ones(size).double() if scores is None or a.hard_scores else scores
    w = torch.ones(size).double() if a.weight is None else a.weight
    rows = (matches != -2) & (w != 0)
    positive = (matches >= 0) & rows
    anchors = None if a.anchors is None else a.anchors.expand(*size, 2)
    strides = None if a.strides is None else a.strides.expand(size)
    if a.ignore_regions is not None:
        for i in range(size[0]):
            for region in _ends(a.ignore_regions[i].double(), a.box_format):
                inside = ((anchors[i] > region[:2]) & (anchors[i] < region[2:])).all(-1)
                rows[i] &= positive[i] | ~inside
    classes = x.shape[2] - (a.no_object is not None)
    of_class = torch.ones(classes).double() if a.class_weight is None else a.class_weight
    target, share = torch.zeros((*size, classes)).double(), torch.zeros(size).double()
    mine, told = [], rows.clone()
    for i, j in positive.nonzero().tolist():
        goal = int(matches[i, j])
        if labels.ndim == 3:
            of = labels[i, goal].double()
            told[i, j] = bool(of.any())
        else:
            of = torch.zeros(classes).double()
            of[int(labels[i][goal])] = 1
        many = of.sum()
        target[i, j] = scores[i, j] * (of if a.no_object is None else of / many.clamp(min=1))
        mean = (of * of_class).sum() / many if many > 0 else 1.0
        share[i, j] = (scores[i, j] * w[i, j]).detach() * mean
        mine.append(ends[i][goal])
    count = share.sum().clamp(min=1) if a.reduction == "mean" else share.sum()
    every = torch.where(told, w, 0.0)
    each = every[..., None] * of_class
    if a.class_mask is not None:
        each = each * a.class_mask[:, None]

    def total(loss: Any, **args: Any) -> Tensor:
        module = class_oracles if hasattr(class_oracles, loss.__name__) else box_oracles
        options = dict(
            pos_weight=None,
            label_smoothing=0.0,
            ignore_index=None,
            class_dim=None,
            alpha=0.25,
            gamma=2.0,
            beta=2.0,
            normalize="elements",
            box_format="xyxy",
            power=1.0,
            gate=False,
            out_of_range="clamp",
            values=None,
            reduction="sum",
        )
        return getattr(module, loss.__name__)(SimpleNamespace(**options | args))

    counts = dict.fromkeys(("class", "box", "dfl"), count)
    if a.no_object is None:
        totals = {"class": total(a.class_loss, logits=x, target=target, weight=each)}
    else:
        target = torch.cat((target, 1 - target.sum(-1, keepdim=True)), -1)
        target = target * torch.cat((of_class, of_class.new_tensor([a.no_object])))
        rest = x.new_zeros(())
        for i, j in (every != 0).nonzero().tolist():
            for c in target[i, j].nonzero().flatten().tolist():
                cost = softplus(against(x[i, j][None], torch.tensor([c])))[0]
                rest = rest + every[i, j] * target[i, j, c] * cost
        totals, counts["class"] = {"class": rest}, (every[..., None] * target).sum()
    at, of = positive, share[positive]
    goals = torch.stack(mine) if mine else torch.zeros(0, 4).double()
    if dense:
        bins = torch.arange(boxes.shape[-1]).double()
        far = (boxes[at].softmax(-1) * bins).sum(-1) * strides[at][:, None]
        corners = torch.cat((anchors[at] - far[:, :2], anchors[at] + far[:, 2:]), -1)
        sides = torch.cat((anchors[at] - goals[:, :2], goals[:, 2:] - anchors[at]), -1)
        sides = sides / strides[at][:, None]
        quarter = (of / 4)[:, None].expand(sides.shape)
        totals["box"] = total(a.box_loss, pred_boxes=corners, target_boxes=goals, weight=of)
        loss = SimpleNamespace(__name__="distribution_focal_loss")
        totals["dfl"] = total(loss, logits=boxes[at], target=sides, weight=quarter)
    else:
        found = _ends(boxes[at], a.box_format)
        totals["box"] = total(a.box_loss, pred_boxes=found, target_boxes=goals, weight=of)
    return {name: reduced(v, counts[name], a.reduction, name) for name, v in totals.items()}


def detection_loss(a: Any) -> Tensor:
    terms = detection_terms(a)
    gains = {"class": a.class_gain, "box": a.box_gain, "dfl": a.dfl_gain}
    return sum(gains[name] * term for name, term in terms.items())


def detr_terms(a: Any) -> dict[str, Tensor]:
    """Carion et al. 2020 (arXiv:2005.12872), eq. 2, of matches that are given."""
    x, boxes = a.class_logits, a.pred_boxes
    layered = x.ndim == 4
    if not layered:
        x, boxes = x[None], boxes[None]
    layers, images, queries, classes = x.shape
    there = a.target_labels != -1 if a.target_mask is None else a.target_mask
    matches = a.matches
    if matches is None:
        goals = (v.repeat(layers, *[1] * (v.ndim - 1)) for v in (a.target_boxes, a.target_labels))
        of_all = x.flatten(0, 1), boxes.flatten(0, 1), None, *goals, there.repeat(layers, 1)
        matches = a.matcher(*of_all)[0].unflatten(0, (layers, images))
    matches = matches.expand(layers, images, queries)
    w = torch.ones(images, queries).double() if a.weight is None else a.weight.double()
    w = w.expand(layers, images, queries)
    by_layer = torch.ones(layers).double()
    if a.layer_weight is not None:
        by_layer = torch.as_tensor(a.layer_weight).double()
    rows = (matches != -2) & (w != 0)
    positive = (matches >= 0) & rows
    if a.ignore_regions is not None:
        ends = _ends(boxes.detach().double(), a.box_format)
        regions = [_ends(region.double(), a.box_format) for region in a.ignore_regions]
        for n, i, q in (rows & ~positive).nonzero().tolist():
            box = ends[n, i, q]
            for region in regions[i]:
                low, high = (
                    f(box[k : k + 2], region[k : k + 2])
                    for f, k in ((torch.maximum, 0), (torch.minimum, 2))
                )
                area = (box[2:] - box[:2]).prod()
                if area > 0 and (high - low).clamp(min=0).prod() / area >= 0.5:
                    rows[n, i, q] = False
    count = (there.sum() * a.groups).double()
    if a.normalize == "matches":
        count = torch.where(positive, w, 0.0).sum() / layers
    most = count.clamp(min=1) if a.reduction == "mean" else count
    of_class = most
    if a.no_object is not None:
        each = torch.where(positive, w, w * a.no_object)
        of_class = torch.where(rows, each, 0.0).sum() / layers
    options = dict(alpha=0.25, gamma=2.0, ignore_index=None, class_dim=None, detach_factor=False)
    options |= dict(normalize="elements", power=1.0, box_format=a.box_format, gate=False)
    found = {"class": [], "l1": [], "box": []}
    for n in range(layers):
        goals = torch.zeros(images, queries, 4).double()
        target, mask = torch.zeros(x.shape[1:]).double(), torch.zeros(x.shape[1:]).bool()
        right = torch.full((images, queries), classes - 1)
        for i, q in positive[n].nonzero().tolist():
            m = int(matches[n, i, q])
            label = int(a.target_labels[i, m])
            goals[i, q], right[i, q] = a.target_boxes[i, m].double(), label
            target[i, q, label], mask[i, q, label] = 1.0, True
        at, weigh = positive[n], torch.where(rows[n], w[n], 0.0) * by_layer[n]
        pairs = dict(pred_boxes=boxes[n][at], target_boxes=goals[at], weight=weigh[at])
        pairs |= dict(reduction="sum", beta=0.0)
        if a.quality is not None:
            u = box_oracles.box_iou_loss(
                SimpleNamespace(**options | pairs | dict(reduction="none", weight=None))
            )
            target[mask] = (1 - u).clamp(0, 1).detach()
        if a.no_object is None:
            args = dict(logits=x[n], target=target, weight=weigh[..., None].expand(x.shape[1:]))
            given = SimpleNamespace(**options | args | dict(positive=mask, reduction="sum"))
            if a.class_loss.__name__ == "varifocal_loss":
                given.alpha = 0.75
            value = getattr(class_oracles, a.class_loss.__name__)(given)
        else:
            seen = weigh != 0
            each = torch.where(positive[n], weigh, weigh * a.no_object)[seen]
            costs = softplus(against(x[n][seen], right[seen]))
            value = (each * costs).sum()
        found["class"].append(value)
        found["l1"].append(box_oracles.box_l1_loss(SimpleNamespace(**options | pairs)))
        name = a.box_loss.__name__
        found["box"].append(getattr(box_oracles, name)(SimpleNamespace(**options | pairs)))
    terms = {}
    for name, values in found.items():
        over = of_class if name == "class" else most
        each = [reduced(v, over, a.reduction, name) for v in values]
        terms[name] = torch.stack(each) if layered else each[0]
    return terms


def _ends(boxes: Tensor, box_format: str) -> Tensor:
    first, second = boxes.chunk(2, -1)
    if box_format == "xyxy":
        return boxes
    first = first if box_format == "xywh" else first - second / 2
    return torch.cat((first, first + second), -1)


def detr_loss(a: Any) -> Tensor:
    terms = detr_terms(a)
    gains = {"class": a.class_gain, "l1": a.l1_gain, "box": a.box_gain}
    return sum(gains[name] * term.sum() for name, term in terms.items())
