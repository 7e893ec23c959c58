"""Box regression losses: how far a predicted box is from its target.

    IoU     loss = 1 - I / U                   I, U, C: areas of intersection, union, enclosing box
    GIoU    IoU + (C - U) / C
    DIoU    IoU + d**2 / c**2                  d: distance of the centres; c: diagonal of C
    CIoU    DIoU + a v                         v = (2 / pi * difference of atan(w / h))**2,
                                               a = v / (1 - I / U + v), held constant
    EIoU    DIoU + sum ((w - W) / cw)**2       over both axes; w, W: their lengths
                                               cw: enclosing length
    SIoU    IoU + (sum (1 - exp(-g (d_t / cw)**2)) + sum (1 - exp(-|w - W| / max(w, W)))**4) / 2
                                               g = 2 - 2 |dx dy| / d**2
    power   1 - (I / U)**power + sum penalty**power, of any of them
    ProbIoU sqrt(1 - exp(-B))                  B: Bhattacharyya distance of rotated boxes' Gaussians

and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length is held.

Axes: predictions and targets ``(..., 4)``, rotated ``(..., 5)``, aligned row by row.
From: GIoU, Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1; DIoU and CIoU, Zheng et al.
2020, arXiv:1911.08287, eq. 7 and 8 to 11; EIoU, Zhang et al. 2021, arXiv:2101.08158, eq. 6; SIoU,
Gevorgyan 2022, arXiv:2205.12740, eq. 1 to 16; power, alpha-IoU of He et al. 2021,
arXiv:2110.13675; ProbIoU, Llerena et al. 2021, arXiv:2106.06072, its losses L1 and L2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aptt.core.boxes import (
    BoxFormat,
    Overlap,
    Slopes,
    check_box_format,
    overlap,
    pull_back,
    walked,
)
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, count_positives, reduce
from aptt.core.rotated import bhattacharyya, slant
from aptt.core.shapes import (
    check_boxes,
    check_choice,
    check_floating,
    check_number,
    check_numbers,
    check_pairs,
    check_shapes,
)
from aptt.core.streaming import Formula, Work, widen

__all__ = [
    "BoxIoULoss",
    "CIoULoss",
    "DIoULoss",
    "EIoULoss",
    "GIoULoss",
    "ProbIoULoss",
    "SIoULoss",
    "box_iou_loss",
    "ciou_loss",
    "diou_loss",
    "eiou_loss",
    "giou_loss",
    "probiou_loss",
    "siou_loss",
]


Normalize = Literal["elements", "positives"]


def box_iou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """IoU loss of aligned boxes.

        loss = 1 - I / U

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
        The loss, in [0, 1] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded; nothing depends on the boxes' scale.

    Use when:
        Boxes overlap already. Where they do not, there is no gradient: take another of the family.

    Elsewhere:
        mmdetection ``IoULoss(mode="linear")``.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(box_iou_loss(pred, target).item(), 4)
        0.6667
    """
    return _loss(
        _IOU,
        "box_iou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
    )


def giou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalized IoU loss of aligned boxes.

        loss = 1 - I / U + (C - U) / C

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
        The loss, in [0, 2] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

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
    return _loss(
        _GIOU,
        "giou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
    )


def diou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Distance IoU loss of aligned boxes.

        loss = 1 - I / U + d**2 / c**2

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
        The loss, in [0, 2] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded; nothing depends on the boxes' scale.

    Use when:
        Centres matter, as in crowded scenes; it converges faster than GIoU on boxes inside others.

    Elsewhere:
        torchvision ``distance_box_iou_loss``, mmdetection ``DIoULoss``.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(diou_loss(pred, target).item(), 4)
        0.7436
    """
    return _loss(
        _DIOU,
        "diou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
    )


def ciou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
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
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

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
    return _loss(
        _CIOU,
        "ciou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
        gate=gate,
    )


def eiou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Efficient IoU loss of aligned boxes.

        loss = 1 - I / U + d**2 / c**2 + sum ((w - W) / cw)**2

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
        The loss, in [0, 4] for predictions in order, exactly 0 for equal boxes: a
        scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

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
    return _loss(
        _EIOU,
        "eiou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
    )


