"""Box regression losses: how far a predicted box is from its target.

    IoU   = I / U                                 I, U, C: intersection, union, enclosing box
    GIoU  loss = 1 - I / U + (C - U) / C

Axes: predictions and targets ``(..., 4)``, aligned row by row.
From: GIoU, Rezatofighi et al., CVPR 2019, arXiv:1902.09630, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, check_box_format, overlap, pull_back, walked
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, reduce
from aptt.core.shapes import check_floating, check_shapes
from aptt.core.streaming import Formula, Work, widen

__all__ = ["GIoULoss", "giou_loss"]


def giou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    box_format: BoxFormat = "xyxy",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalized IoU loss of aligned boxes."""
    return _loss(_GIOU, "giou", pred_boxes, target_boxes, weight, box_format, reduction)


def _loss(
    formula: Formula,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None,
    box_format: BoxFormat,
    reduction: Reduction,
) -> Tensor:
    check_reduction(reduction)
    check_box_format(box_format)
    check_floating(pred_boxes=pred_boxes)
    check_shapes(pred_boxes=(pred_boxes, "*N 4"), target_boxes=(target_boxes, "*N 4"))
    shape = pred_boxes.shape[:-1]
    x, t = pred_boxes.reshape(-1, 4), target_boxes.reshape(-1, 4).to(widen(pred_boxes[:0]).dtype)
    if weight is not None:
        check_shapes(pred_boxes=(pred_boxes, "*N 4"), weight=(weight, "*N"))
        weight = weight.reshape(-1)

    def count() -> Tensor:
        return torch.tensor(len(x), device=x.device) if weight is None else weight.sum()

    loss = reduce(
        formula,
        x,
        t,
        weight=weight,
        count=count,
        reduction=reduction,
        term=term,
        box_format=box_format,
    )
    return loss.reshape(shape) if reduction == "none" else loss


def _giou(x: Tensor, t: Tensor, *, box_format: BoxFormat) -> Tensor:
    o = overlap(x, t, box_format)  # relative to the enclosing box: C = 1
    return (1 - o.iou) + (1 - o.union) + o.flip.sum(0)


def _giou_forward(
    x: Tensor, work: Work, t: Tensor, *, box_format: BoxFormat
) -> tuple[Tensor, tuple[Tensor, ...]]:
    o, meet = walked(x, t, work, box_format)
    loss = torch.rsub(o.iou, 2).sub_(o.union)
    if o.flip is not None:
        loss += o.flip.sum(0)
    if not work.keeps:
        return loss, ()
    per_union = torch.eq(o.union, 0, out=work("per_union", o.union)).add_(o.union).reciprocal_()
    by_area = torch.mul(o.iou, per_union, out=work("by_area", o.iou)).sub_(1)
    slope = torch.empty_like(x)
    pull_back(
        slope,
        o,
        meet,
        work,
        box_format,
        by_area=by_area,
        by_common=per_union.add_(by_area).neg_(),
        by_span=o.union,
    )
    return loss, (slope,)


def _scaled(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    *,
    box_format: BoxFormat,
) -> None:
    # four numbers a box are worth keeping: measuring the boxes again takes longer
    torch.mul(kept[0], up.unsqueeze(-1), out=out)


_GIOU = Formula(_giou, _giou_forward, _scaled)


class GIoULoss(LossModule):
    """Module form of :func:`giou_loss`; same options, same defaults."""

    def __init__(self, box_format: BoxFormat = "xyxy", reduction: Reduction = "mean") -> None:
        check_reduction(reduction)
        check_box_format(box_format)
        super().__init__(box_format=box_format, reduction=reduction)

    def forward(
        self, pred_boxes: Tensor, target_boxes: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return giou_loss(pred_boxes, target_boxes, weight=weight, **self.options())
