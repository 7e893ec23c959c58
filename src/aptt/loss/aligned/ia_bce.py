"""IoU-aware cross-entropy: scores of matched queries that grow towards how good the box is.

    p = sigmoid(x)      nll(t) = -(t log p + (1 - t) log(1 - p))      q: the quality of a positive

    loss = nll(t)                  where positive, t = p**alpha q**(1 - alpha), held constant
           p**gamma nll(0)         elsewhere

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: Cai et al., "Align-DETR", arXiv:2304.07527.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_floating, check_number
from aptt.core.exponential import expm1
from aptt.core.logistic import Answer, answer, softplus
from aptt.core.module import LossModule
from aptt.core.qualities import Normalize, check_normalize, positives, quality_loss
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.aligned.formula import aligned

__all__ = ["IABCELoss", "ia_bce_loss"]


def ia_bce_loss(
    logits: Tensor,
    target: Numbers,
    *,
    positive: Numbers | None = None,
    weight: Numbers | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    floor: float = 0.01,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """IoU-aware binary cross-entropy from logits: the target is between score and quality.

        loss = nll(t)  where positive, t = p**alpha q**(1 - alpha);  p**gamma nll(0)  elsewhere

    Args:
        logits: any shape, floating.
        target: qualities from 0 to 1 in the logits' shape, 0 where not positive.
        positive: a mask of the logits' shape; None: where the target is above 0.
        weight: of the logits' shape; multiplies and is counted, and 0 removes.
        alpha: how much of the target is the score itself, from 0 to 1; held constant.
        gamma: how fast easy negatives fade, at least 0.
        floor: the least target of a positive, from 0 to 1; 0: none.
        normalize: what ``"mean"`` counts: elements, positives, or the sum of the qualities; of
            the latter two at least 1, so that background alone is still penalised.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0; with a slope of 0 at ``p = q`` where positive, which is no minimum of
        the value, for the target moves with the score: a scalar, or with ``"none"`` the shape of
        the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, qualities beyond 0 to 1 or outside ``positive``, weights
            that are negative or infinite (all on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        As LW-DETR and RF-DETR do: ``detr_loss(class_loss=ia_bce_loss, quality="iou")``.

    Elsewhere:
        ``ia_bce_loss`` in LW-DETR and RF-DETR, ``IA_BCE_loss`` in Align-DETR.

    Differs from:
        Align-DETR: the floor of 0.01 is that of the code, and in no formula.

    Example:
        >>> import torch
        >>> logits, quality = torch.tensor([1.0, 1.0]), torch.tensor([0.6, 0.0])
        >>> [round(v, 4) for v in ia_bce_loss(logits, quality, reduction="none").tolist()]
        [0.6829, 0.7019]
    """
    _check(alpha, gamma, floor, normalize, reduction)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        IA_BCE,
        "ia_bce",
        logits,
        target,
        weight,
        positive,
        normalize,
        reduction,
        (positive,),
        mixed=alpha,
        gamma=gamma,
        floor=floor,
    )


def _ask(x: Tensor, q: Tensor, here: Tensor, *, gamma: float, mixed: float, floor: float) -> Answer:
    some = q > 0 if mixed < 1 else torch.ones_like(q, dtype=torch.bool)
    log_t = (1 - mixed) * torch.where(q > 0, q, 1.0).log() - mixed * softplus(-x.detach())
    t = torch.where(some, log_t.exp(), 0.0).clamp(min=floor)
    missing = torch.where(some, -expm1(log_t), 1.0).clamp(max=1 - floor)
    return answer(x, torch.where(here, t, 0.0), torch.where(here, missing, 1.0))


IA_BCE = aligned(_ask)


def _check(alpha: float, gamma: float, floor: float, normalize: str, reduction: Reduction) -> None:
    check_reduction(reduction)
    check_number("alpha", alpha, 0.0, 1.0)
    check_number("gamma", gamma)
    check_normalize(normalize)
    check_number("floor", floor, 0.0, 1.0)


class IABCELoss(LossModule):
    """Module form of :func:`ia_bce_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        floor: float = 0.01,
        normalize: Normalize = "elements",
        reduction: Reduction = "mean",
    ) -> None:
        _check(alpha, gamma, floor, normalize, reduction)
        super().__init__(
            alpha=alpha, gamma=gamma, floor=floor, normalize=normalize, reduction=reduction
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
        return ia_bce_loss(logits, target, positive=positive, weight=weight, **self.options())