def siou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
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
        ValueError: shapes that differ or do not end in 4, an unknown option, with ``validate``
            the row that is at fault.

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
    return _loss(
        _SIOU,
        "siou",
        pred_boxes,
        target_boxes,
        weight,
        box_format,
        power,
        validate,
        normalize,
        reduction,
    )


def probiou_loss(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    *,
    weight: Tensor | None = None,
    distance: Literal["hellinger", "bhattacharyya"] = "hellinger",
    angle: float = 0.0,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Probabilistic IoU loss of aligned rotated boxes: the distance of two Gaussians.

        loss = sqrt(1 - exp(-B)), or B        B: Bhattacharyya distance of N(centre, covariance),
                                              covariance = R diag(w**2, h**2) R' / 12
             + angle * sin(2 turn)**2 * (2 W H / (W**2 + H**2))**2

    Args:
        pred_boxes: ``(..., 5)``: centre, width, height, angle in radians from x towards y; any
            floating dtype, lengths in any unit.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        distance: ``"hellinger"``, from 0 to 1, which saturates for boxes far apart; or
            ``"bhattacharyya"``, without an end, to begin the training with.
        angle: at least 0: weight of a term of our own, because the Gaussian of a square is a
            circle: no distance of Gaussians sees a square turn. The longer the target, the less.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target has a negative size.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, exactly 0 for equal boxes and the same however a box is written (half
        a turn, or a quarter with its sides exchanged): a scalar, or with ``"none"`` the shape
        ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 5, an unknown option, with ``validate``
            the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; it is 0 at
    equal boxes. Times the pair's longest length, gap included, it is bounded: by 2000, and for the
    Bhattacharyya distance, which has no end itself, by 3e9. Nothing depends on the scale.

    Use when:
        Boxes are rotated. The exact overlap of rotated boxes has no such simple gradient.

    Elsewhere:
        ultralytics ``probiou``.

    Differs from:
        ultralytics: equal boxes cost 0 in float32, where an epsilon under a root leaves 4.7e-4;
            no constant is added to the variances; ``angle`` is off unless asked for.
        The paper: sides under 1/1000 of the pair's longest length count as that long, with their
            own slope, so that lines and points stay finite and a negative size grows back.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0, 4.0, 2.0, 0.5]])
        >>> round(probiou_loss(pred, target).item(), 4)
        0.398
    """
    check_choice("distance", distance, ("hellinger", "bhattacharyya"))
    check_number("angle", angle)
    return _loss(
        _PROBIOU,
        "probiou",
        pred_boxes,
        target_boxes,
        weight,
        None,
        1.0,
        validate,
        normalize,
        reduction,
        distance=distance,
        angle=angle,
    )


def _loss(
    formula: Formula,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None,
    box_format: BoxFormat | None,  # None: rotated
    power: float,
    validate: bool,
    normalize: Normalize,
    reduction: Reduction,
    **options: Any,
) -> Tensor:
    _check_options(box_format, power, normalize, reduction)
    check_floating(pred_boxes=pred_boxes)
    numbers = 5 if box_format is None else 4
    check_numbers(target_boxes=target_boxes)
    check_pairs(pred_boxes, target_boxes, numbers)
    x = pred_boxes.reshape(-1, numbers)
    t = target_boxes.reshape(-1, numbers).to(widen(pred_boxes[:0]).dtype)
    if weight is not None:
        check_shapes(pred_boxes=(pred_boxes, f"*N {numbers}"), weight=(weight, "*N"))
        weight = weight.reshape(-1)
    if validate:
        check_boxes(x, t, weight, ordered=box_format == "xyxy")
    if box_format is not None:
        options["box_format"] = box_format
    if power != 1:
        formula, options = _POWERS[formula], {**options, "power": power}
    loss = reduce(
        formula,
        x,
        t,
        weight=weight,
        count=lambda: (
            count_positives(x[:, 0], weight, reduction)
            if normalize == "positives"
            else count_of(x[:, 0], weight)
        ),
        reduction=reduction,
        term=term,
        **options,
    )
    return loss.reshape(pred_boxes.shape[:-1]) if reduction == "none" else loss


Penalties = Callable[..., tuple[Tensor, ...]]
"""What is added to 1 - IoU, each from 0 up."""


def _plain(penalties: Penalties) -> Callable[..., Tensor]:
    def value(
        x: Tensor, t: Tensor, *, box_format: BoxFormat, power: float = 1.0, **options: Any
    ) -> Tensor:
        o = overlap(x, t, box_format)
        loss = 1 - _raised(o.iou, power)
        for penalty in penalties(o, **options):
            loss = loss + _raised(penalty, power)
        return loss if o.flip is None else loss + o.flip.sum(0)

    return value


def _raised(measure: Tensor, power: float) -> Tensor:
    """A power of at least 1; flat at 0, and where rounding leads below it."""
    if power == 1:
        return measure
    some = measure > 0
    return torch.where(some, torch.where(some, measure, 1) ** power, 0)


def _none(o: Overlap) -> tuple[Tensor, ...]:
    return ()


def _giou(o: Overlap) -> tuple[Tensor, ...]:
    return (1 - o.union,)


def _diou(o: Overlap) -> tuple[Tensor, ...]:
    gap, diagonal, _ = _distance(o)
    return (gap.square().sum(0) / diagonal,)


def _ciou(o: Overlap, *, gate: bool) -> tuple[Tensor, ...]:
    _, diagonal, span = _distance(o)
    (w, h), (goal_w, goal_h) = o.width * span, o.goal * span
    turn, run = goal_w * h - goal_h * w, goal_w * w + goal_h * h
    least = _LEAST_SIZE**2 * diagonal.detach()
    size = w.square() + h.square()
    # small boxes: the same value, with the slope of a box of the least size
    small = (size < least) | (goal_w + goal_h == 0)
    slope = (h.detach() * w - w.detach() * h) / torch.maximum(size, least).detach()
    angle = torch.where(
        small,
        torch.atan2(turn.detach(), run.detach()) + (slope.detach() - slope),
        torch.atan2(torch.where(small, 0, turn), torch.where(small, 1, run)),
    )
    v = (2 / math.pi * angle).square()
    return (*_diou(o), _aspect_share(v.detach(), o.iou.detach(), gate) * v)


def _eiou(o: Overlap) -> tuple[Tensor, ...]:
    return (*_diou(o), *(o.width - o.goal).square())


def _siou(o: Overlap) -> tuple[Tensor, ...]:
    gap, _, span = _distance(o)
    far = gap.square().sum(0)
    slant = 2 * (gap[0] * gap[1]).abs() / torch.where(far > 0, far, 1)
    slant = _slowed(slant, far.detach().sqrt())
    reach = gap / torch.where(span > 0, span, 1)
    distance = -torch.expm1((slant - 2) * reach.square())
    longest = torch.maximum(o.width, o.goal)
    change = (o.width - o.goal).abs() / torch.where(longest > 0, longest, 1)
    change = _slowed(change, longest.detach())
    shape = torch.expm1(-change).pow(4)
    return ((distance + shape).sum(0) / 2,)


def _probiou(x: Tensor, t: Tensor, *, distance: str, angle: float) -> Tensor:
    loss = bhattacharyya(x, t)
    if distance == "hellinger":
        some = loss > 0  # the root has no slope at 0
        loss = torch.where(some, -torch.expm1(-torch.where(some, loss, 1)), 1).sqrt()
        loss = torch.where(some, loss, 0)
    return loss + angle * slant(x, t) if angle else loss


def _distance(o: Overlap) -> tuple[Tensor, Tensor, Tensor]:
    """Relative to the longer enclosing length: the gap of the centres, c**2, and both lengths."""
    unit = o.span.detach().amax(0) if len(o.iou) else o.iou
    unit = torch.where(unit > 0, unit, 1)
    gap = (o.lo - o.goal_lo) + (o.hi - o.goal_hi)
    gap = (gap + _lost(o.lo, o.goal_lo) + _lost(o.hi, o.goal_hi)) / (2 * unit)
    span = o.span / unit
    diagonal = span.square().sum(0)
    return gap, torch.where(diagonal > 0, diagonal, 1), span


@torch.no_grad()
def _lost(a: Tensor, b: Tensor) -> Tensor:
    """What rounding takes from ``a - b`` (Knuth): much, where centres of large boxes are near."""
    found = a - b
    back = found - a
    return (a - (found - back)) - (b + back)


def _slowed(measure: Tensor, size: Tensor) -> Tensor:
    """The same value; where ``size`` is small, with the slope of the least size."""
    share = (size / _LEAST_SIZE).clamp(max=1)
    return measure.detach() + share * (measure - measure.detach())


def _aspect_share(v: Tensor, iou: Tensor, gate: bool) -> Tensor:
    """The factor of the aspect term, constant by definition."""
    whole = (1 - iou) + v
    share = v / torch.where(whole > 0, whole, 1)
    return torch.where(iou > 0.5, share, 0) if gate else share


_LEAST_SIZE = 0.01  # of a box, relative to the enclosing one: below it, slopes grow no further


def _by_hand(penalty: Callable[..., None] | None) -> Callable[..., Any]:
    def forward(
        x: Tensor, work: Work, t: Tensor, *, box_format: BoxFormat, **options: Any
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        o, meet, scale = walked(x, t, work, box_format)
        loss = torch.rsub(o.iou, 1)
        if o.flip is not None:
            loss += o.flip.sum(0)
        per_union = torch.eq(o.union, 0, out=work("per_union", loss)).add_(o.union).reciprocal_()
        area = torch.mul(o.iou, per_union, out=work("by_area", loss))
        slopes = Slopes(area, per_union.add_(area).neg_())
        if penalty is not None:
            penalty(loss, o, slopes, work, **options)
        if not work.keeps:
            return loss, ()
        slope = torch.empty_like(x)
        return loss, (pull_back(o, meet, scale, slopes, work, box_format, slope),)

    return forward


def _giou_by_hand(loss: Tensor, o: Overlap, slopes: Slopes, work: Work) -> None:
    loss.add_(1).sub_(o.union)
    slopes.area -= 1
    slopes.common += 1
    slopes.spread = o.union


def _diou_by_hand(loss: Tensor, o: Overlap, slopes: Slopes, work: Work) -> None:
    _add_distance(loss, slopes, work, *_distance_by_hand(o, work))


def _ciou_by_hand(loss: Tensor, o: Overlap, slopes: Slopes, work: Work, *, gate: bool) -> None:
    unit, gap, diagonal, span = _distance_by_hand(o, work)
    (w, h), (goal_w, goal_h) = o.width * span, o.goal * span
    angle = torch.atan2(goal_w * h - goal_h * w, goal_w * w + goal_h * h)
    v = (2 / math.pi * angle).square_()
    share = _aspect_share(v, o.iou, gate)
    size = torch.maximum(w.square() + h.square(), _LEAST_SIZE**2 * diagonal)
    steep = share * angle * (8 / math.pi**2) / (size * unit)
    slopes.width = torch.stack((-h * steep, w * steep))
    loss += share.mul_(v)
    _add_distance(loss, slopes, work, unit, gap, diagonal, span)


def _add_distance(
    loss: Tensor,
    slopes: Slopes,
    work: Work,
    unit: Tensor,
    gap: Tensor,
    diagonal: Tensor,
    span: Tensor,
) -> None:
    far = torch.mul(gap[0], gap[0], out=work("far", loss)).addcmul_(gap[1], gap[1])
    loss += far.div_(diagonal)
    scale = diagonal.mul_(unit).reciprocal_().mul_(2)
    slopes.span = span.mul_(far).mul_(scale).neg_()
    slopes.centre = gap.mul_(scale)


def _distance_by_hand(o: Overlap, work: Work) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`_distance`, in scratch memory."""
    unit = torch.maximum(o.span[0], o.span[1], out=work("longer", o.iou))
    unit += torch.eq(unit, 0, out=work("diagonal", o.iou))
    span = torch.div(o.span, unit, out=work("relative", o.span))
    gap = torch.sub(o.lo, o.goal_lo, out=work("gap", o.lo))
    gap.add_(torch.sub(o.hi, o.goal_hi, out=work("aux", o.lo))).mul_(0.5).div_(unit)
    diagonal = torch.mul(span[0], span[0], out=work("diagonal", o.iou))
    diagonal.addcmul_(span[1], span[1])
    diagonal += torch.eq(diagonal, 0, out=work("none", o.iou))
    return unit, gap, diagonal, span


