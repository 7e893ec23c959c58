"""Generalised cross-entropy, for labels of which some are wrong.

    loss = (1 - p**q) / q,    p = softmax(z)[y]

Axes: logits ``(N, C, ...)`` or ``(..., C)``; target the same without C.
From: Zhang and Sabuncu 2018, arXiv:1805.07836.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers, check_index, check_number
from aptt.core.module import LossModule
from aptt.core.reduction import Reduction, check_reduction
from aptt.loss.classification.chance import POWER, reduced_rows

__all__ = ["GeneralizedCrossEntropyLoss", "generalized_cross_entropy_loss"]


def generalized_cross_entropy_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    q: float = 0.7,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Generalised cross-entropy: between the logarithm and the error itself.

        loss = (1 - p**q) / q

    Args:
        logits: ``(N, C, ...)`` or ``(..., C)``, any floating dtype; -inf masks a class.
        target: class indices, shaped like the logits without the class axis.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        q: near 0 cross-entropy, at 1 the mean absolute error ``1 - p``, which forgives wrong
            labels. In (0, 1].
        ignore_index: the class index that removes its position; None: nothing is ignored.
        class_dim: the class axis, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights, ``"sum"``, ``"none"``, or a callable
            ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types. At most ``1 / q``.

    Raises:
        ValueError: shapes that do not fit, a single class, a class out of range (on CPU), an
            unknown option.
        TypeError: targets that are not class indices.

    The gradient goes to ``logits``, and to weights that ask for it. By definition it
    fades where p is near 0, as p**q: a label that is wrong, perhaps.

    Use when:
        Some labels are wrong. From a random start over many classes the slope is small at first:
        start with cross-entropy, or with a small q.

    Elsewhere:
        GCE's own, Keras ``CategoricalGeneralizedCrossEntropy``.

    Differs from:
        Keras: its text has the robust end at q = 0; it is at q = 1.

    Example:
        >>> import torch
        >>> round(generalized_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        0.8872
    """
    check_number("q", q, 1e-3, 1.0)
    options = {"q": q}
    return reduced_rows(
        POWER,
        "generalized_cross_entropy",
        logits,
        target,
        weight,
        ignore_index,
        class_dim,
        reduction,
        **options,
    )


class GeneralizedCrossEntropyLoss(LossModule):
    """Module form of :func:`generalized_cross_entropy_loss`; same options, same defaults."""

    def __init__(
        self,
        q: float = 0.7,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_number("q", q, 1e-3, 1.0)
        check_reduction(reduction)
        check_index(ignore_index=ignore_index, class_dim=class_dim)
        super().__init__(
            q=q,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return generalized_cross_entropy_loss(logits, target, weight=weight, **self.options())
