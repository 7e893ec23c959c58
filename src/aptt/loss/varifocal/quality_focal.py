"""Quality focal loss: the focal loss of soft labels, such as how good a box is.

    p = sigmoid(x)      nll = -(q log p + (1 - q) log(1 - p))

    loss = |q - p|**beta nll

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: Li et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_number
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import answer, infinite_, power, times
from aptt.core.module import LossModule
from aptt.core.qualities import Normalize, check_normalize, quality_loss
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["QualityFocalLoss", "quality_focal_loss"]


def quality_focal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    beta: float = 2.0,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Quality focal loss from logits: focal loss for soft labels.

        loss = |q - p|**beta nll

    Args:
        logits: any shape, floating.
        target: qualities from 0 to 1 in the logits' shape, 0 where there is nothing.
        weight: of the logits' shape; multiplies and is counted, and 0 removes.
        beta: how fast good estimates fade: 0, which is cross-entropy, or at least 1; between them
            the slope at ``p = q`` would be infinite.
        normalize: what ``"mean"`` counts: elements, positives (qualities above 0), or the sum of
            the qualities; of the latter two at least 1, so that background is still penalised.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0, and 0 at ``p = q``: a scalar, or with ``"none"`` the shape of the
        target. float32 for half types.

    Raises:
        ValueError: shapes that differ, qualities beyond 0 to 1, weights that are negative or
            infinite (both on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        Labels are soft, and easy elements outnumber the rest: ``focal_loss`` is for 0 and 1.

    Elsewhere:
        mmdetection ``QualityFocalLoss``.

    Differs from:
        GFocal: ``|q - p|``, where the first code has no absolute value: NaN for odd powers between.
        mmdetection: takes qualities as a tensor of the logits' shape, not labels and scores.

    Example:
        >>> import torch
        >>> logits, quality = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.8, 0.0, 0.0])
        >>> round(quality_focal_loss(logits, quality).item(), 4)
        0.1342
    """
    _check(beta, normalize, reduction)
    return quality_loss(
        QUALITY_FOCAL,
        "quality_focal",
        logits,
        target,
        weight,
        None,
        normalize,
        reduction,
        (),
        beta=beta,
    )


def _result(x: Tensor, kept: Kept, y: Tensor, *, beta: float) -> Tensor:
    said = answer(x, y.to(x.dtype))
    off = said.error
    return times(off.square() if beta == 2 else power(off.abs(), beta), said.nll)


def _step(
    x: Tensor, up: Tensor | float, kept: Kept, y: Tensor, *, beta: float
) -> tuple[Tensor, Tensor]:
    # with off = p - q: |off|**beta nll has the slope |off|**(beta - 2) off
    # (off**2 + beta p (1 - p) nll)
    said = answer(x, y.to(x.dtype))
    off, cost, doubt = said.error, said.nll, said.doubt
    if beta == 0:
        return infinite_(cost), scaled_(off, up)
    square = off.square()
    sway = torch.addcmul(doubt, doubt, doubt, value=-1)  # p (1 - p)
    steep = sway.mul_(cost).mul_(beta).add_(square)
    if beta == 2:
        return infinite_(cost.mul_(square)), scaled_(off.mul_(steep), up)
    size = off.abs()
    slope = off.sign_().mul_(steep).mul_(power(size, beta - 1))
    return infinite_(cost.mul_(power(size, beta))), scaled_(slope, up)


QUALITY_FOCAL = Formula(_result, _step, ahead=True, block=2**17)


def _check(beta: float, normalize: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    wanted = "0, or a number of at least 1, and finite in float32"
    check_number("beta", beta, 1.0, wanted=wanted, zero=True)
    check_normalize(normalize)


class QualityFocalLoss(LossModule):
    """Module form of :func:`quality_focal_loss`; same options, same defaults."""

    def __init__(
        self,
        beta: float = 2.0,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check(beta, normalize, reduction)
        super().__init__(beta=beta, normalize=normalize, reduction=reduction)

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against the qualities ``target``."""
        return quality_focal_loss(logits, target, weight=weight, **self.options())
