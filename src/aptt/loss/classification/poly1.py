"""Poly-1: cross-entropy with another weight of the first term of its series.

    loss = -log p + epsilon (1 - p),    p = softmax(z)[y]

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C.
From: Leng et al. 2022, "PolyLoss", ICLR 2022, arXiv:2204.12511.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_index, check_number
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.classification.chance import MIXED, reduced_rows

__all__ = ["Poly1Loss", "poly1_loss"]


def poly1_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    epsilon: float = 1.0,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Poly-1: cross-entropy with more, or less, of its first term.

        loss = -log p + epsilon (1 - p)

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        epsilon: how much of ``1 - p`` is added, the leading term of the logarithm's series; at
            least -1.
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
        Cross-entropy does, and there is the budget to tune one number on top: up where classes are
        unbalanced and confidence should be higher, down to -1 where it should be lower.

    Elsewhere:
        PolyLoss's own, in TensorFlow.

    Differs from:
        PolyLoss's own: the same; ``1 - p`` does not cancel for p near 1.

    Example:
        >>> import torch
        >>> round(poly1_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        2.1363
    """
    check_number("epsilon", epsilon, -1.0)
    options = {"log": 1.0, "linear": epsilon, "less": epsilon < 0}
    return reduced_rows(
        MIXED, "poly1", logits, target, weight, ignore_index, class_dim, reduction, **options
    )


class Poly1Loss(LossModule):
    """Module form of :func:`poly1_loss`; same options, same defaults."""

    def __init__(
        self,
        epsilon: float = 1.0,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_number("epsilon", epsilon, -1.0)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            epsilon=epsilon,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return poly1_loss(logits, target, weight=weight, **self.options())
