"""SCYLLA IoU: IoU, the centres' distance by the angle it is seen at, and the shape.

    loss = 1 - I / U + (distance + shape) / 2            I, U: areas of intersection and union
    distance = sum (1 - exp(-g (dx / cw)**2))            dx: distance of the centres, per axis
    shape = sum (1 - exp(-|w - W| / max(w, W)))**4       w, W: their lengths
    g = 2 - 2 |dx dy| / d**2                             cw: enclosing length; d: both distances
    power  1 - (I / U)**power + ((distance + shape) / 2)**power

and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length cw is held.

Axes: predictions and targets ``(..., 4)``, aligned row by row.
From: SIoU, Gevorgyan 2022, arXiv:2205.12740, eq. 1 to 16; power, alpha-IoU of He et al. 2021,
arXiv:2110.13675.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat, Overlap, change, each
from aptt.core.checks import Numbers
from aptt.core.exponential import rise
from aptt.core.reduction import Reduction
from aptt.loss.bbox.family import box_loss, forms, slowed
from aptt.loss.bbox.paired import BoxLoss, Normalize

__all__ = ["SIoULoss", "siou_loss"]


def siou_loss(
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
    """SCYLLA IoU loss of aligned boxes: distance by angle, and shape.

        loss = 1 - I / U + (distance + shape) / 2

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype, in any unit.
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
        The loss, in [0, 3] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown option, weights that are
            negative or infinite (on CPU); a row that is at fault, with ``validate``, or where the
            loss is above 2 (on CPU): the boxes may have another format.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded; nothing depends on the boxes' scale.

    Use when:
        Boxes should reach their target along an axis first.

    Elsewhere:
        mmdetection ``SIoULoss(neg_gamma=True)``.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.
        All: lengths and distances under 1/100 of the enclosing length take the slope of the shape
            and angle terms at that size (their values are exact), which bounds it.
        mmdetection: its default has the sign of the exponent reversed, and falls with distance.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(siou_loss(pred, target).item(), 4)
        0.7663
    """
    return box_loss(
        _FORMS,
        "siou",
        pred_boxes,
        target_boxes,
        weight=weight,
        box_format=box_format,
        power=power,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
        plane="an angle is that of two distances",
    )


def _penalties(o: Overlap) -> tuple[Tensor, ...]:
    longer = torch.threshold(torch.maximum(o.span[0], o.span[1]).detach(), 0.0, 1.0)

    def seen(*edges: Tensor) -> tuple[Tensor, ...]:
        low, high, goal_low, goal_high, before, behind, unit = edges
        gap = before + behind
        gap = (gap + _lost(low, goal_low) + _lost(high, goal_high)) / 2
        return gap / longer, gap / unit

    gap, reach = each(seen, *o[:4], o.before, o.behind, o.unit)
    far = gap[0].square() + gap[1].square()
    slant = 2 * (gap[0] * gap[1]).abs() / torch.threshold(far, 0.0, 1.0)
    slant = slowed(slant, far.detach().sqrt())

    def costs(reach: Tensor, width: Tensor, goal: Tensor, change: Tensor) -> tuple[Tensor, ...]:
        distance = rise((2 - slant) * reach.square())
        longest = torch.maximum(width, goal)
        relative = change.abs() / torch.threshold(longest, 0.0, 1.0)
        shape = rise(slowed(relative, longest.detach())).pow(4)
        return (distance + shape,)

    (cost,) = each(costs, reach, o.width, o.goal, change(o))
    return ((cost[0] + cost[1]) / 2,)


_FORMS = forms(_penalties, None)


@torch.no_grad()
def _lost(a: Tensor, b: Tensor) -> Tensor:
    """What rounding takes from ``a - b`` (Knuth): the angle, where centres of boxes are near."""
    found = a - b
    back = found - a
    return (a - (found - back)) - (b + back)


class SIoULoss(BoxLoss):
    """Module form of :func:`siou_loss`; same options, same defaults."""

    _function = staticmethod(siou_loss)
