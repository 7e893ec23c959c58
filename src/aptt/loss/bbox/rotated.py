"""Rotated IoU and GIoU: how much of their union two turned boxes have in common, exactly.

    loss  = 1 - I / U                  I, U: areas of intersection and union
    giou  = 1 - I / U + (C - U) / C    C: area of the hull, the least convex shape about both

of rotated boxes; of cuboids turned about z, volumes: C is the hull times what both span in z.

Axes: predictions and targets ``(..., 5)``, of cuboids ``(..., 7)``, aligned row by row.
From: GIoU, Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_flags
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.polygons import Meeting
from aptt.core.reduction import Reduction
from aptt.core.turned import turned
from aptt.loss.bbox.paired import BLOCK, Normalize, check_options, paired_loss

__all__ = ["RotatedGIoULoss", "RotatedIoULoss", "rotated_giou_loss", "rotated_iou_loss"]

_NUMBERS = 5, 7


def rotated_iou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """IoU loss of aligned rotated boxes, by their exact intersection.

        loss = 1 - I / U

    Args:
        pred_boxes: ``(..., 5)``: centre, width, height, angle in radians from x towards y; or of
            cuboids turned about z ``(..., 7)``: centre, three sizes, angle. Any floating dtype,
            lengths in any unit.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target has a negative size.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1], exactly 0 for equal boxes, exactly 1 for boxes that lie side by side,
        and the same however a box is written (half a turn, or a quarter with its sides exchanged):
        a scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 5 or 7, an unknown option, weights that are
            negative or infinite (on CPU), with ``validate`` the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; it is 0 at
    equal boxes, to rounding. Times the longest side it is bounded by 4000. Nothing depends on the
    scale.

    Use when:
        Rotated boxes overlap already, and their IoU is what you are measured by. Where they do not,
        there is no gradient: take ``rotated_giou_loss``, or ``probiou_loss``, which is smooth.

    Elsewhere:
        mmcv ``diff_iou_rotated_2d`` and ``diff_iou_rotated_3d``, mmrotate ``RotatedIoULoss``.

    Differs from:
        mmcv, Rotated_IoU: no corner is lost or doubled where sides lie on each other, which gives
            them 56 for an intersection of 48, and IoU above 1; no tolerance, no sorting.
        The definition: sides under 1/1000 of the pair's longest, or a millionth of the gap, count
            as that long, with their own slope, so that lines and points stay finite and a negative
            size grows back. A height of cuboids that is negative costs as much as it is turned.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0, 4.0, 2.0, 0.5]])
        >>> round(rotated_iou_loss(pred, target).item(), 4)
        0.5432
    """
    return _loss(
        _IOU,
        "rotated_iou",
        pred_boxes,
        target_boxes,
        weight=weight,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
    )


def rotated_giou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalized IoU loss of aligned rotated boxes, by their exact intersection and hull.

        loss = 1 - I / U + (C - U) / C

    Args:
        pred_boxes: ``(..., 5)``: centre, width, height, angle in radians from x towards y; or of
            cuboids turned about z ``(..., 7)``: centre, three sizes, angle. Any floating dtype,
            lengths in any unit.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target has a negative size.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 2], exactly 0 for equal boxes, and the same however a box is written (half
        a turn, or a quarter with its sides exchanged): a scalar, or with ``"none"`` the shape
        ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 5 or 7, an unknown option, weights that are
            negative or infinite (on CPU), with ``validate`` the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; it is 0 at
    equal boxes, to rounding. Times the longest side it is bounded by 4000. Nothing depends on the
    scale.

    Use when:
        Rotated boxes may be apart: the hull pulls them together.

    Elsewhere:
        Rotated_IoU ``cal_giou``.

    Differs from:
        Rotated_IoU: C is the convex hull, as the paper has it, and not a box about both; and see
            :func:`rotated_iou_loss`.
        giou_loss: of boxes along the axes, too, the hull is less than the box that encloses them,
            where they are apart in both.
        The definition: sides under 1/1000 of the pair's longest, or a millionth of the gap, count
            as that long, with their own slope, so that lines and points stay finite and a negative
            size grows back. A height of cuboids that is negative costs as much as it is turned.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0, 4.0, 2.0, 0.5]])
        >>> round(rotated_giou_loss(pred, target).item(), 4)
        0.7126
    """
    return _loss(
        _GIOU,
        "rotated_giou",
        pred_boxes,
        target_boxes,
        weight=weight,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
    )


def _loss(
    formula: Formula,
    term: str,
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None,
    validate: bool,
    normalize: Normalize,
    reduction: Reduction,
) -> Tensor:
    check_options(None, 1.0, normalize, reduction)
    return paired_loss(
        formula,
        term,
        pred_boxes,
        target_boxes,
        numbers=_NUMBERS,
        weight=weight,
        validate=validate,
        ordered=False,
        normalize=normalize,
        reduction=reduction,
    )


def _iou(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    m, flip = turned(x, t)
    loss = _missed(m)
    return loss if flip is None else loss + flip


def _giou(x: Tensor, kept: Kept, t: Tensor) -> Tensor:
    m, flip = turned(x, t)
    # (C - U) / C, by whichever of the two has the digits, and the slope
    union, hull = m.goal + m.outside, m.goal + m.beyond
    empty = torch.where(2 * union > hull, (m.beyond - m.outside) / hull, 1 - union / hull)
    loss = _missed(m) + empty
    return loss if flip is None else loss + flip


def _missed(m: Meeting) -> Tensor:
    """1 - I / U, by whichever of the two has the digits."""
    missed, union = m.outside + m.missing, torch.threshold(m.goal + m.outside, 0.0, 1.0)
    return torch.where(missed < m.inside, missed / union, 1 - m.inside / union)


_IOU = Formula(_iou, ahead=True, block=BLOCK)
_GIOU = Formula(_giou, ahead=True, block=BLOCK)


class RotatedIoULoss(LossModule):
    """Module form of :func:`rotated_iou_loss`; same options, same defaults."""

    def __init__(
        self,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(None, 1.0, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(validate=validate, normalize=normalize, reduction=reduction)

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return rotated_iou_loss(pred_boxes, target_boxes, weight=weight, **self.options())


class RotatedGIoULoss(LossModule):
    """Module form of :func:`rotated_giou_loss`; same options, same defaults."""

    def __init__(
        self,
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(None, 1.0, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(validate=validate, normalize=normalize, reduction=reduction)

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return rotated_giou_loss(pred_boxes, target_boxes, weight=weight, **self.options())
