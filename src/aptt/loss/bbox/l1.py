"""L1 of boxes: how far their numbers are apart, smooth near the target if so wanted.

    loss   = sum |x - t|                       of all numbers of a box
    beta   sum of 0.5 (x - t)**2 / beta        where |x - t| < beta
                  |x - t| - 0.5 beta           elsewhere

Axes: predictions and targets ``(..., 4)``, of segments 2, of cuboids 6; aligned row by row.
From: beta, smooth L1 of Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083, eq. 3, where it is 1.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_positive
from aptt.core.formula import Formula, Kept, by_row
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction
from aptt.loss.bbox.paired import Normalize, check_options, paired_loss

__all__ = ["BoxL1Loss", "box_l1_loss"]


def box_l1_loss(
    pred_boxes: Tensor,
    target_boxes: Numbers,
    *,
    weight: Numbers | None = None,
    beta: float = 0.0,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """L1 or smooth L1 loss of aligned boxes, one value a box.

        loss = sum |x - t|    with beta: 0.5 (x - t)**2 / beta below it, |x - t| - 0.5 beta above

    Args:
        pred_boxes: ``(..., 4)``, any floating dtype: corners, a centre and a size, or deltas;
            segments have 2 numbers, cuboids 6. The distance is between the numbers as they are, so
            it differs by how boxes are written.
        target_boxes: the same shape, row by row.
        weight: ``(...)``, one per box; multiplies and is counted, and 0 removes the box.
        beta: where the loss turns from a square to a line, at least 0, in the boxes' unit; 0: a
            line throughout. RetinaNet has 1/9, Fast R-CNN 1.
        normalize: what ``"mean"`` counts: the weights, or the boxes whose weight is above 0 (at
            least 1).
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape ``(...)``. float32 for half
        types.

    Raises:
        ValueError: shapes that differ or do not end in 2, 4 or 6, an unknown option, weights that
            are negative or infinite (on CPU).

    The gradient goes to ``pred_boxes``, and to target boxes and weights that ask for it; no number
    has one larger than 1.

    Use when:
        Beside an IoU loss, as DETR has it, in parts of the image; or alone on deltas of anchors. It
        has a unit: of boxes in pixels, large ones decide.

    Elsewhere:
        ``F.l1_loss(...).sum(-1)``, fvcore ``smooth_l1_loss``, mmdetection ``L1Loss``.

    Differs from:
        torch, mmdetection: the numbers of a box are summed, so a mean is over boxes.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[1.0, 1.0, 2.0, 2.0]])
        >>> target = torch.tensor([[2.0, 1.0, 2.0, 2.5]])
        >>> box_l1_loss(pred, target).item(), box_l1_loss(pred, target, beta=1.0).item()
        (1.5, 0.625)
    """
    _check_options(beta, normalize, reduction)
    return paired_loss(
        _FORMULA,
        "box_l1",
        pred_boxes,
        target_boxes,
        numbers=(2, 4, 6),
        weight=weight,
        validate=False,
        ordered=False,
        normalize=normalize,
        reduction=reduction,
        beta=beta,
    )


def _result(x: Tensor, kept: Kept, t: Tensor, *, beta: float) -> Tensor:
    off = (x - t).abs()
    if beta:
        square = off.clamp(max=beta)
        off = square * (off - square / 2) / beta
    return off.sum(1)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, t: Tensor, *, beta: float
) -> tuple[None, Tensor]:
    off = x - t
    slope = (off / beta).clamp_(-1, 1) if beta else off.sign()
    return None, slope * by_row(up)


_FORMULA = Formula(_result, _step)


def _check_options(beta: float, normalize: Normalize, reduction: Reduction) -> None:
    check_options(None, 1.0, normalize, reduction)
    check_positive("beta", beta, zero=True)


class BoxL1Loss(LossModule):
    """Module form of :func:`box_l1_loss`; same options, same defaults."""

    def __init__(
        self,
        beta: float = 0.0,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(beta, normalize, reduction)
        super().__init__(beta=beta, normalize=normalize, reduction=reduction)

    def forward(
        self, pred_boxes: Tensor, target_boxes: Numbers, *, weight: Numbers | None = None
    ) -> Tensor:
        """The loss of ``pred_boxes`` against ``target_boxes``, row by row."""
        return box_l1_loss(pred_boxes, target_boxes, weight=weight, **self.options())
