"""Asymmetric loss: many labels, of which few are right, and easy negatives that count for nothing.

    p         = sigmoid(x),    p_m = max(p - margin, 0)
    positive  = -(1 - p)**gamma_positive * log p
    negative  = -p_m**gamma_negative * log(1 - p_m)
    loss      = t * positive + (1 - t) * negative

Axes: logits of any shape; target the same.
From: Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification", ICCV 2021,
arXiv:2009.14119, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aptt.core.axes import align_elements
from aptt.core.checks import Numbers, check_floating, check_label, check_number, check_range, kept
from aptt.core.formula import Formula, Kept
from aptt.core.logistic import held, power, softplus, times
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction, count_of, reduce

__all__ = ["AsymmetricLoss", "asymmetric_loss"]


def asymmetric_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    ignore_index: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric loss from logits: negatives fade faster than positives, and easy ones are free.

        positive = -(1 - p)**gamma_positive * log p
        negative = -p_m**gamma_negative * log(1 - p_m),    p_m = max(sigmoid(x) - margin, 0)

    Args:
        logits: any shape, any floating dtype.
        target: the same shape, in [0, 1]: bool, integer or floating; shares mix the two.
        weight: the same shape; multiplies and is counted, and 0 removes the element.
        gamma_positive: how fast easy positives fade, at least 0.
        gamma_negative: how fast easy negatives fade, at least 0.
        margin: the probability up to which a negative costs nothing. In [0, 1).
        ignore_index: the target value that removes its element.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the logits. float32 for
        half types. A negative costs at most ``-(1 - margin)**gamma_negative * log(margin)``, 2.44.

    Raises:
        ValueError: shapes that differ, targets out of [0, 1] or weights that are negative or
            infinite (both on CPU), an unknown option.

    The gradient goes to ``logits``, and to targets and weights that ask for it. By definition it
    fades for a negative that is confidently wrong (p near 1): a label that is missing, perhaps.

    Use when:
        Images have a few of many labels, and some labels are missing.

    Elsewhere:
        timm ``AsymmetricLossMultiLabel``, mmpretrain ``AsymmetricLoss``, ASL's own.

    Differs from:
        ASL's own: a mean, where there the sum is over the batch; the weight that fades passes its
            gradient on, as in the paper, where there it is held constant; nothing is clamped to
            1e-8, which is 0 in float16. ``gamma_positive`` is 0 as published, 1 in the code.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 0.0, -4.0])
        >>> round(asymmetric_loss(logits, torch.tensor([1, 0, 0])).item(), 4)
        0.2392
    """
    _check_options(gamma_positive, gamma_negative, margin, ignore_index, reduction)
    check_floating(logits=logits)
    x, t, w = align_elements(logits, target, weight, by_class=False, class_dim=None)
    if ignore_index is not None:
        keep = kept(t, ignore_index)
        t = torch.where(keep, t, 0)
        w = keep if w is None else torch.where(keep, w, 0)
    check_range(t, 0, 1, keep=None if w is None else w != 0)
    loss = reduce(
        _ASYMMETRIC,
        x,
        t,
        weight=w,
        count=lambda: count_of(t, w),
        reduction=reduction,
        term="asymmetric",
        positive=gamma_positive,
        negative=gamma_negative,
        margin=margin or None,
    )
    return loss.reshape(logits.shape) if reduction == "none" else loss


def _result(
    x: Tensor, kept: Kept, t: Tensor, *, positive: float, negative: float, margin: float | None
) -> Tensor:
    t, away = t.to(x.dtype), torch.sigmoid(-held(x))
    yes = power(away, positive) * softplus(-x)
    if margin is None:
        no = power(torch.sigmoid(held(x)), negative) * softplus(x)
    else:
        # p - margin, by the smaller of p and 1 - p
        over = torch.relu(torch.where(x > 0, (1 - margin) - away, torch.sigmoid(held(x)) - margin))
        no = power(over, negative) * -torch.log1p(-over)
    return times(t, yes) + times(1 - t, no)


_ASYMMETRIC = Formula(_result, ahead=True, block=2**17)


def _check_options(
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
    ignore_index: float | None,
    reduction: Reduction,
) -> None:
    check_reduction(reduction)
    check_label(ignore_index)
    check_number("gamma_positive", gamma_positive)
    check_number("gamma_negative", gamma_negative)
    check_number("margin", margin, 0.0, 0.999)


class AsymmetricLoss(LossModule):
    """Module form of :func:`asymmetric_loss`; same options, same defaults."""

    def __init__(
        self,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        margin: float = 0.05,
        ignore_index: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_options(gamma_positive, gamma_negative, margin, ignore_index, reduction)
        super().__init__(
            gamma_positive=gamma_positive,
            gamma_negative=gamma_negative,
            margin=margin,
            ignore_index=ignore_index,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return asymmetric_loss(logits, target, weight=weight, **self.options())
