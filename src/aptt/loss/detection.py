"""Detection loss: which prediction answers for which object, and how well it does.

    class   sum of class_loss(logits, scores) / S    scores: 0, but for the class of a positive
    box     sum of w * box_loss(box, target) / S     w: the score of a positive, 0 elsewhere
    dfl     sum of w * DFL(distances) / S            where boxes are distributions of distances
    loss    class_gain * class + box_gain * box + dfl_gain * dfl
                                                     S = sum of w, at least 1
    scores of :class:`TaskAlignedAssigner`, among the candidates of an object:
    t       = p**alpha * u**beta                     p: probability of its class, u: IoU with it
    score   = t / max t * max u                      of the topk of the largest t

Axes: class logits ``(B, A, C)`` for B images, A predictions, C classes; boxes ``(B, A, 4)`` as
corners, or distributions ``(B, A, 4, bins)`` of the distances from an anchor point to the left,
top, right and bottom side, in strides; targets ``(B, M, 4)`` and ``(B, M)``, or lists by image.
From: Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, arXiv:2108.07755,
section 3.2; the terms and their gains as the YOLOv8 family has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptt.core.checks import (
    as_floats,
    as_weight,
    check_flags,
    check_floating,
    check_number,
    check_tensors,
    check_whole,
)
from aptt.core.formula import widen
from aptt.core.module import LossModule, per_class, reduced
from aptt.core.ordinary import is_readable
from aptt.core.reduction import Reduction, check_reduction, normalize
from aptt.core.shapes import check_shapes
from aptt.core.targets import (
    BACKGROUND,
    IGNORED,
    Targets,
    TermLoss,
    check_parts,
    held,
    index_of,
    matched,
    padded,
    real,
    regions_of,
    total_of,
)
from aptt.loss.bbox import ciou_loss
from aptt.loss.classification import binary_cross_entropy
from aptt.loss.dfl import distribution_focal_loss, expected_value
from aptt.loss.matching import Assignment

__all__ = [
    "Assignment",
    "DetectionLoss",
    "TaskAlignedAssigner",
    "detection_loss",
    "detection_terms",
]


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """Give each target the predictions that classify and locate it best.

        t     = p**alpha * u**beta
        score = t / max t * max u

    A candidate for a target is a prediction whose anchor point lies strictly inside its box, or, if
    there is none, the one point that is closest to its centre. Of the candidates that overlap the
    target, the ``topk`` with the largest t are chosen; one that is chosen by several targets goes
    to that with which it has the largest IoU. Ties go to the prediction, or the target, that comes
    first. There is no host sync. The pairs of target and prediction take some 50 bytes each: of one
    image at a time, or of several that have no more than 8192 together (4 million on an
    accelerator). t is compared by its logarithm, so that it does not underflow in early training.

    Args:
        topk: how many predictions a target is given at most; all candidates if there are fewer.
        alpha: power of the probability.
        beta: power of the IoU.

    Differs from:
        ultralytics: a target smaller than the grid is given the closest point, where boxes are
            enlarged to a stride there; the overlap is IoU, not CIoU; ``topk`` may exceed the number
            of predictions; coordinates may be negative.
        mmdetection: its defaults are ``topk=13, alpha=1``; batches are not taken apart here.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0

    def __post_init__(self) -> None:
        check_whole("topk", self.topk)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)

    @torch.no_grad()
    def __call__(
        self,
        class_logits: Tensor,
        pred_boxes: Tensor,
        anchors: Tensor,
        target_boxes: Tensor,
        target_labels: Tensor,
        target_mask: Tensor,
        anchor_mask: Tensor | None = None,
    ) -> Assignment:
        """Assign.

        Args:
            class_logits: ``(B, A, C)``.
            pred_boxes: ``(B, A, 4)``, the predicted corners.
            anchors: ``(A, 2)`` or ``(B, A, 2)``: a point for each prediction.
            target_boxes: ``(B, M, 4)`` corners.
            target_labels: ``(B, M)`` class indices; anything in padding.
            target_mask: ``(B, M)``: which of the targets there are.
            anchor_mask: ``(B, A)``: which of the predictions may be chosen.
        """
        check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
        check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, "B A 4"))
        _check_rows(class_logits, anchors=anchors, anchor_mask=anchor_mask)
        logits, boxes, points = (widen(t.detach()) for t in (class_logits, pred_boxes, anchors))
        goals, labels, mask = held(target_boxes.detach(), target_labels, target_mask, logits)
        if not boxes.shape[1]:
            none = boxes.new_zeros(boxes.shape[:2])
            return Assignment(none.long(), none)
        points, goals = points.expand(len(boxes), -1, -1), goals.to(boxes.dtype)
        may = torch.ones_like(boxes[..., 0], dtype=torch.bool)
        if anchor_mask is not None:
            may = anchor_mask != 0
        step = _images_at_once(goals, boxes)
        parts = (t.split(step) for t in (logits, boxes, points, goals, labels, mask, may))
        found = [self._assign(*some) for some in zip(*parts, strict=True)]
        return Assignment(*(torch.cat(each) for each in zip(*found, strict=True)))

    def _assign(
        self,
        logits: Tensor,
        boxes: Tensor,
        points: Tensor,
        goals: Tensor,
        labels: Tensor,
        mask: Tensor,
        may: Tensor,
    ) -> Assignment:
        """The assignment of some images, of which every pair of target and prediction is held."""
        near = _candidates(points, goals, mask.unsqueeze(-1) & may.unsqueeze(1))
        iou = _pairwise_iou(goals, boxes)
        t = torch.zeros_like(iou)
        if self.alpha:
            index = labels.unsqueeze(-1).expand_as(iou)
            t = t + self.alpha * F.logsigmoid(logits.transpose(1, 2).gather(1, index))
        if self.beta:
            t = t + self.beta * iou.log()
        near = near & (iou > 0) & (t > -torch.inf)  # both are false for NaN
        t = t.masked_fill(~near, -torch.inf)

        least = t.topk(min(self.topk, t.shape[-1])).values[..., -1:]
        above = t > least
        room = self.topk - above.sum(-1, keepdim=True)
        chosen = above | _first((t == least) & near, room, 2)
        shared = iou.masked_fill(~chosen, -1.0)
        chosen = chosen & _first(shared == shared.amax(1, keepdim=True), 1, 1)

        found = chosen.any(1)
        index = (chosen * torch.arange(chosen.shape[1], device=iou.device).view(-1, 1)).sum(1)
        best_t = t.masked_fill(~chosen, -torch.inf).amax(-1)
        best_u = iou.masked_fill(~chosen, 0.0).amax(-1)
        mine = t.gather(1, index.unsqueeze(1)).squeeze(1) - best_t.gather(1, index)
        scores = torch.where(found, mine.exp() * best_u.gather(1, index), 0.0)
        return Assignment(torch.where(found, index, BACKGROUND), scores)


