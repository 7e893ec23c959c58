"""KLD: how far the Gaussian of a rotated box diverges from that of its target.

    loss = f(D) / (1 + f(D)), or D      D: Kullback-Leibler divergence of rotated boxes' Gaussians
           f = log(1 + D), or sqrt(D)

Axes: predictions and targets ``(..., 5)``, aligned row by row.
From: KLD, Yang et al. 2021, arXiv:2106.01883, its loss 1 - 1 / (tau + f(D)) with tau = 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_flags
from aptt.core.formula import Formula, Kept
from aptt.core.gaussian_boxes import divergence as diverged
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.bbox.paired import BLOCK, Normalize, check_options, paired_loss

__all__ = ["KLDLoss", "kld_loss"]

Divergence = Literal["forward", "reverse", "symmetric"]
Squash = Literal["log1p", "sqrt", "none"]


def kld_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    divergence: Divergence = "forward",
    squash: Squash = "log1p",
    validate: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence loss of aligned rotated boxes, as Gaussians.

        loss = f(D) / (1 + f(D)), or D       D: divergence of N(centre, covariance),
                                             covariance = R diag(w**2, h**2) R' / 4

    Args:
        pred_boxes: ``(..., 5)``: centre, width, height, angle in radians from x towards y; any
            floating dtype, lengths in any unit.
        target_boxes: the same shape, row by row; for all pairs, expand both first.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        divergence: ``"forward"``, KL(target, prediction), which is wary of predictions too small;
            ``"reverse"``, KL(prediction, target); or ``"symmetric"``, half of either.
        squash: ``"log1p"`` or ``"sqrt"``, what f is; or ``"none"``: the divergence itself.
        validate: look at the values, on any device, and name the first row that is not finite or
            whose target has a negative size.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1), as detectors do that weigh boxes by their quality.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, in [0, 1), and with ``"none"`` of ``squash`` at least 0; exactly 0 for equal
        boxes and the same however a box is written (half a turn, or a quarter with its sides
        exchanged): a scalar, or with ``reduction="none"`` the shape ``(...)``. float32 for half
        types.

    Raises:
        ValueError: shapes that differ or do not end in 5, an unknown option, weights that are
            negative or infinite (on CPU), with ``validate`` the row that is at fault.

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; it is 0 at
    equal boxes. Times the pair's longest length, gap included, it is bounded: by 4000, and for the
    divergence itself by 1e10. Nothing depends on the scale.

    Use when:
        Long rotated boxes must be met in angle and across more exactly than along: each number is
        held by the others, as precisely as IoU asks. Boxes apart are pulled.

    Elsewhere:
        mmrotate ``GDLoss(loss_type="kld", sqrt=False)``.

    Differs from:
        mmrotate: equal boxes cost 0, where a clamp leaves 3e-4 and no gradient near it; the root
            that it takes of D first is ``squash="sqrt"``; its tau is 1 here, so that 0 is least.
        The paper: sides under 1/1000 of the pair's longest length count as that long, with their
            own slope, so that lines and points stay finite and a negative size grows back.
        IoU: a square has no angle; see ``probiou_loss``, whose ``angle`` gives it one.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0, 4.0, 2.0, 0.5]])
        >>> round(kld_loss(pred, target, squash="none").item(), 4)
        0.3836
    """
    _check_form(divergence, squash, normalize, reduction)
    return paired_loss(
        _KLD,
        "kld",
        pred_boxes,
        target_boxes,
        numbers=(5,),
        weight=weight,
        validate=validate,
        ordered=False,
        normalize=normalize,
        reduction=reduction,
        divergence=divergence,
        squash=squash,
    )


def _result(x: Tensor, kept: Kept, t: Tensor, *, divergence: str, squash: str) -> Tensor:
    if divergence == "symmetric":
        loss = (diverged(x, t) + diverged(t, x)) / 2
    else:
        loss = diverged(x, t) if divergence == "forward" else diverged(t, x)
    if squash == "none":
        return loss
    if squash == "sqrt":
        none = loss <= 0  # where the root has no slope; a NaN stays one
        loss = torch.where(none, 0, torch.where(none, 1, loss).sqrt())
    else:
        loss = torch.log1p(loss)
    near = loss.clamp(max=1)  # far away the slope of a quotient is a difference of two
    return torch.where(loss > 1, 1 - 1 / (1 + loss), near / (1 + near))


_KLD = Formula(_result, ahead=True, block=BLOCK)


def _check_form(
    divergence: Divergence, squash: Squash, normalize: Normalize, reduction: Reduction
) -> None:
    check_choice("divergence", divergence, ("forward", "reverse", "symmetric"))
    check_choice("squash", squash, ("log1p", "sqrt", "none"))
    check_options(None, 1.0, normalize, reduction)


class KLDLoss(LossModule):
    """Module form of :func:`kld_loss`; same options, same defaults."""

    def __init__(
        self,
        divergence: Divergence = "forward",
        squash: Squash = "log1p",
        validate: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_form(divergence, squash, normalize, reduction)
        check_flags(validate=validate)
        super().__init__(
            divergence=divergence,
            squash=squash,
            validate=validate,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return kld_loss(pred_boxes, target_boxes, weight=weight, **self.options())
