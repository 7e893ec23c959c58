"""Complete IoU: DIoU, and how far the aspect ratio is off.

    loss = 1 - I / U + d**2 / c**2 + a v    I, U, C: areas of intersection, union, enclosing box
                                            d: distance of the centres; c: diagonal of C
                                            v = (2 / pi * difference of atan(w / h))**2
                                            a = v / (1 - I / U + v), held constant
    power  1 - (I / U)**power + (d / c)**(2 power) + (a v)**power

and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length cw is held.

Axes: predictions and targets ``(..., 4)``, aligned row by row.
From: CIoU, Zheng et al. 2020, arXiv:1911.08287, eq. 8 to 11; power, alpha-IoU of He et al. 2021,
arXiv:2110.13675.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.boxes import Axes, BoxFormat, Overlap, against_each_other, change, each, once
from aptt.core.checks import Numbers, check_flags
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.core.slopes import Slopes
from aptt.loss.bbox.distances import distance, pull
from aptt.loss.bbox.family import LEAST_SIZE, box_loss, forms, slowed
from aptt.loss.bbox.paired import BoxLoss, Normalize, check_options

__all__ = ["CIoULoss", "ciou_loss"]

_NOTHING = 1e-30  # the product of two sides, relative to the enclosing box


def ciou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    gate: bool = False,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Complete IoU loss of aligned boxes.

        loss = 1 - I / U + d**2 / c**2 + a v

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype, in any unit.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        box_format: ``"xyxy"``, ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).
        power: at least 1; IoU and each penalty are raised to it, as alpha-IoU does with 3.
        gate: apply the aspect term only where IoU is above 1/2, as the later paper does.
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
        As DIoU, and the aspect ratio matters too.

    Elsewhere:
        torchvision ``complete_box_iou_loss``, mmdetection ``CIoULoss``.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.
        All: boxes under 1/100 of the enclosing diagonal take the slope of the aspect term at that
            size (its value is exact), which bounds it by 130 over the diagonal.
        mmdetection: equal boxes give 0, not NaN; ``gate=True`` there; no clamp at 2.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(ciou_loss(pred, target).item(), 4)
        0.7436
    """
    check_flags(gate=gate)
    return box_loss(
        _FORMS,
        "ciou",
        pred_boxes,
        target_boxes,
        weight=weight,
        box_format=box_format,
        power=power,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
        plane="an aspect ratio is that of two sides",
        gate=gate,
    )


def _penalties(o: Overlap, *, gate: bool) -> tuple[Tensor, ...]:
    d = distance(o)
    sides = _sides(o, d.sides)
    w, h = sides[:2]
    size = w.square() + h.square()
    angle = _angle(*sides)
    angle = slowed(angle, (size / (LEAST_SIZE * d.diagonal)).detach())
    v = (2 / math.pi * angle).square()
    return d.square, _share(v.detach(), o.miss.detach(), gate) * v


def _slopes(o: Overlap, *, gate: bool) -> tuple[Tensor, Slopes]:
    # v = (2 / pi angle)**2, and the angle turns by -h / (w**2 + h**2) in w, by w / ... in h:
    # times w and h, that is an area that shrinks in w and grows in h
    d = pull(o)
    sides = _sides(o, d.sides)
    w, h = sides[:2]
    turn, run = _turn(*sides)
    turn = torch.ops.aten.threshold_backward(turn, turn.abs() + run, _NOTHING)
    angle = torch.atan2(turn, run)
    v = angle.square().mul_(4 / math.pi**2)
    share = _share(v, o.miss, gate)
    size = torch.addcmul(w.square(), h, h).clamp(min=LEAST_SIZE**2)
    steep = (share * angle).div_(size).mul_(d.sides[0]).mul_(d.sides[1])
    slopes = d.slopes._replace(
        turn=lambda area: against_each_other(area, steep, 8 / math.pi**2),
    )
    return torch.addcmul(d.square, share, v), slopes


_FORMS = forms(_penalties, _slopes)


def _sides(o: Overlap, sides: Axes) -> tuple[Tensor, ...]:
    """Width and height of both boxes, and how they differ, in the unit of the enclosing sides."""

    def scaled(width: Tensor, goal: Tensor, change: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        return once(width * side), once(goal * side), change * side

    own, goal, less = each(scaled, o.width, o.goal, change(o), sides)
    return own[0], own[1], goal[0], goal[1], less[0], less[1]


def _turn(
    w: Tensor, h: Tensor, goal_w: Tensor, goal_h: Tensor, change_w: Tensor, change_h: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross and dot product of the two diagonals: how far one is turned from the other."""
    # two products that are rounded alike: of a point it is an exact 0
    turn = goal_w * change_h - goal_h * change_w
    return turn, torch.addcmul(goal_w * w, goal_h, h)


def _angle(*sides: Tensor) -> Tensor:
    """atan(goal_w / goal_h) - atan(w / h), 0 of a point: it has no aspect; of equal boxes too."""
    turn, run = _turn(*sides)
    large = turn.detach().abs() + run.detach()
    unit = torch.threshold(large, _NOTHING, 1.0)  # without which squares vanish in the gradient
    return torch.atan2(turn / unit, (run + (unit - large)) / unit)


def _share(v: Tensor, miss: Tensor, gate: bool) -> Tensor:
    """The factor of the aspect term, constant by definition."""
    share = v / torch.threshold(miss + v, 0.0, 1.0)
    return torch.where(miss < 0.5, share, 0.0) if gate else share


class CIoULoss(BoxLoss):
    """Module form of :func:`ciou_loss`; same options, same defaults."""

    _function = staticmethod(ciou_loss)

    def __init__(
        self,
        box_format: BoxFormat = "xyxy",
        power: float = 1.0,
        gate: bool = False,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(box_format, power, normalize, reduction)
        check_flags(gate=gate, validate=validate)
        LossModule.__init__(
            self,
            box_format=box_format,
            power=power,
            gate=gate,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )
