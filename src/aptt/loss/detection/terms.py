"""The terms of a detector: what each prediction is asked, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aptt.core.checks import as_weight, check_flags, check_floating
from aptt.core.formula import widen
from aptt.core.reduction import Reduction, check_reduction, normalize
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
from aptt.loss.detection.rows import (
    check_rows,
    check_strides,
    decoded,
    in_regions,
    needed,
    sides_of,
    weight_of_class,
)
from aptt.loss.detection.task_aligned import TaskAlignedAssigner
from aptt.loss.dfl import distribution_focal_loss
from aptt.loss.matching import Assignment

__all__ = ["TASK_ALIGNED", "WANTED", "detection_terms"]

TASK_ALIGNED = TaskAlignedAssigner()

WANTED = {
    "class_loss": "a loss of yes-or-no questions with soft targets, such as binary_cross_entropy, "
    "quality_focal_loss or QualityFocalLoss(); with hard_scores=True, or matches without scores, "
    "focal_loss too",
    "box_loss": "a loss of boxes as corners, such as ciou_loss or GIoULoss()",
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
    assigner: Callable[..., Assignment] = TASK_ALIGNED,
    class_loss: TermLoss = binary_cross_entropy,
    box_loss: TermLoss = ciou_loss,
    class_weight: Tensor | Sequence[float] | None = None,
    hard_scores: bool = False,
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
    check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
    dense = pred_boxes.ndim == 4
    shape = "B A 4 bins" if dense else "B A 4"
    check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, shape))
    check_rows(class_logits, anchors=anchors, strides=strides, weight=weight)
    goals, labels, mask = padded(target_boxes, target_labels, target_mask, class_logits)
    wide = widen(pred_boxes) if dense else pred_boxes  # once, as its gradients are
    corners = decoded(wide.detach(), anchors, strides) if dense else pred_boxes
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
    counts = None if weight is None else weight != 0
    assigned = matches is None
    if matches is None:
        if match_scores is not None:
            raise ValueError("match_scores: got scores, but no matches that they belong to")
        free = anchors is None and not getattr(assigner, "needs_anchors", True)
        points = None if free else needed("anchors", anchors)
        with torch.no_grad():
            found = assigner(class_logits, corners, points, goals, labels, mask, counts)
        matches, match_scores = found[0], found[1].detach()
    matches, scores = matched(matches, match_scores, class_logits, mask)
    scores, goals = (t.to(torch.promote_types(t.dtype, pred_boxes.dtype)) for t in (scores, goals))

    rows = matches != IGNORED if counts is None else (matches != IGNORED) & counts
    positive = (matches >= 0) & rows
    if ignore_regions is not None:
        rows = rows & (positive | ~in_regions(ignore_regions, anchors, class_logits))
    spoiled = corners.isnan() & rows.unsqueeze(-1) if assigned else None
    if dense:  # again, for the gradient, without those that are not boxes and may hold anything
        seen = positive.unsqueeze(-1)
        seen = seen if spoiled is None else seen | spoiled
        held = wide.masked_fill(~seen.unsqueeze(-1), 0.0)
        corners = decoded(held, anchors, strides)
        check_strides(needed("strides", strides), rows)
    index = index_of(matches, mask)
    goals = goals.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
    labels = labels.gather(1, index)
    scores = torch.where(positive, torch.ones_like(scores) if hard_scores else scores, 0.0)
    target = scores.new_zeros(class_logits.shape).scatter(
        2, labels.unsqueeze(-1), scores.unsqueeze(-1)
    )
    every = rows if weight is None else rows * weight
    every, share = every.unsqueeze(-1).expand_as(class_logits), scores
    if weight is not None:
        share = share * weight
    if class_weight is not None:
        of_class = weight_of_class(class_weight, class_logits)
        every, share = every * of_class, share * of_class[labels]
    count = share.sum()
    if reduction == "mean":
        count = count.clamp(min=1)

    totals = {
        "class": total_of("class_loss", class_loss, class_logits, target, every, wanted=WANTED),
        "box": total_of("box_loss", box_loss, corners, goals, share, wanted=WANTED),
    }
    if spoiled is not None:  # no assigner picks NaN, which is to be seen in loss and gradient
        totals["box"] = totals["box"] + torch.where(spoiled, corners, 0.0).square().sum()
    if dense:
        sides = sides_of(goals, anchors, strides)
        each = (share / 4).unsqueeze(-1).expand_as(sides)
        totals["dfl"] = distribution_focal_loss(
            wide, sides, weight=each, out_of_range="clamp", reduction="sum"
        )
    both_double = class_logits.dtype == pred_boxes.dtype == torch.float64
    dtype = torch.float64 if both_double else torch.float32
    return {
        name: normalize(total.to(dtype), count, reduction, term=name, kind="positives")
        for name, total in totals.items()
    }
