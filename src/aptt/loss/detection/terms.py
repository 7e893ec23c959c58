"""The terms of a detector: what each prediction is asked, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import as_weight, check_flags, check_floating, check_number
from aptt.core.formula import widen
from aptt.core.pairwise import corners_of
from aptt.core.reduction import Kind, Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.targets import (
    IGNORED,
    Targets,
    TermLoss,
    check_parts,
    index_of,
    matched,
    padded,
    total_of,
)
from aptt.loss.bbox import ciou_loss
from aptt.loss.classification import binary_cross_entropy
from aptt.loss.detection.classes import (
    asked,
    check_class_mask,
    labels_at,
    log_odds,
    softmax_total,
    weight_of_class,
    weight_of_labels,
)
from aptt.loss.detection.rows import (
    check_rows,
    check_strides,
    decoded,
    in_regions,
    needed,
    places_of,
    sides_of,
)
from aptt.loss.detection.task_aligned import TaskAlignedAssigner
from aptt.loss.dfl import distribution_focal_loss
from aptt.loss.matching import Assignment, HungarianMatcher

__all__ = ["TASK_ALIGNED", "WANTED", "check_classes_of", "detection_terms"]

TASK_ALIGNED = TaskAlignedAssigner()

WANTED = {
    "class_loss": "a loss of yes-or-no questions with soft targets, such as binary_cross_entropy, "
    "quality_focal_loss or QualityFocalLoss(); with hard_scores=True, or matches without scores, "
    "focal_loss too",
    "box_loss": "a loss of boxes as corners, such as ciou_loss or GIoULoss(), or of rotated boxes, "
    "such as probiou_loss",
    "assigner": "a TaskAlignedAssigner, or a function of the same arguments",
}


def detection_terms(
    class_logits: Tensor,
    pred_boxes: Tensor,
    target_boxes: Targets,
    target_labels: Targets,
    *,
    target_mask: Tensor | None = None,
    anchors: Tensor | None = None,
    strides: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_regions: Targets | None = None,
    matches: Tensor | None = None,
    match_scores: Tensor | None = None,
    class_mask: Tensor | None = None,
    assigner: Callable[..., Assignment] = TASK_ALIGNED,
    class_loss: TermLoss = binary_cross_entropy,
    box_loss: TermLoss = ciou_loss,
    class_weight: Tensor | Sequence[float] | None = None,
    hard_scores: bool = False,
    no_object: float | None = None,
    box_format: BoxFormat = "xyxy",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`detection_loss`, before their gains: to log them, or to weigh them.

    Returns:
        ``"class"`` and ``"box"``, and ``"dfl"`` where boxes are distributions: scalars on the
        graph. The arguments are those of :func:`detection_loss`.

    Example:
        >>> import torch
        >>> logits, boxes = torch.zeros(1, 2, 1), torch.tensor([[[0.0, 0, 2, 2], [4.0, 4, 6, 6]]])
        >>> target, labels = torch.tensor([[[0.0, 0, 2, 4]]]), torch.tensor([[0]])
        >>> matches = torch.tensor([[0, -1]])
        >>> terms = detection_terms(logits, boxes, target, labels, matches=matches)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'class': 1.3863, 'box': 0.5532}
    """
    check_reduction(reduction, none=False)
    check_flags(hard_scores=hard_scores)
    check_parts(WANTED, assigner=assigner, class_loss=class_loss, box_loss=box_loss)
    check_classes_of(no_object, class_loss)
    check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
    dense, numbers = pred_boxes.ndim == 4, 5 if pred_boxes.shape[-1:] == (5,) else 4
    if dense:
        numbers = 4
    shape = "B A 4 bins" if dense else f"B A {numbers}"
    check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, shape))
    check_rows(class_logits, anchors=anchors, strides=strides, weight=weight)
    check_box_format_of(box_format, numbers)
    classes = class_logits.shape[-1] - (no_object is not None)
    if classes < 1 and no_object is not None:
        got = tuple(class_logits.shape)
        raise ValueError(f"class_logits: got {got}, wanted a class beside no-object")
    if class_mask is not None:
        check_class_mask(class_mask, class_logits, no_object)
    goals, labels, mask = padded(
        target_boxes,
        target_labels,
        target_mask,
        class_logits,
        classes=classes,
        ordered=box_format == "xyxy" and numbers == 4,
        numbers=numbers,
        several=True,
    )
    goals = goals.to(torch.promote_types(goals.dtype, pred_boxes.dtype))
    if labels.ndim == 3:
        labels = labels.to(torch.promote_types(labels.dtype, class_logits.dtype))
    places, points = places_of(anchors, box_format)
    wide = pred_boxes  # once, as its gradients are
    if numbers == 4:
        goals = corners_of(goals, box_format)
        wide = widen(pred_boxes) if dense or box_format != "xyxy" else pred_boxes
    corners = decoded(wide.detach(), points, strides) if dense else wide
    if numbers == 4 and not dense:
        corners = corners_of(wide, box_format)
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
    counts = None if weight is None else weight != 0
    assigned = matches is None
    if matches is None:
        if match_scores is not None:
            raise ValueError("match_scores: got scores, but no matches that they belong to")
        if anchors is None and getattr(assigner, "needs_anchors", True):
            needed("anchors", anchors)
        with torch.no_grad():
            x = class_logits
            if no_object is not None and not _by_softmax(assigner):
                x = log_odds(class_logits)
            found = assigner(x, corners, places, goals, labels, mask, counts, strides=strides)
        matches, match_scores = found[0], found[1].detach()
    matches, scores = matched(matches, match_scores, class_logits, mask)
    scores = scores.to(torch.promote_types(scores.dtype, pred_boxes.dtype))

    rows = matches != IGNORED if counts is None else (matches != IGNORED) & counts
    positive = (matches >= 0) & rows
    if ignore_regions is not None:
        ignored = in_regions(ignore_regions, points, class_logits, box_format)
        rows = rows & (positive | ~ignored)
    spoiled = corners.isnan() & rows.unsqueeze(-1) if assigned else None
    if dense:  # again, for the gradient, without those that are not boxes and may hold anything
        seen = positive.unsqueeze(-1)
        seen = seen if spoiled is None else seen | spoiled
        held = wide.masked_fill(~seen.unsqueeze(-1), 0.0)
        corners = decoded(held, points, strides)
        check_strides(needed("strides", strides), rows)
    index = index_of(matches, mask)
    goals = goals.gather(1, index.unsqueeze(-1).expand(-1, -1, numbers))
    labels = labels_at(labels, index)
    scores = torch.where(positive, torch.ones_like(scores) if hard_scores else scores, 0.0)
    target = asked(labels, scores, classes, shared=no_object is not None)
    share = scores if weight is None else scores * weight
    of_class = None
    if class_weight is not None:
        of_class = weight_of_class(class_weight, class_logits, classes)
        share = share * weight_of_labels(of_class, labels)
    told = rows  # which predictions are told their classes
    if labels.ndim == 3:
        told = told & ~(positive & (labels.sum(-1) == 0))
    every = told if weight is None else told * weight

    count = share.sum()
    if reduction == "mean":
        count = count.clamp(min=1)
    counts_of = {"class": count, "box": count, "dfl": count}
    totals = {}
    if no_object is not None:
        given = class_logits, target, every.to(target.dtype), of_class, no_object
        totals["class"], counts_of["class"] = softmax_total(*given)
    else:
        each = every.unsqueeze(-1).expand_as(class_logits)
        each = each if of_class is None else each * of_class
        if class_mask is not None:
            each = each * (class_mask != 0).unsqueeze(1)
        totals["class"] = total_of(
            "class_loss", class_loss, class_logits, target, each, wanted=WANTED
        )
    totals["box"] = total_of("box_loss", box_loss, corners, goals, share, wanted=WANTED)
    if spoiled is not None:  # no assigner picks NaN, which is to be seen in loss and gradient
        totals["box"] = totals["box"] + torch.where(spoiled, corners, 0.0).square().sum()
    if dense:
        sides = sides_of(goals, points, strides)
        each = (share / 4).unsqueeze(-1).expand_as(sides)
        totals["dfl"] = distribution_focal_loss(
            wide, sides, weight=each, out_of_range="clamp", reduction="sum"
        )
    both_double = class_logits.dtype == pred_boxes.dtype == torch.float64
    dtype = torch.float64 if both_double else torch.float32
    kinds: dict[str, Kind] = {} if no_object is None else {"class": "values"}
    return {
        name: normalize(
            total.to(dtype),
            counts_of[name],
            reduction,
            term=name,
            kind=kinds.get(name, "positives"),
        )
        for name, total in totals.items()
    }


def _by_softmax(assigner: object) -> bool:
    """Whether an assigner asks for the logits of a softmax themselves."""
    return isinstance(assigner, HungarianMatcher) and assigner.class_cost != "focal"


def check_box_format_of(box_format: BoxFormat, numbers: int) -> None:
    """Refuse unknown names, and one for rotated boxes, which are written in one way."""
    check_box_format(box_format)
    if numbers == 5 and box_format != "xyxy":
        raise ValueError(
            f"box_format: got {box_format!r} for boxes of five numbers, which are centre, size and "
            "angle: leave it out"
        )


def check_classes_of(no_object: float | None, class_loss: object) -> None:
    """Refuse a weight that is none, and a class loss beside a softmax."""
    if no_object is None:
        return
    check_number("no_object", no_object)
    if class_loss is not binary_cross_entropy:
        raise ValueError(
            f"class_loss: got {class_loss!r} beside no_object, which says that the classes are "
            "those of a softmax, with cross-entropy"
        )
