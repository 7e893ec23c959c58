"""Varifocal loss: class scores that also say how good the box is.

    p = sigmoid(x)      nll = -(q log p + (1 - q) log(1 - p))

    loss = q nll                     where positive
           alpha p**gamma nll        elsewhere, with q = 0

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: Zhang et al., "VarifocalNet", CVPR 2021, arXiv:2008.13367, eq. 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_floating, check_number
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import add_product_, answer, infinite_, power, times
from aptt.core.module import LossModule
from aptt.core.qualities import Normalize, check_normalize, positives, quality_loss
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["VariFocalLoss", "varifocal_loss"]


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
    _check(alpha, gamma, detach_factor, normalize, reduction)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        VARIFOCAL,
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


def _result(
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


def _step(
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


VARIFOCAL = Formula(_result, _step, ahead=True, block=2**17)


def _check(
    alpha: float, gamma: float, detach_factor: bool, normalize: str, reduction: Reduction
) -> None:
    check_reduction(reduction)
    check_flags(detach_factor=detach_factor)
    check_number("alpha", alpha)
    check_number("gamma", gamma)
    check_normalize(normalize)


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
        _check(alpha, gamma, detach_factor, normalize, reduction)
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