_PAIRS_AT_ONCE = (2**13, 2**22)  # on the CPU, and where each image would cost its launches
_TASK_ALIGNED = TaskAlignedAssigner()


def _images_at_once(goals: Tensor, boxes: Tensor) -> int:
    pairs = _PAIRS_AT_ONCE[boxes.device.type != "cpu"]
    return max(pairs // (goals.shape[1] * boxes.shape[1]), 1)


def _candidates(points: Tensor, goals: Tensor, may: Tensor) -> Tensor:
    """``(B, M, A)``: the points inside each target, or else the one that is closest."""
    points = points.expand(len(goals), -1, -1).unsqueeze(1)
    inside = _inside(points, goals.unsqueeze(2)) & may
    centre = goals[..., :2] / 2 + goals[..., 2:] / 2
    away = (points - centre.unsqueeze(2)).square().sum(-1)
    away = away.masked_fill(~may, torch.inf)
    closest = _first((away == away.amin(-1, keepdim=True)) & may, 1, 2)
    return inside | (closest & ~inside.any(-1, keepdim=True))


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)


def _first(mask: Tensor, room: Tensor | int, axis: int) -> Tensor:
    """At most ``room`` of a mask along an axis, those that come first."""
    return mask & (mask.cumsum(axis, dtype=torch.int32) <= room)


