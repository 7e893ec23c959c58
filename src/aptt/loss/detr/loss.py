"""Set loss of a detector: each object is one query's, and every other query says "nothing".

    class   sum of class_loss(logits, target) / N          target: 1 at the class of a match, or u
            sum of w CE(logits, class or no-object) / sum of w      with a no-object class
    l1      sum of |b - b_m|_1 / N                         of the matched, as boxes are written
    box     sum of box_loss(b, b_m) / N                    of the matched
    loss    class_gain class + l1_gain l1 + box_gain box, added up over layers
                                                           N = number of objects, at least 1
    u       IoU of a match, held constant                  w = 1 for a match, no_object else

Axes: class logits ``(B, Q, C)`` for B images, Q queries, C classes, boxes ``(B, Q, 4)``; or
``(L, B, Q, ...)`` for L layers of a decoder; targets ``(B, M, 4)`` and ``(B, M)``, or lists.
From: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, arXiv:2005.12872,
eq. 2 and section 3.1; independent classes with focal loss, Deformable DETR, arXiv:2010.04159.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from aptt.core.boxes import BoxFormat
from aptt.core.checks import check_number
from aptt.core.module import LossModule, per_class, reduced
from aptt.core.reduction import Reduction
from aptt.core.targets import Targets, TermLoss
from aptt.loss.bbox import giou_loss
from aptt.loss.detr.options import Quality, check_options
from aptt.loss.detr.queries import Matcher
from aptt.loss.detr.terms import detr_terms, summed_terms
from aptt.loss.focal import focal_loss

__all__ = ["DETRLoss", "detr_loss"]


def detr_loss(
    class_logits: Tensor,
    pred_boxes: Tensor,
    target_boxes: Targets,
    target_labels: Targets,
    *,
    target_mask: Tensor | None = None,
    matches: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_regions: Targets | None = None,
    matcher: Matcher | None = None,
    class_loss: TermLoss = focal_loss,
    quality: Quality | None = None,
    no_object: float | None = None,
    box_loss: TermLoss = giou_loss,
    layer_weight: Tensor | Sequence[float] | None = None,
    groups: int = 1,
    normalize: Literal["targets", "matches"] = "targets",
    box_format: BoxFormat = "cxcywh",
    class_gain: float = 1.0,
    l1_gain: float = 5.0,
    box_gain: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Classes and boxes of a set of queries, each object matched with one of them.

        loss = class_gain * class + l1_gain * l1 + box_gain * box

    Args:
        class_logits: ``(B, Q, C)``, a yes-or-no question for each class, or with ``no_object`` of a
            softmax whose last class is no-object; ``(L, B, Q, C)`` for the layers of a decoder.
        pred_boxes: ``(B, Q, 4)`` or ``(L, B, Q, 4)``, as parts of the image. One that is not
            finite, and that the matcher was to choose from, makes the loss NaN or infinite.
        target_boxes: ``(B, M, 4)``, or a list of ``(M_i, 4)`` by image.
        target_labels: ``(B, M)`` class indices, or a list of ``(M_i,)`` by image.
        target_mask: ``(B, M)``, which of the padded targets there are; None: all but those of
            label -1.
        matches: ``(B, Q)`` for all layers, or ``(L, B, Q)``, instead of the matcher: the index of
            the target, -1 for none, -2 for what does not count. Of denoising queries
            ``denoising_matches`` gives them, of D-FINE ``union_matches``.
        weight: ``(B, Q)`` or ``(L, B, Q)``, one per query; multiplies, and 0 removes it, so that it
            is not matched either. ``normalize="matches"`` counts it.
        ignore_regions: ``(B, K, 4)``, or a list by image, written as boxes are: a query without a
            target, half of whose own area lies in one of them, does not count. Zeros are padding.
        matcher: a :class:`HungarianMatcher`, or a callable of the same arguments; None: with the
            published costs, of a softmax with ``no_object``, and focal else.
        class_loss: a loss, or its module form, ``(logits, target, *, weight, reduction)``; with
            ``quality`` also ``positive``.
        quality: ``"iou"``: the target of a match is its IoU, held constant, in place of 1, for
            ``varifocal_loss`` and its like.
        no_object: the weight of queries without a target, 0.1 as a rule: classes are then a
            softmax, with cross-entropy, and the class term is a mean by these weights.
        box_loss: a loss, or its module form, ``(boxes, target_boxes, *, weight, reduction)`` on
            corners.
        layer_weight: ``(L,)``, or a list: factors of the layers; None: 1.
        groups: the queries are so many groups, each matched by itself, and each counts.
        normalize: what terms are divided by: the ``"targets"`` there are, times ``groups``, or the
            ``"matches"`` by weight. Of both, at least 1 for the mean; over layers, their mean.
        box_format: how all boxes are written; L1 is between these numbers.
        class_gain: factor of the class term: 2 in Deformable DETR, 1 in DINO, DETR and RT-DETR.
        l1_gain: factor of the L1 distance.
        box_gain: factor of the box term.
        reduction: ``"mean"`` over the count, ``"sum"``, or a callable ``(total, count, *, term)``,
            called with each term, and its count as it is.

    Returns:
        The loss, a scalar; float32, unless both predictions are float64. :func:`detr_terms` has its
        terms, by layer.

    Raises:
        ValueError: shapes that do not fit, an unknown option, a ``class_loss`` beside
            ``no_object``; on CPU, labels and matches out of range, target boxes that are not
            finite or of a size below 0, boxes in pixels; more targets than queries.
        TypeError: predictions that are not floating, labels and matches that are no integers.

    The gradient goes to ``class_logits`` and ``pred_boxes``, and to target boxes and weights that
    ask for it. Matches and qualities are constants. Without any target the class term still
    penalises what is seen, and the others are 0 with a gradient of 0. The host waits once, for the
    matcher.

    Encoder outputs and denoising queries are calls of their own, whose losses are added: so a
    matcher never sees a denoising query. The number of targets is known before the forward:
    ``count_ahead(batches, lambda b: b["mask"].sum(), kind="positives")`` of ``aptt.parallel``.

    Use when:
        DETR and what follows it: a set of queries, without anchors and without suppression. One
        target each is few; ``groups`` and denoising queries are the usual cures.

    Elsewhere:
        ``SetCriterion`` in detr, Deformable DETR, DINO and RT-DETR; in transformers the ``loss`` of
        ``DetrForObjectDetection`` and its relatives.

    Differs from:
        detr: the mean by weight of a softmax is over all ranks with a shared normalizer, not of
            each; crowds can be ignored.
        transformers: the count of all ranks is not divided by their number twice.
        DINO, RT-DETR: denoising queries made from padding do not count.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, -1.0], [0.0, 0.0], [-1.0, 1.0]]])
        >>> boxes = torch.tensor([[[0.2, 0.2, 0.4, 0.4], [0.5, 0.5, 1, 1], [0.8, 0.8, 0.4, 0.4]]])
        >>> targets, labels = [boxes[0, [0, 2]]], [torch.tensor([0, 1])]
        >>> round(detr_loss(logits, boxes, targets, labels).item(), 4)
        0.15
    """
    _check_gains(class_gain, l1_gain, box_gain)
    terms = summed_terms(
        class_logits,
        pred_boxes,
        target_boxes,
        target_labels,
        target_mask=target_mask,
        matches=matches,
        weight=weight,
        ignore_regions=ignore_regions,
        matcher=matcher,
        class_loss=class_loss,
        quality=quality,
        no_object=no_object,
        box_loss=box_loss,
        layer_weight=layer_weight,
        groups=groups,
        normalize=normalize,
        box_format=box_format,
        reduction=reduction,
    )
    return class_gain * terms["class"] + l1_gain * terms["l1"] + box_gain * terms["box"]


