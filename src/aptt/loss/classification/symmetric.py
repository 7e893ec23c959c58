"""Symmetric cross-entropy, for labels of which some are wrong.

    loss = -alpha log p - beta log_zero (1 - p),    p = softmax(z)[y]

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C.
From: Wang et al. 2019, arXiv:1908.06112.
"""

from __future__ import annotations

import math

from torch import Tensor

from aptt.core.checks import GREATEST, Numbers, check_index, check_number, check_positive
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.classification.chance import MIXED, reduced_rows

__all__ = ["SymmetricCrossEntropyLoss", "symmetric_cross_entropy_loss"]


def symmetric_cross_entropy_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Symmetric cross-entropy: target against answer, and answer against target.

        loss = -alpha log p - beta log_zero (1 - p)

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        alpha: the factor of cross-entropy, above 0; 0.1 for CIFAR-10 in the paper, 6 for CIFAR-100.
        beta: the factor of the reverse one, at least 0; 1, and 0.1.
        log_zero: what the reverse one takes for the logarithm of a target of 0, below 0.
        ignore_index: the class index that removes its position; None: nothing is ignored.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range (on CPU), an
            unknown option.
        TypeError: targets that are not class indices.

    The gradient goes to ``logits``, and to weights that ask for it.

    Use when:
        Some labels are wrong, and the classes that learn slowly should not be given up.

    Elsewhere:
        SCE's own.

    Differs from:
        SCE's own: its code clamps targets to 1e-4, a ``log_zero`` of -9.21; the paper's is -4.

    Example:
        >>> import torch
        >>> round(symmetric_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        3.1386
    """
    _check_symmetric(alpha, beta, log_zero)
    options = {"log": alpha, "linear": -beta * log_zero, "less": False}
    return reduced_rows(
        MIXED,
        "symmetric_cross_entropy",
        logits,
        target,
        weight,
        ignore_index,
        class_dim,
        reduction,
        **options,
    )


def _check_symmetric(alpha: float, beta: float, log_zero: float) -> None:
    check_positive("alpha", alpha)
    check_number("beta", beta)
    below = math.nextafter(0.0, -1.0)
    wanted = "a number below 0, and finite in float32"
    check_number("log_zero", log_zero, -GREATEST, below, wanted=wanted)


class SymmetricCrossEntropyLoss(LossModule):
    """Module form of :func:`symmetric_cross_entropy_loss`; same options, same defaults."""

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = -4.0,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        _check_symmetric(alpha, beta, log_zero)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            alpha=alpha,
            beta=beta,
            log_zero=log_zero,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return symmetric_cross_entropy_loss(logits, target, weight=weight, **self.options())