def _pairwise_iou(goals: Tensor, boxes: Tensor) -> Tensor:
    """``(B, M, A)``: intersection over union of each target with each prediction."""
    low, high = goals[..., :2].unsqueeze(2), goals[..., 2:].unsqueeze(2)
    lo, hi = boxes[..., :2].unsqueeze(1), boxes[..., 2:].unsqueeze(1)
    common = (torch.minimum(high, hi) - torch.maximum(low, lo)).clamp(min=0).prod(-1)
    of_goal, of_box = (high - low).clamp(min=0).prod(-1), (hi - lo).clamp(min=0).prod(-1)
    union = of_goal + of_box - common
    return common / torch.where(union == 0, 1.0, union)  # NaN where areas overflow: no candidate


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
    assigner: Callable[..., Assignment] = _TASK_ALIGNED,
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
    check_parts(_WANTED, assigner=assigner, class_loss=class_loss, box_loss=box_loss)
    check_floating(class_logits=class_logits, pred_boxes=pred_boxes)
    dense = pred_boxes.ndim == 4
    shape = "B A 4 bins" if dense else "B A 4"
    check_shapes(class_logits=(class_logits, "B A C"), pred_boxes=(pred_boxes, shape))
    _check_rows(class_logits, anchors=anchors, strides=strides, weight=weight)
    goals, labels, mask = padded(target_boxes, target_labels, target_mask, class_logits)
    wide = widen(pred_boxes) if dense else pred_boxes  # once, as its gradients are
    corners = _decoded(wide.detach(), anchors, strides) if dense else pred_boxes
    if weight is not None:
        weight = as_weight("weight", weight, pred_boxes)
    counts = None if weight is None else weight != 0
    assigned = matches is None
    if matches is None:
        if match_scores is not None:
            raise ValueError("match_scores: got scores, but no matches that they belong to")
        free = anchors is None and not getattr(assigner, "needs_anchors", True)
        points = None if free else _needed("anchors", anchors)
        with torch.no_grad():
            found = assigner(class_logits, corners, points, goals, labels, mask, counts)
        matches, match_scores = found[0], found[1].detach()
    matches, scores = matched(matches, match_scores, class_logits, mask)
    scores, goals = (t.to(torch.promote_types(t.dtype, pred_boxes.dtype)) for t in (scores, goals))

    rows = matches != IGNORED if counts is None else (matches != IGNORED) & counts
    positive = (matches >= 0) & rows
    if ignore_regions is not None:
        rows = rows & (positive | ~_in_regions(ignore_regions, anchors, class_logits))
    spoiled = corners.isnan() & rows.unsqueeze(-1) if assigned else None
    if dense:  # again, for the gradient, without those that are not boxes and may hold anything
        seen = positive.unsqueeze(-1)
        seen = seen if spoiled is None else seen | spoiled
        held = wide.masked_fill(~seen.unsqueeze(-1), 0.0)
        corners = _decoded(held, anchors, strides)
        _check_strides(_needed("strides", strides), rows)
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
        of_class = _of_class(class_weight, class_logits)
        every, share = every * of_class, share * of_class[labels]
    count = share.sum()
    if reduction == "mean":
        count = count.clamp(min=1)

    totals = {
        "class": total_of("class_loss", class_loss, class_logits, target, every, wanted=_WANTED),
        "box": total_of("box_loss", box_loss, corners, goals, share, wanted=_WANTED),
    }
    if spoiled is not None:  # no assigner picks NaN, which is to be seen in loss and gradient
        totals["box"] = totals["box"] + torch.where(spoiled, corners, 0.0).square().sum()
    if dense:
        sides = _sides(goals, anchors, strides)
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