def _check_gains(class_gain: float, l1_gain: float, box_gain: float) -> None:
    check_number("class_gain", class_gain)
    check_number("l1_gain", l1_gain)
    check_number("box_gain", box_gain)


class DETRLoss(LossModule):
    """Module form of :func:`detr_loss`; same options, same defaults."""

    terms_function = staticmethod(detr_terms)

    def __init__(
        self,
        matcher: Matcher | None = None,
        class_loss: TermLoss = focal_loss,
        quality: Quality | None = None,
        no_object: float | None = None,
        box_loss: TermLoss = giou_loss,
        layer_weight: Tensor | Sequence[float] | None = None,
        groups: int = 1,
        normalize: Literal["targets", "matches"] = "targets",
        box_format: BoxFormat = "cxcywh",
        class_gain: float = 1.0,
        l1_gain: float = 5.0,
        box_gain: float = 2.0,
        reduction: Reduction = "mean",
    ) -> None:
        _check_gains(class_gain, l1_gain, box_gain)
        check_options(
            matcher,
            class_loss,
            quality,
            no_object,
            box_loss,
            groups,
            normalize,
            box_format,
            reduction,
        )
        if isinstance(class_loss, nn.Module):
            class_loss = reduced("class_loss", class_loss, "sum")
        if isinstance(box_loss, nn.Module):
            box_loss = reduced("box_loss", box_loss, "sum")
        super().__init__(
            matcher=matcher,
            class_loss=class_loss,
            quality=quality,
            no_object=no_object,
            box_loss=box_loss,
            layer_weight=per_class(layer_weight, "layer_weight"),
            groups=groups,
            normalize=normalize,
            box_format=box_format,
            class_gain=class_gain,
            l1_gain=l1_gain,
            box_gain=box_gain,
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
        matches: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_regions: Targets | None = None,
    ) -> Tensor:
        """The loss of one batch."""
        return detr_loss(
            class_logits,
            pred_boxes,
            target_boxes,
            target_labels,
            target_mask=target_mask,
            matches=matches,
            weight=weight,
            ignore_regions=ignore_regions,
            **self.options(),
        )
