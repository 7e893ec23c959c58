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
from typing import Any

from torch import Tensor, nn

from aptt.core.boxes import BoxFormat, check_box_format
from aptt.core.checks import check_flags, check_number
from aptt.core.module import LossModule, per_class, reduced
from aptt.core.reduction import Reduction, check_reduction
from aptt.core.targets import Targets, TermLoss, check_parts
from aptt.loss.bbox import ciou_loss
from aptt.loss.classification import binary_cross_entropy
from aptt.loss.detection.options import WANTED, check_classes_of
from aptt.loss.detection.terms import TASK_ALIGNED, detection_terms
from aptt.loss.matching import Assignment

__all__ = ["DetectionLoss", "detection_loss"]


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
    class_mask: Tensor | None = None,
    assigner: Callable[..., Assignment] = TASK_ALIGNED,
    class_loss: TermLoss = binary_cross_entropy,
    box_loss: TermLoss = ciou_loss,
    class_weight: Tensor | Sequence[float] | None = None,
    hard_scores: bool = False,
    no_object: float | None = None,
    box_format: BoxFormat = "xyxy",
    class_gain: float = 0.5,
    box_gain: float = 7.5,
    dfl_gain: float = 1.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """Classes, boxes and distances of a dense or a matched detector, as one loss.

        loss = class_gain * class + box_gain * box + dfl_gain * dfl

    Args:
        class_logits: ``(B, A, C)``, a yes-or-no question for each class, so background is no class;
            with ``no_object`` ``(B, A, C + 1)``, which ends in it.
        pred_boxes: ``(B, A, 4)`` in any unit; or rotated ``(B, A, 5)``, as ``probiou_loss`` has
            them; or ``(B, A, 4, bins)`` logits of the distances to the left, top, right, bottom,
            from 0 to ``bins - 1`` strides. NaN in one that the assigner was to choose from, and
            that counts, makes the loss NaN.
        target_boxes: ``(B, M, 4)``, or 5, in the same unit, or a list of ``(M_i, 4)`` by image.
        target_labels: ``(B, M)`` class indices; or ``(B, M, C)`` from 0 to 1, how far each class is
            the target's, of which it may have several, or none: its class is not known then, and
            its predictions are told nothing of it. Or lists by image.
        target_mask: ``(B, M)``, which of the padded targets there are; None: all but those of
            label -1.
        anchors: ``(A, 2)`` or ``(B, A, 2)``, the point of each prediction, in the boxes' unit; or
            ``(A, 4)``, its prior box, whose centre is its point. For the assigner, for
            distributions and for ``ignore_regions``.
        strides: ``(A,)`` or ``(B, A)``, the unit of the distances; for distributions, and for
            assigners that ask for them.
        weight: ``(B, A)``, one per prediction; multiplies and is counted, and 0 removes it.
        ignore_regions: ``(B, K, 4)`` boxes, or a list by image: background whose anchor point
            lies in one of them does not count. Zeros serve as padding.
        matches: ``(B, A)``, instead of the assigner, where predictions are matched already: the
            index of the target, -1 for background, -2 for what does not count.
        match_scores: ``(B, A)`` in [0, 1], the target score of each match; None: 1.
        class_mask: ``(B, C)``, which classes an image was annotated for; the others do not count.
        assigner: a :class:`TaskAlignedAssigner`, or a callable of the same arguments that gives
            an :class:`Assignment`, held to what ``matches`` may be. It is given boxes as corners,
            and with ``no_object`` the log-odds of the classes (a :class:`HungarianMatcher` of
            softmax costs: the logits). One with the attribute
            ``needs_anchors = False``, such as :class:`HungarianMatcher`, is called without anchors
            where there are none.
        class_loss: a loss, or its module form, ``(logits, scores, *, weight, reduction)``; of a
            module the options are taken, but for its reduction. ``focal_loss`` wants
            ``hard_scores`` or matches without scores.
        box_loss: the same, ``(pred_boxes, target_boxes, *, weight, reduction)`` on corners.
        class_weight: ``(C,)``, or a list; multiplies the class values of a class, and all that its
            targets count for; of several classes their mean.
        hard_scores: give every positive the target score 1, and so all of them the same weight.
        no_object: the weight of background, where the classes are those of a softmax: the class
            term is cross-entropy then, over the sum of the weights that took part; what its score
            leaves of a positive is background's. ``class_loss`` is left alone.
        box_format: how boxes of four numbers are written: predictions, targets, prior boxes and
            regions. ``box_loss`` is given corners.
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
        class_mask=class_mask,
        assigner=assigner,
        class_loss=class_loss,
        box_loss=box_loss,
        class_weight=class_weight,
        hard_scores=hard_scores,
        no_object=no_object,
        box_format=box_format,
        reduction=reduction,
    )
    loss = class_gain * terms["class"] + box_gain * terms["box"]
    return loss + dfl_gain * terms["dfl"] if "dfl" in terms else loss


def _check_gains(class_gain: float, box_gain: float, dfl_gain: float) -> None:
    check_number("class_gain", class_gain)
    check_number("box_gain", box_gain)
    check_number("dfl_gain", dfl_gain)


class DetectionLoss(LossModule):
    """Module form of :func:`detection_loss`; same options, same defaults."""

    terms_function = staticmethod(detection_terms)

    def __init__(
        self,
        assigner: Callable[..., Assignment] = TASK_ALIGNED,
        class_loss: TermLoss = binary_cross_entropy,
        box_loss: TermLoss = ciou_loss,
        class_weight: Tensor | Sequence[float] | None = None,
        hard_scores: bool = False,
        no_object: float | None = None,
        box_format: BoxFormat = "xyxy",
        class_gain: float = 0.5,
        box_gain: float = 7.5,
        dfl_gain: float = 1.5,
        reduction: Reduction = "mean",
    ) -> None:
        check_reduction(reduction, none=False)
        check_flags(hard_scores=hard_scores)
        _check_gains(class_gain, box_gain, dfl_gain)
        check_parts(WANTED, assigner=assigner, class_loss=class_loss, box_loss=box_loss)
        check_classes_of(no_object, class_loss)
        check_box_format(box_format)
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
            no_object=no_object,
            box_format=box_format,
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
        class_mask: Tensor | None = None,
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
            class_mask=class_mask,
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
