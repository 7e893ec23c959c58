"""NWD: how far the Gaussian of a box is to be moved to that of its target.

    loss = 1 - exp(-W2 / unit)     W2**2 = sum (dx**2 + (w - W)**2 / 4) over the axes
                                   dx: distance of the centres; w, W: the sides

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; aligned row by row.
From: NWD, Wang et al. 2021, arXiv:2110.13389; Xu et al. 2022, arXiv:2206.13996.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.boxes import BoxFormat
from aptt.core.checks import Numbers, check_flags, check_positive
from aptt.core.exponential import rise
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.bbox.paired import BLOCK, Normalize, check_options, paired_loss

__all__ = ["NWDLoss", "nwd_loss"]

_LEAST = 1e-3


def nwd_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    unit: float | None = None,
    box_format: BoxFormat = "xyxy",
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Normalized Wasserstein distance loss of aligned boxes, as Gaussians.

        loss = 1 - exp(-W2 / unit)     W2**2 = sum (dx**2 + (w - W)**2 / 4)

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype; segments have 2 numbers, cuboids 6, where an
            axis more has its place in either half.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        unit: above 0, the distance that costs 0.63, in the boxes' own unit: about the size of the
            objects. The papers have 12.8 pixels for the tiny ones of AI-TOD. None: the root of the
            mean square of each target's sides.
        box_format: ``"xyxy"``, ``"xywh"`` (corner and size) or ``"cxcywh"`` (centre and size).
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target is inside out.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1], exactly 0 for equal boxes: a scalar, or with ``"none"`` the shape
        ``(...)``. float32 for half types.

    Raises:
        ValueError: shapes that differ or do not end in 2, 4 or 6, an unknown option, a unit of 0
            or less, weights that are negative or infinite (on CPU), with ``validate`` the row that
            is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; it is 0 at
    equal boxes. Times the unit, no number has one above 1.5. With ``unit=None`` nothing depends on
    the scale.

    Use when:
        Objects are of a few pixels, where an IoU jumps from much to nothing. With one unit for all,
        larger objects are held to it as well; from a few units on it is flat.

    Elsewhere:
        The authors' mmdet-aitod, whose ``constant`` is ``unit``.

    Differs from:
        The repositories: no epsilon under the root, so equal boxes cost 0, and have a gradient of 0
            where the root of 0 gives NaN.
        The papers: ``unit=None`` is our own. Sides under 1/1000 of the largest difference of two
            numbers count as that long there, so that lines and points stay finite.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> target = torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> round(nwd_loss(pred, target, unit=12.8).item(), 4)
        0.0752
    """
    _check_form(unit, box_format, normalize, reduction)
    return paired_loss(
        _NWD,
        "nwd",
        pred_boxes,
        target_boxes,
        numbers=(2, 4, 6),
        weight=weight,
        validate=validate,
        ordered=box_format == "xyxy",
        normalize=normalize,
        reduction=reduction,
        box_format=box_format,
        unit=unit,
    )


def _result(
    x: Tensor, kept: Kept, t: Tensor, *, box_format: BoxFormat, unit: float | None
) -> Tensor:
    gap = x - t
    per = gap.new_full((1, 1), unit) if unit is not None else _size(gap, t, box_format)
    first, second = (gap / per).chunk(2, 1)
    if box_format == "xyxy":
        centre, side = (first + second) / 2, (second - first) / 2
    else:
        side = second / 2
        centre = first + side if box_format == "xywh" else first
    return rise(torch.linalg.vector_norm(torch.cat((centre, side), 1), dim=1))


def _size(gap: Tensor, t: Tensor, box_format: BoxFormat) -> Tensor:
    """The root of the mean square of the sides; at least 1/1000 of what is to be measured."""
    low, high = t.chunk(2, 1)
    sides = high - low if box_format == "xyxy" else high
    size = torch.linalg.vector_norm(sides, dim=1, keepdim=True) / math.sqrt(sides.shape[1])
    far = gap.detach().abs()
    far = far.amax(1, keepdim=True) if len(far) else far[:, :1]
    size = torch.maximum(size, far * _LEAST)
    return torch.where(size == 0, 1.0, size)  # of equal points


_NWD = Formula(_result, ahead=True, block=BLOCK)


def _check_form(
    unit: float | None, box_format: BoxFormat, normalize: Normalize, reduction: Reduction
) -> None:
    if unit is not None:
        check_positive("unit", unit)
    check_options(box_format, 1.0, normalize, reduction)


class NWDLoss(LossModule):
    """Module form of :func:`nwd_loss`; same options, same defaults."""

    def __init__(
        self,
        unit: float | None = None,
        box_format: BoxFormat = "xyxy",
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_form(unit, box_format, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(
            unit=unit,
            box_format=box_format,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return nwd_loss(pred_boxes, target_boxes, weight=weight, **self.options())
