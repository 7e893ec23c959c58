"""IoU: how much of their union two boxes have in common.

    loss = 1 - I / U             I, U: areas of intersection and union
    square 1 - (I / U)**2
    log    -log(I / U)           as a line below I / U = 1e-6
    power  1 - (I / U)**power

and, for a prediction turned inside out, how far: ``sum max(lo - hi, 0) / cw``. Along an axis that
is turned, that alone has a slope: the enclosing length cw is held.

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; aligned row by row.
From: log, UnitBox, Yu et al. 2016, arXiv:1608.01471, its IoU loss; power, alpha-IoU of He et al.
2021, arXiv:2110.13675.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from aptt.core.boxes import BoxFormat, Overlap
from aptt.core.checks import Numbers, check_choice, check_flags, check_number
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.core.slopes import Slopes
from aptt.loss.bbox.family import LEAST_IOU, box_loss, forms
from aptt.loss.bbox.paired import BoxLoss, Normalize, check_options

__all__ = ["BoxIoULoss", "box_iou_loss"]

Kind = Literal["linear", "square", "log"]


def box_iou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    box_format: BoxFormat = "xyxy",
    power: float = 1.0,
    kind: Kind = "linear",
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """IoU loss of aligned boxes.

        loss = 1 - I / U, or 1 - (I / U)**2, or -log(I / U)

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype, in any unit; segments have 2 numbers, cuboids
            6, where an axis more has its place in either half.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        box_format: ``"xyxy"``, ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).
        power: at least 1; IoU is raised to it, as alpha-IoU does with 3. Of the linear kind alone.
        kind: ``"linear"``; ``"square"``, which is power 2; or ``"log"``: the worse a box overlaps,
            the steeper. Below an IoU of 1e-6 it goes on as a line, up to 14.82 for boxes apart.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target is inside out.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1] for predictions in order, with ``"log"`` in [0, 14.82], exactly 0 for
        equal boxes: a scalar, or with ``"none"`` the shape ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 2, 4 or 6, an unknown option, a power beside
            another kind, weights that are negative or infinite (on CPU); a row that is at fault,
            with ``validate``, or where the loss is above its range (on CPU): the boxes may have
            another format.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it. Along each
    axis, gradient times enclosing length is bounded, by 1.01 times the power, and with ``"log"`` by
    1.01e6; nothing depends on the boxes' scale.

    Use when:
        Boxes overlap already. Where they do not, there is no gradient: take another of the family.

    Elsewhere:
        mmdetection ``IoULoss(mode="linear")``, and its other modes.

    Differs from:
        torchvision, mmdetection, ultralytics: exact for any size of box, where their epsilons
            swallow boxes of side 1e-4; points, lines and boxes inside out have finite gradients.
        mmdetection: its logarithm is clamped, which leaves boxes that barely touch no gradient.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(box_iou_loss(pred, target).item(), 4)
        0.6667
    """
    _check_kind(kind, power)
    options: dict[str, Any] = {"log": True} if kind == "log" else {}
    return box_loss(
        _FORMS,
        "box_iou",
        pred_boxes,
        target_boxes,
        weight=weight,
        box_format=box_format,
        power=2.0 if kind == "square" else power,
        validate=validate,
        normalize=normalize,
        reduction=reduction,
        most=1 - math.log(LEAST_IOU) if kind == "log" else 1.0,
        **options,
    )


def _check_kind(kind: Kind, power: float) -> None:
    check_choice("kind", kind, ("linear", "square", "log"))
    check_number("power", power, 1.0)
    if kind != "linear" and power != 1:
        raise ValueError(f"power: got {power!r}, wanted 1 beside kind={kind!r}")


def _penalties(o: Overlap) -> tuple[Tensor, ...]:
    return ()


def _slopes(o: Overlap) -> tuple[float, Slopes]:
    return 0.0, Slopes()


_FORMS = forms(_penalties, _slopes)


class BoxIoULoss(BoxLoss):
    """Module form of :func:`box_iou_loss`; same options, same defaults."""

    _function = staticmethod(box_iou_loss)

    def __init__(
        self,
        box_format: BoxFormat = "xyxy",
        power: float = 1.0,
        kind: Kind = "linear",
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        check_options(box_format, power, normalize, reduction)
        _check_kind(kind, power)
        check_flags(validate=validate)
        LossModule.__init__(
            self,
            box_format=box_format,
            power=power,
            kind=kind,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )
