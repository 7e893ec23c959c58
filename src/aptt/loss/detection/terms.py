"""The terms of a detector: what each prediction is asked, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aptt.core.bins import check_bins
from aptt.core.boxes import BoxFormat
from aptt.core.checks import as_weight, check_flags, check_floating
from aptt.core.pairwise import corners_of
from aptt.core.precision import widen
from aptt.core.reduction import Kind, Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.targets import (
    Targets,
    TermLoss,
    check_parts,
    padded,
    total_of,
)
from aptt.loss.bbox import ciou_loss
from aptt.loss.classification import binary_cross_entropy
from aptt.loss.detection.answers import answers_of, assigned_by
from aptt.loss.detection.classes import (
    asked,
    check_class_mask,
    classes_of,
    softmax_total,
    told_of,
    weight_of_class,
    weight_of_labels,
)
from aptt.loss.detection.options import WANTED, check_box_format_of, check_classes_of
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
from aptt.loss.matching import Assignment

__all__ = ["TASK_ALIGNED", "detection_terms"]

TASK_ALIGNED = TaskAlignedAssigner()


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
    dense = pred_boxes.ndim == 4
    numbers = 5 if not dense and pred_boxes.shape[-1:] == (5,) else 4
    shape = "B A 4 bins" if dense else f"B A {numbers}"
    check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, shape))
    if dense:
        check_bins("pred_boxes", pred_boxes)
    check_rows(class_logits, anchors=anchors, strides=strides, weight=weight)
    check_box_format_of(box_format, numbers)
    classes = classes_of(class_logits, no_object)
    if class_mask is not None:
        check_class_mask(class_mask, class_logits, no_object)
    targets = padded(
        target_boxes,
        target_labels,
        target_mask,
        class_logits,
        classes=classes,
        ordered=box_format == "xyxy" and numbers == 4,
        numbers=numbers,
        several=True,
    )
    targets = _as_predicted(targets, class_logits, pred_boxes, box_format)
    places, points = places_of(anchors, box_format)
    converted = numbers == 4 and box_format != "xyxy"
    wide = widen(pred_boxes) if dense or converted else pred_boxes  # once, as its gradients are
    if dense:
        corners = decoded(wide.detach(), points, strides)
    else:
        corners = corners_of(wide, box_format) if converted else wide
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
    counts = None if weight is None else weight != 0
    assigned = matches is None
    if matches is None:
        if match_scores is not None:
            raise ValueError("match_scores: got scores, but no matches that they belong to")
        seen_by_it = class_logits, corners, places, targets, counts, strides, no_object
        matches, match_scores = assigned_by(assigner, *seen_by_it)
    matched = class_logits, pred_boxes, targets, counts, matches, match_scores
    rows, positive, goals, labels, scores = answers_of(*matched, hard=hard_scores)
    if ignore_regions is not None:
        ignored = in_regions(ignore_regions, points, class_logits, box_format)
        rows = rows & (positive | ~ignored)
    spoiled = corners.isnan() & rows.unsqueeze(-1) if assigned else None
    if dense:  # again, for the gradient, without those that are not boxes and may hold anything
        seen = positive.unsqueeze(-1)
        seen = seen if spoiled is None else seen | spoiled
        corners = decoded(wide.masked_fill(~seen.unsqueeze(-1), 0.0), points, strides)
        check_strides(needed("strides", strides), rows)

    share = scores if weight is None else scores * weight
    of_class = None
    if class_weight is not None:
        of_class = weight_of_class(class_weight, class_logits, classes)
        share = share * weight_of_labels(of_class, labels)
    told = told_of(labels, rows, positive)
    every = told if weight is None else told * weight
    target = asked(labels, scores, classes, shared=no_object is not None)

    count = share.sum()
    if reduction == "mean":
        count = count.clamp(min=1)
    counted: dict[str, tuple[Tensor, Kind]] = {"class": (count, "positives")}
    totals = {}
    if no_object is None:
        each = every.unsqueeze(-1).expand_as(class_logits)
        each = each if of_class is None else each * of_class
        if class_mask is not None:
            each = each * (class_mask != 0).unsqueeze(1)
        questions = class_loss, class_logits, target, each
        totals["class"] = total_of("class_loss", *questions, wanted=WANTED)
    else:
        one_question = class_logits, target, every.to(target.dtype), of_class, no_object
        totals["class"], weighed = softmax_total(*one_question)
        counted["class"] = weighed, "values"
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
    terms = {}
    for name, total in totals.items():
        over, kind = counted.get(name, (count, "positives"))
        terms[name] = normalize(total.to(dtype), over, reduction, term=name, kind=kind)
    return terms


def _as_predicted(
    targets: tuple[Tensor, Tensor, Tensor], logits: Tensor, boxes: Tensor, box_format: BoxFormat
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets as precise as what is predicted; those of four numbers as corners."""
    goals, labels, mask = targets
    goals = goals.to(torch.promote_types(goals.dtype, boxes.dtype))
    if goals.shape[-1] == 4:
        goals = corners_of(goals, box_format)
    if labels.ndim == 3:
        labels = labels.to(torch.promote_types(labels.dtype, logits.dtype))
    return goals, labels, mask
