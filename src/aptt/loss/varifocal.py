"""Varifocal and quality focal loss: class scores that also say how good the box is.

    p = sigmoid(x)      nll = -(q log p + (1 - q) log(1 - p))

    varifocal       loss = q nll                     where positive
                           alpha p**gamma nll        elsewhere, with q = 0
    quality focal   loss = |q - p|**beta nll

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: varifocal, Zhang et al., "VarifocalNet", CVPR 2021, arXiv:2008.13367, eq. 2; quality focal, Li
et al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import (
    Numbers,
    check_choice,
    check_flags,
    check_floating,
    check_number,
)
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import add_product_, answer, infinite_, power, times
from aptt.core.module import LossModule
from aptt.core.qualities import NORMALIZE, Normalize, positives, quality_loss
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["QualityFocalLoss", "VariFocalLoss", "quality_focal_loss", "varifocal_loss"]


def varifocal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    positive: Numbers | None = None,
    weight: Numbers | None = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    detach_factor: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Varifocal loss from logits: positives weigh their quality, negatives fade.

        loss = q nll  where positive,  alpha p**gamma nll  elsewhere

    Args:
        logits: any shape, floating.
        target: qualities from 0 to 1 in the logits' shape, 0 where not positive.
        positive: a mask of the logits' shape; None: where the target is above 0. With a mask, a
            positive whose quality is 0 weighs nothing; without, it is a negative.
        weight: of the logits' shape; multiplies and is counted, and 0 removes.
        alpha: weight of the negatives, at least 0; positives weigh their quality alone.
        gamma: how fast easy negatives fade, at least 0.
        detach_factor: hold the factor ``p**gamma`` constant, so that only ``nll`` has a slope.
        normalize: what ``"mean"`` counts: elements, positives, or the sum of the qualities; of
            the latter two at least 1, so that background alone is still penalised.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0; least at ``p = q`` where positive: a scalar, or with ``"none"`` the
        shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, qualities beyond 0 to 1 or outside ``positive``, weights
            that are negative or infinite (all on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        A dense detector ranks its boxes by one score, and most anchors are background.

    Elsewhere:
        mmdetection ``VarifocalLoss``, ultralytics ``VarifocalLoss``.

    Differs from:
        VarifocalNet, mmdetection: a positive of quality 0 stays one if ``positive`` says so; the
            mean of nothing is 0, not NaN.
        RT-DETR, D-FINE: ``detach_factor=True`` there: at a negative logit of 1, half the gradient.
        YOLOv6: takes probabilities.

    Example:
        >>> import torch
        >>> logits, quality = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.8, 0.0, 0.0])
        >>> round(varifocal_loss(logits, quality).item(), 4)
        0.2369
    """
    _check_varifocal(alpha, gamma, detach_factor, normalize, reduction)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        _VARIFOCAL,
        "varifocal",
        logits,
        target,
        weight,
        positive,
        normalize,
        reduction,
        (positive,),
        alpha=alpha,
        gamma=gamma,
        detach_factor=detach_factor,
    )


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
    _check_quality(beta, normalize, reduction)
    return quality_loss(
        _QUALITY,
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


def _varifocal_result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    alpha: float,
    gamma: float,
    detach_factor: bool,
) -> Tensor:
    q = y.to(x.dtype)
    said = answer(x, q)
    fade = alpha * power(said.yes, gamma)
    fade = fade.detach() if detach_factor else fade
    return times(torch.where(q > 0 if positive is None else positive, q, fade), said.nll)


def _varifocal_step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    alpha: float,
    gamma: float,
    detach_factor: bool,
) -> tuple[Tensor, Tensor]:
    # share (p - q + negative gamma (1 - p) nll), where share is q or alpha p**gamma
    q = y.to(x.dtype)
    said = answer(x, q)
    p, slope = said.yes, said.error
    negative = 1 - (q.sign() if positive is None else positive.to(x.dtype))
    if not detach_factor:
        add_product_(slope, (1 - p).mul_(negative), said.nll, gamma)
    share = torch.addcmul(q, negative.mul_(alpha), power(p, gamma))
    return infinite_(said.nll.mul_(share)), scaled_(slope.mul_(share), up)


def _quality_result(x: Tensor, kept: Kept, y: Tensor, *, beta: float) -> Tensor:
    said = answer(x, y.to(x.dtype))
    off = said.error
    return times(off.square() if beta == 2 else power(off.abs(), beta), said.nll)


def _quality_step(
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


_VARIFOCAL = Formula(_varifocal_result, _varifocal_step, ahead=True, block=2**17)
_QUALITY = Formula(_quality_result, _quality_step, ahead=True, block=2**17)


def _check_varifocal(
    alpha: float, gamma: float, detach_factor: bool, normalize: str, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_flags(detach_factor=detach_factor)
    check_number("alpha", alpha)
    check_number("gamma", gamma)
    check_choice("normalize", normalize, NORMALIZE)


def _check_quality(beta: float, normalize: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    if beta != 0:
        check_number("beta", beta, 1.0, wanted="0, or a number of at least 1, and finite")
    check_choice("normalize", normalize, NORMALIZE)


class VariFocalLoss(LossModule):
    """Module form of :func:`varifocal_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        detach_factor: bool = False,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_varifocal(alpha, gamma, detach_factor, normalize, reduction)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            detach_factor=detach_factor,
            normalize=normalize,
            reduction=reduction,
        )

    def forward(
        self,
        logits: Tensor,
        target: Numbers,
        *,
        positive: Numbers | None = None,
        weight: Numbers | None = None,
    ) -> Tensor:
        """The loss of ``logits`` against the qualities ``target``."""
        return varifocal_loss(logits, target, positive=positive, weight=weight, **self.options())


class QualityFocalLoss(LossModule):
    """Module form of :func:`quality_focal_loss`; same options, same defaults."""

    def __init__(
        self,
        beta: float = 2.0,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check_quality(beta, normalize, reduction)
        super().__init__(beta=beta, normalize=normalize, reduction=reduction)

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against the qualities ``target``."""
        return quality_focal_loss(logits, target, weight=weight, **self.options())