def detection_loss(
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
    assigner: Callable[..., Assignment] = _TASK_ALIGNED,
    class_loss: TermLoss = binary_cross_entropy,
    box_loss: TermLoss = ciou_loss,
    class_weight: Tensor | Sequence[float] | None = None,
    hard_scores: bool = False,
    class_gain: float = 0.5,
    box_gain: float = 7.5,
    dfl_gain: float = 1.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Classes, boxes and distances of a dense or a matched detector, as one loss.

        loss = class_gain * class + box_gain * box + dfl_gain * dfl

    Args:
        class_logits: ``(B, A, C)``, a yes-or-no question for each class, so background is no class.
        pred_boxes: ``(B, A, 4)`` corners ``x1, y1, x2, y2`` in any unit, or ``(B, A, 4, bins)``
            logits of the distances to the left, top, right, bottom, from 0 to ``bins - 1`` strides.
            NaN in one that the assigner was to choose from, and that counts, makes the loss NaN.
        target_boxes: ``(B, M, 4)`` corners in the same unit, or a list of ``(M_i, 4)`` by image.
        target_labels: ``(B, M)`` class indices, or a list of ``(M_i,)`` by image.
        target_mask: ``(B, M)``, which of the padded targets there are; None: all but those of
            label -1.
        anchors: ``(A, 2)`` or ``(B, A, 2)``, the point of each prediction, in the boxes' unit; for
            the assigner, for distributions and for ``ignore_regions``.
        strides: ``(A,)`` or ``(B, A)``, the unit of the distances; for distributions.
        weight: ``(B, A)``, one per prediction; multiplies and is counted, and 0 removes it.
        ignore_regions: ``(B, K, 4)`` corners, or a list by image: background whose anchor point
            lies in one of them does not count. Zeros serve as padding.
        matches: ``(B, A)``, instead of the assigner, where predictions are matched already: the
            index of the target, -1 for background, -2 for what does not count.
        match_scores: ``(B, A)`` in [0, 1], the target score of each match; None: 1.
        assigner: a :class:`TaskAlignedAssigner`, or a callable of the same arguments that gives
            an :class:`Assignment`, held to what ``matches`` may be. One with the attribute
            ``needs_anchors = False``, such as :class:`HungarianMatcher`, is called without anchors
            where there are none.
        class_loss: a loss, or its module form, ``(logits, scores, *, weight, reduction)``; of a
            module the options are taken, but for its reduction. ``focal_loss`` wants
            ``hard_scores`` or matches without scores.
        box_loss: the same, ``(pred_boxes, target_boxes, *, weight, reduction)`` on corners.
        class_weight: ``(C,)``, or a list; multiplies the class values of a class, and all that its
            targets count for.
        hard_scores: give every positive the target score 1, and so all of them the same weight.
        class_gain: factor of the class term.
        box_gain: factor of the box term.
        dfl_gain: factor of the distances' term.
        reduction: ``"mean"`` over S, the sum of the positives' weights, at least 1; ``"sum"``; or a
            callable ``(total, count, *, term)``, called with each term and S as it is.

    Returns:
        The loss, a scalar; float32, unless both predictions are float64. :func:`detection_terms`
        has its terms.

    Raises:
        ValueError: shapes that do not fit, a missing ``anchors`` or ``strides``, an unknown option;
            on CPU, labels and matches out of range, target boxes that are not finite or turned
            inside out, strides that are not above 0 and finite.
        TypeError: predictions that are not floating, labels and matches that are no integers.

    The gradient goes to ``class_logits`` and ``pred_boxes``, and to target boxes, weights and
    match scores that ask for it. The assigner's matches and scores are constants. Without any
    target the class term still penalises background, and the others are 0 with a gradient of 0.

    Use when:
        Training a dense detector, or any detector whose predictions are matched to targets outside:
        RetinaNet, FCOS by their own rules, DETR by its assignment (as ``matches``).

    Elsewhere:
        ultralytics ``v8DetectionLoss``, mmdetection ``TOODHead`` and ``YOLOv8Head``.

    Differs from:
        ultralytics: takes tensors, not the model; the mean is over the batch, not times its size;
            with a shared normalizer exact over ranks; no target costs no unused parameter.
        mmdetection, ultralytics: one weighted mean for all terms; class and box loss are arguments.

    Example:
        >>> import torch
        >>> logits, boxes = torch.zeros(1, 2, 1), torch.tensor([[[0.0, 0, 2, 2], [4.0, 4, 6, 6]]])
        >>> points = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
        >>> targets, labels = [torch.tensor([[0.0, 0, 2, 4]])], [torch.tensor([0])]
        >>> round(detection_loss(logits, boxes, targets, labels, anchors=points).item(), 4)
        2.7678
    """
    _check_gains(class_gain, box_gain, dfl_gain)
    terms = detection_terms(
        class_logits,
        pred_boxes,
        target_boxes,
        target_labels,
        target_mask=target_mask,
        anchors=anchors,
        strides=strides,
        weight=weight,
        ignore_regions=ignore_regions,
        matches=matches,
        match_scores=match_scores,
        assigner=assigner,
        class_loss=class_loss,
        box_loss=box_loss,
        class_weight=class_weight,
        hard_scores=hard_scores,
        reduction=reduction,
    )
    loss = class_gain * terms["class"] + box_gain * terms["box"]
    return loss + dfl_gain * terms["dfl"] if "dfl" in terms else loss


_WANTED = {
    "class_loss": "a loss of yes-or-no questions with soft targets, such as binary_cross_entropy, "
    "quality_focal_loss or QualityFocalLoss(); with hard_scores=True, or matches without scores, "
    "focal_loss too",
    "box_loss": "a loss of boxes as corners, such as ciou_loss or GIoULoss()",
    "assigner": "a TaskAlignedAssigner, or a function of the same arguments",
}


def _decoded(boxes: Tensor, anchors: Tensor | None, strides: Tensor | None) -> Tensor:
    """The corners that the expected distances lead to."""
    points, unit = _needed("anchors", anchors), _needed("strides", strides)
    distances = expected_value(boxes) * unit.unsqueeze(-1)
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def _sides(goals: Tensor, anchors: Tensor | None, strides: Tensor | None) -> Tensor:
    """The distances from the anchor points to the sides, in strides."""
    points, unit = _needed("anchors", anchors), _needed("strides", strides)
    sides = torch.cat((points - goals[..., :2], goals[..., 2:] - points), -1)
    return sides / unit.unsqueeze(-1)


def _in_regions(regions: Targets, anchors: Tensor | None, logits: Tensor) -> Tensor:
    """``(B, A)``: whether an anchor point lies in a region that is to be ignored."""
    points = _needed("anchors", anchors)
    regions = regions_of(regions, logits)
    points = points.expand(len(logits), -1, -1).unsqueeze(2)
    return _inside(points, regions.unsqueeze(1)).any(-1)


def _needed(name: str, tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError(f"{name}: got None, wanted one for each prediction")
    return real(tensor)


def _check_rows(logits: Tensor, **rows: Tensor | None) -> None:
    """Hold what there is for each prediction to the logits; points may serve all images."""
    for name, tensor in rows.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name}: got {tensor!r}, wanted a tensor with one for each prediction, on "
                f"{logits.device}"
            )
        shape = "A 2" if name == "anchors" else "A"
        alike = name in ("anchors", "strides") and tensor.ndim == len(shape.split())
        wanted = shape if alike else f"B {shape}"
        check_shapes(class_logits=(logits, "B A C"), **{name: (tensor, wanted)})


def _check_strides(strides: Tensor, rows: Tensor) -> None:
    wrong = ~((strides > 0) & (strides < torch.inf)) & rows
    if is_readable(wrong) and wrong.any():
        got = strides.expand_as(wrong)[wrong][0].item()
        raise ValueError(f"strides: got {got}, wanted finite numbers above 0")


def _check_gains(class_gain: float, box_gain: float, dfl_gain: float) -> None:
    check_number("class_gain", class_gain)
    check_number("box_gain", box_gain)
    check_number("dfl_gain", dfl_gain)


def _of_class(class_weight: Tensor | Sequence[float], logits: Tensor) -> Tensor:
    class_weight = as_floats("class_weight", class_weight, logits)
    check_tensors(class_logits=logits, class_weight=class_weight)
    if class_weight.shape != logits.shape[2:]:
        got = tuple(class_weight.shape)
        raise ValueError(f"class_weight: got shape {got}, wanted ({logits.shape[2]},)")
    return widen(class_weight)


class DetectionLoss(LossModule):
    """Module form of :func:`detection_loss`; same options, same defaults."""

    terms_function = staticmethod(detection_terms)

    def __init__(
        self,
        assigner: Callable[..., Assignment] = _TASK_ALIGNED,
        class_loss: TermLoss = binary_cross_entropy,
        box_loss: TermLoss = ciou_loss,
        class_weight: Tensor | Sequence[float] | None = None,
        hard_scores: bool = False,
        class_gain: float = 0.5,
        box_gain: float = 7.5,
        dfl_gain: float = 1.5,
        reduction: Reduction = "mean",
    ) -> None:
        check_reduction(reduction, none=False)
        check_flags(hard_scores=hard_scores)
        _check_gains(class_gain, box_gain, dfl_gain)
        check_parts(_WANTED, assigner=assigner, class_loss=class_loss, box_loss=box_loss)
        if isinstance(class_loss, nn.Module):
            class_loss = reduced("class_loss", class_loss, "sum")
        if isinstance(box_loss, nn.Module):
            box_loss = reduced("box_loss", box_loss, "sum")
        super().__init__(
            assigner=assigner,
            class_loss=class_loss,
            box_loss=box_loss,
            class_weight=per_class(class_weight, "class_weight"),
            hard_scores=hard_scores,
            class_gain=class_gain,
            box_gain=box_gain,
            dfl_gain=dfl_gain,
            reduction=reduction,
        )

    def forward(
        self,
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
    ) -> Tensor:
        """The loss of one batch."""
        return detection_loss(
            class_logits,
            pred_boxes,
            target_boxes,
            target_labels,
            target_mask=target_mask,
            anchors=anchors,
            strides=strides,
            weight=weight,
            ignore_regions=ignore_regions,
            matches=matches,
            match_scores=match_scores,
            **self.options(),
        )

    def terms(self, *predictions_and_targets: Any, **tensors: Any) -> dict[str, Tensor]:
        """What :func:`detection_terms` gives; called as the module is."""
        options = self.options()
        given = sorted(tensors.keys() & options)
        if given:
            raise TypeError(f"terms: got {', '.join(given)}, wanted the module's own")
        gains = ("class_gain", "box_gain", "dfl_gain")
        tensors |= {k: v for k, v in options.items() if k not in gains}
        return detection_terms(*predictions_and_targets, **tensors)
