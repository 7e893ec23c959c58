"""Efficient IoU: DIoU, and how far width and height are off.

    loss = 1 - I / U + d**2 / c**2 + sum ((w - W) / cw)**2


and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length cw is held.

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; aligned row by row.
From: EIoU, Zhang et al. 2021, arXiv:2101.08158, eq. 6; power, alpha-IoU of He et al. 2021,
arXiv:2110.13675.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, Overlap, change, each
from aptt.core.checks import Numbers
from aptt.core.reduction import Reduction
from aptt.core.slopes import Slopes
from aptt.loss.bbox.distances import distance, pull
from aptt.loss.bbox.family import box_loss, forms
from aptt.loss.bbox.paired import BoxLoss, Normalize

__all__ = ["EIoULoss", "eiou_loss"]


def eiou_loss(
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
    """Efficient IoU loss of aligned boxes.

        loss = 1 - I / U + d**2 / c**2 + sum ((w - W) / cw)**2

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
        The loss, in [0, 4] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 2, 4 or 6, an unknown option, weights that
            are negative or infinite (on CPU); a row that is at fault, with ``validate``, or where
            the loss is above 2 (on CPU): the boxes may have another format.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded; nothing depends on the boxes' scale.

    Use when:
        Width and height should each be pulled to the target's, not only their ratio.

    Elsewhere:
        Not torchvision's or mmdetection's; see below.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.
        mmdetection: its EIoULoss is another loss, the Extended IoU.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(eiou_loss(pred, target).item(), 4)
        0.7436
    """
    return box_loss(
        _FORMS,
        "eiou",
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
    (square,) = each(lambda change: (change.square(),), change(o))
    return distance(o).square, *square


def _slopes(o: Overlap) -> tuple[Tensor, Slopes]:
    # ((w - W) / cw)**2: 2 (w - W) / cw in w / cw, and -2 times itself in the logarithm of cw
    d = pull(o)

    def sloped(change: Tensor, span: Tensor) -> tuple[Tensor, ...]:
        square = change.square()
        return square, 2 * change, torch.add(span, square, alpha=-2)

    square, width, span = each(sloped, change(o), d.slopes.span)
    return reduce(torch.add, square, d.square), d.slopes._replace(span=span, width=width)


_FORMS = forms(_penalties, _slopes)


class EIoULoss(BoxLoss):
    """Module form of :func:`eiou_loss`; same options, same defaults."""

    _function = staticmethod(eiou_loss)
