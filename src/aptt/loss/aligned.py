"""Matchability- and IoU-aware loss: scores of matched queries that say how good the box is.

    p = sigmoid(x)      nll(t) = -(t log p + (1 - t) log(1 - p))      q: the quality of a positive

    mal         loss = nll(q**gamma)                    where positive
                       alpha p**gamma nll(0)            elsewhere
    ia bce      loss = nll(t)                           where positive, t = p**alpha q**(1 - alpha)
                       p**gamma nll(0)                  elsewhere       held constant

Axes: logits and target ``*N``, each element a question of its own; ``q`` is the quality in [0, 1],
as a rule the IoU of the predicted box with its target, at the class of the target.
From: mal, Huang et al., "DEIM: DETR with Improved Matching for Fast Convergence", CVPR 2025,
arXiv:2412.04234, section 3.3; ia bce, Cai et al., "Align-DETR", arXiv:2304.07527.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_choice, check_flags, check_floating, check_number
from aptt.core.formula import Formula, Kept, scaled_
from aptt.core.logistic import Answer, add_product_, answer, infinite_, power, softplus, times
from aptt.core.module import LossModule
from aptt.core.qualities import NORMALIZE, Normalize, positives, quality_loss
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["IABCELoss", "MALLoss", "ia_bce_loss", "mal_loss"]


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
    check_flags(detach_factor=detach_factor)
    _check_options(alpha, gamma, normalize, reduction)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        _MAL,
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
    _check_options(alpha, gamma, normalize, reduction, share=True)
    check_number("floor", floor, 0.0, 1.0)
    check_floating(logits=logits)
    positive = positives(positive, logits)
    return quality_loss(
        _IA_BCE,
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


def _asked(
    x: Tensor, y: Tensor, positive: Tensor | None, gamma: float, mixed: float | None, floor: float
) -> tuple[Answer, Tensor]:
    """What the logits say of their targets, and where there is a positive."""
    q = y.to(x.dtype)
    here = q > 0 if positive is None else positive
    if mixed is None:
        t = torch.where(q == 0, 0.0, power(q, gamma)) if gamma else torch.ones_like(q)
        return answer(x, torch.where(here, t, 0.0)), here
    some = q > 0 if mixed < 1 else torch.ones_like(q, dtype=torch.bool)
    log_t = (1 - mixed) * torch.where(q > 0, q, 1.0).log() - mixed * softplus(-x.detach())
    t = torch.where(some, log_t.exp(), 0.0).clamp(min=floor)
    missing = torch.where(some, -torch.expm1(log_t), 1.0).clamp(max=1 - floor)
    return answer(x, torch.where(here, t, 0.0), torch.where(here, missing, 1.0)), here


def _result(
    x: Tensor,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    gamma: float,
    alpha: float = 1.0,
    detach_factor: bool = False,
    mixed: float | None = None,
    floor: float = 0.0,
) -> Tensor:
    said, here = _asked(x, y, positive, gamma, mixed, floor)
    fade = alpha * power(said.yes, gamma)
    fade = fade.detach() if detach_factor else fade
    return times(torch.where(here, 1.0, fade), said.nll)


def _step(
    x: Tensor,
    up: Tensor | float,
    kept: Kept,
    y: Tensor,
    positive: Tensor | None,
    *,
    gamma: float,
    alpha: float = 1.0,
    detach_factor: bool = False,
    mixed: float | None = None,
    floor: float = 0.0,
) -> tuple[Tensor, Tensor]:
    # share (p - t + negative gamma (1 - p) nll), where share is 1 or alpha p**gamma
    said, here = _asked(x, y, positive, gamma, mixed, floor)
    p, slope, yes = said.yes, said.error, here.to(x.dtype)
    negative = 1 - yes
    if not detach_factor:
        add_product_(slope, (1 - p).mul_(negative), said.nll, gamma)
    share = torch.addcmul(yes, negative.mul_(alpha), power(p, gamma))
    return infinite_(said.nll.mul_(share)), scaled_(slope.mul_(share), up)


_MAL = Formula(_result, _step, ahead=True, block=2**17)
_IA_BCE = Formula(_result, _step, ahead=True, block=2**17)


def _check_options(
    alpha: float, gamma: float, normalize: str, reduction: Reduction, *, share: bool = False
) -> None:
    check_reduction(reduction)
    if share:
        check_number("alpha", alpha, 0.0, 1.0)
    else:
        check_number("alpha", alpha)
    check_number("gamma", gamma)
    check_choice("normalize", normalize, NORMALIZE)


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
        check_flags(detach_factor=detach_factor)
        _check_options(alpha, gamma, normalize, reduction)
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
        _check_options(alpha, gamma, normalize, reduction, share=True)
        check_number("floor", floor, 0.0, 1.0)
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
