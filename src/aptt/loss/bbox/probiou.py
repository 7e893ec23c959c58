"""Probabilistic IoU: how far apart rotated boxes are, as Gaussians.

    loss = sqrt(1 - exp(-B)), or B       B: Bhattacharyya distance of rotated boxes' Gaussians
           + angle * sin(2 turn)**2 * (2 W H / (W**2 + H**2))**2

Axes: predictions and targets ``(..., 5)``, aligned row by row.
From: ProbIoU, Llerena et al. 2021, arXiv:2106.06072, its losses L1 and L2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.bhattacharyya import bhattacharyya, slant
from aptt.core.checks import Numbers, check_choice, check_flags, check_number
from aptt.core.exponential import rise
from aptt.core.formula import Formula, Kept
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.bbox.paired import BLOCK, Normalize, check_options, paired_loss

__all__ = ["ProbIoULoss", "probiou_loss"]


def probiou_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
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
        ValueError: shapes that differ or do not end in 5, an unknown option, weights that are
            negative or infinite (on CPU), with ``validate`` the row that is at fault.

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
    _check_form(distance, angle, normalize, reduction)
    return paired_loss(
        _PROBIOU,
        "probiou",
        pred_boxes,
        target_boxes,
        numbers=(5,),
        weight=weight,
        validate=validate,
        ordered=False,
        normalize=normalize,
        reduction=reduction,
        distance=distance,
        angle=angle or None,
    )


def _result(x: Tensor, kept: Kept, t: Tensor, *, distance: str, angle: float | None) -> Tensor:
    loss = bhattacharyya(x, t)
    if distance == "hellinger":
        none = loss <= 0  # where the root has no slope; a NaN stays one
        loss = torch.where(none, 1, rise(torch.where(none, 1, loss))).sqrt()
        loss = torch.where(none, 0, loss)
    return loss if angle is None else loss + angle * slant(x, t)


_PROBIOU = Formula(_result, ahead=True, block=BLOCK)


def _check_form(distance: str, angle: float, normalize: Normalize, reduction: Reduction) -> None:
    check_choice("distance", distance, ("hellinger", "bhattacharyya"))
    check_number("angle", angle)
    check_options(None, 1.0, normalize, reduction)


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
        _check_form(distance, angle, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(
            distance=distance,
            angle=angle,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return probiou_loss(pred_boxes, target_boxes, weight=weight, **self.options())
