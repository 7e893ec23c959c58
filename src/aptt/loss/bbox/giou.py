"""Generalized IoU: IoU, and what the enclosing box holds besides the two.

    loss = 1 - I / U + (C - U) / C     I, U, C: areas of intersection, union, enclosing box
    power  1 - (I / U)**power + ((C - U) / C)**power

and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length cw is held.

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; aligned row by row.
From: GIoU, Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1; power, alpha-IoU of He et al.
2021, arXiv:2110.13675.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, Overlap
from aptt.core.checks import Numbers
from aptt.core.reduction import Reduction
from aptt.core.slopes import Slopes
from aptt.loss.bbox.family import box_loss, forms
from aptt.loss.bbox.paired import BoxLoss, Normalize

__all__ = ["GIoULoss", "giou_loss"]


def giou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalized IoU loss of aligned boxes.

        loss = 1 - I / U + (C - U) / C

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype, in any unit; segments have 2 numbers, cuboids
            6, where an axis more has its place in either half.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        box_format: ``"xyxy"``, ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).
        power: at least 1; IoU and each penalty are raised to it, as alpha-IoU does with 3.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target is inside out.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 2] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 2, 4 or 6, an unknown option, weights that
            are negative or infinite (on CPU); a row that is at fault, with ``validate``, or where
            the loss is above 2 (on CPU): the boxes may have another format.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded; nothing depends on the boxes' scale.

    Use when:
        Boxes may be apart: the enclosing box pulls them together. The usual first choice.

    Elsewhere:
        torchvision ``generalized_box_iou_loss``, fvcore ``giou_loss``, mmdetection ``GIoULoss``.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(giou_loss(pred, target).item(), 4)
        0.6667
    """
    return box_loss(
        _FORMS,
        "giou",
        pred_boxes,
        target_boxes,
        weight=weight,
        box_format=box_format,
        power=power,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
    )


def _penalties(o: Overlap) -> tuple[Tensor, ...]:
    # (C - U) / C: of boxes that meet, the corners that lie in neither: beside one of the two on
    # some axis, and beside the other one on another
    last = len(o.out) - 1
    corners, no_width, no_goal = None, o.off[last], o.out[last]  # 1 - P, 1 - G of the axes so far
    for axis in range(last - 1, -1, -1):
        beside = torch.addcmul(o.out[axis] * no_width, o.off[axis], no_goal)
        corners = beside if corners is None else torch.addcmul(beside, o.common[axis], corners)
        if axis > 0:
            no_width = torch.addcmul(o.off[axis], o.width[axis], no_width)
            no_goal = torch.addcmul(o.out[axis], o.goal[axis], no_goal)
    if corners is None:  # segments that meet leave nothing
        corners = torch.zeros_like(o.union)
    meet = reduce(torch.minimum, o.met) >= 0
    return (torch.where(meet, corners, 1 - o.union),)


def _slopes(o: Overlap) -> tuple[Tensor, Slopes]:
    # 1 - U / C with U = P + G - I; U / C falls as a span grows
    return _penalties(o)[0], Slopes(area=-1.0, common=1.0, spread=o.union)


_FORMS = forms(_penalties, _slopes)


class GIoULoss(BoxLoss):
    """Module form of :func:`giou_loss`; same options, same defaults."""

    _function = staticmethod(giou_loss)