def _scaled(
    out: Tensor,
    x: Tensor,
    work: Work,
    up: Tensor,
    kept: Sequence[Tensor],
    t: Tensor,
    **options: Any,
) -> None:
    # four numbers a box are worth keeping: measuring the boxes again takes longer
    torch.mul(kept[0], up.unsqueeze(-1), out=out)


_BLOCK = 2**18
_IOU = Formula(_plain(_none), _by_hand(None), _scaled, block=_BLOCK)
_GIOU = Formula(_plain(_giou), _by_hand(_giou_by_hand), _scaled, block=_BLOCK)
_DIOU = Formula(_plain(_diou), _by_hand(_diou_by_hand), _scaled, block=_BLOCK)
_CIOU = Formula(_plain(_ciou), _by_hand(_ciou_by_hand), _scaled, block=_BLOCK)
_EIOU = Formula(_plain(_eiou), block=_BLOCK)
_SIOU = Formula(_plain(_siou), block=_BLOCK)
_PROBIOU = Formula(_probiou, block=_BLOCK)
_POWERS = {  # their slopes are left to autograd
    formula: Formula(formula.value, block=_BLOCK)
    for formula in (_IOU, _GIOU, _DIOU, _CIOU, _EIOU, _SIOU)
}


def _check_options(
    box_format: BoxFormat | None, power: float, normalize: Normalize, reduction: Reduction
) -> None:
    check_reduction(reduction)
    if box_format is not None:
        check_box_format(box_format)
    check_number("power", power, 1.0)
    check_choice("normalize", normalize, ("elements", "positives"))


