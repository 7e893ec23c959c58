"""Matchability-aware loss: scores of matched queries that say how good the box is.

    p = sigmoid(x)      nll(t) = -(t log p + (1 - t) log(1 - p))      q: the quality of a positive

    loss = nll(q**gamma)           where positive
           alpha p**gamma nll(0)   elsewhere

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: Huang et al., "DEIM: DETR with Improved Matching for Fast Convergence", CVPR 2025,
arXiv:2412.04234, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_flags, check_floating, check_number
from aptt.core.logistic import Answer, answer, power
from aptt.core.module import LossModule
from aptt.core.qualities import Normalize, check_normalize, positives, quality_loss
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.aligned.formula import aligned

__all__ = ["MALLoss", "mal_loss"]


def mal_loss(
    logits: Tensor,
    target: Numbers,
    *,
    positive: Numbers | None = None,
    weight: Numbers | None = None,
    alpha: float = 1.0,
    gamma: float = 1.5,
    detach_factor: bool = False,
    normalize: Normalize = "elements",
    reduction: Reduction = "mean",
) -> Tensor:
    """Matchability-aware loss from logits: every positive weighs 1, and asks for its quality.

        loss = nll(q**gamma)  where positive,  alpha p**gamma nll(0)  elsewhere

    Args:
        logits: any shape, floating.
        target: qualities from 0 to 1 in the logits' shape, 0 where not positive.
        positive: a mask of the logits' shape; None: where the target is above 0. With a mask, a
            positive of quality 0 is trained as a hard negative.
        weight: of the logits' shape; multiplies and is counted, and 0 removes.
        alpha: weight of the negatives, at least 0.
        gamma: of the quality, and how fast easy negatives fade; at least 0.
        detach_factor: hold the factor ``p**gamma`` constant, so that only ``nll`` has a slope.
        normalize: what ``"mean"`` counts: elements, positives, or the sum of the qualities; of
            the latter two at least 1, so that background alone is still penalised.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0; least at ``p = q**gamma`` where positive: a scalar, or with ``"none"``
        the shape of the target. float32 for half types.

    Raises:
        ValueError: shapes that differ, qualities beyond 0 to 1 or outside ``positive``, weights
            that are negative or infinite (all on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it.

    Use when:
        Queries are matched one to one, and some matches are poor: there varifocal loss has next to
        no weight. With ``detr_loss(quality="iou")``.

    Elsewhere:
        ``loss_labels_mal`` in DEIM.

    Differs from:
        DEIM: its code holds the factor constant, ``detach_factor=True``.

    Example:
        >>> import torch
        >>> logits, quality = torch.tensor([1.0, 1.0]), torch.tensor([0.6, 0.0])
        >>> [round(v, 4) for v in mal_loss(logits, quality, reduction="none").tolist()]
        [0.8485, 0.8209]
    """
    _check(alpha, gamma, detach_factor, normalize, reduction)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        MAL,
        "mal",
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


def _ask(x: Tensor, q: Tensor, here: Tensor, *, gamma: float) -> Answer:
    t = torch.where(q == 0, 0.0, power(q, gamma)) if gamma else torch.ones_like(q)
    return answer(x, torch.where(here, t, 0.0))


MAL = aligned(_ask)


def _check(
    alpha: float, gamma: float, detach_factor: bool, normalize: str, reduction: Reduction
) -> None:
    check_flags(detach_factor=detach_factor)
    check_reduction(reduction)
    check_number("alpha", alpha)
    check_number("gamma", gamma)
    check_normalize(normalize)


class MALLoss(LossModule):
    """Module form of :func:`mal_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 1.0,
        gamma: float = 1.5,
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
        return mal_loss(logits, target, positive=positive, weight=weight, **self.options())