class _BoxLoss(LossModule):
    _function: Callable[..., Tensor]

    def __init__(
        self,
        box_format: BoxFormat = "xyxy",
        power: float = 1.0,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(box_format, power, normalize, reduction)
        super().__init__(
            box_format=box_format,
            power=power,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return self._function(pred_boxes, target_boxes, weight=weight, **self.options())


class ProbIoULoss(LossModule):
    """Module form of :func:`probiou_loss`; same options, same defaults."""

    def __init__(
        self,
        distance: Literal["hellinger", "bhattacharyya"] = "hellinger",
        angle: float = 0.0,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_choice("distance", distance, ("hellinger", "bhattacharyya"))
        check_number("angle", angle)
        _check_options(None, 1.0, normalize, reduction)
        super().__init__(
            distance=distance,
            angle=angle,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return probiou_loss(pred_boxes, target_boxes, weight=weight, **self.options())


class BoxIoULoss(_BoxLoss):
    """Module form of :func:`box_iou_loss`; same options, same defaults."""

    _function = staticmethod(box_iou_loss)


class GIoULoss(_BoxLoss):
    """Module form of :func:`giou_loss`; same options, same defaults."""

    _function = staticmethod(giou_loss)


class DIoULoss(_BoxLoss):
    """Module form of :func:`diou_loss`; same options, same defaults."""

    _function = staticmethod(diou_loss)


class EIoULoss(_BoxLoss):
    """Module form of :func:`eiou_loss`; same options, same defaults."""

    _function = staticmethod(eiou_loss)


class SIoULoss(_BoxLoss):
    """Module form of :func:`siou_loss`; same options, same defaults."""

    _function = staticmethod(siou_loss)


class CIoULoss(_BoxLoss):
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
        _check_options(box_format, power, normalize, reduction)
        LossModule.__init__(
            self,
            box_format=box_format,
            power=power,
            gate=gate,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )
