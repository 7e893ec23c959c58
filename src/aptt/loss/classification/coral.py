"""CORAL: labels with an order, as K - 1 questions whether the rank is above a level.

    loss = sum_k w[k] softplus(y > k ? -z[k] : z[k])

Axes: logits ``(N, K - 1, ...)`` or ``(..., K - 1)``; target the same without that axis.
From: Cao, Mirjalili and Raschka 2020, "Rank consistent ordinal regression for neural networks with
application to age estimation", arXiv:1901.07884, eq. 4.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.classification.levels import check_levels, reduced_levels

__all__ = ["CORALLoss", "coral_loss"]


def coral_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    level_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """CORAL: ranks by the cross-entropy of every level, from logits.

        loss = -sum_k w[k] ([y > k] log sigmoid(z[k]) + [y <= k] log sigmoid(-z[k]))

    Args:
        logits: ``(N, K - 1, ...)`` or ``(..., K - 1)`` for K ranks, any floating dtype: whether the
            rank is above level k. CORAL's head has one weight for all levels, and a bias each.
        target: ranks from 0 to K - 1, of any integer dtype, shaped like the logits without the axis
            of the levels.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        level_weight: ``(K - 1,)``, the importance of each level; only multiplies.
        ignore_index: the rank that removes its position; None: nothing is ignored.
        class_dim: the axis of the levels, where the shapes leave it open.
        reduction: ``"mean"`` over the sum of the weights of the ranks, ``"sum"``, ``"none"``, or a
            callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the shape of the target. float32 for
        half types.

    Raises:
        ValueError: shapes that do not fit, a rank out of range (on CPU), an unknown option.
        TypeError: targets that are no ranks.

    The gradient goes to ``logits``, and to weights that ask for it. Ranks that a batch lacks change
    nothing: each level is asked about in every row.

    Use when:
        Classes have an order, and the price of a mistake grows with the distance: ages, grades,
        stages. :func:`ordinal_decode` reads the rank back. Where levels share no weight,
        :func:`corn_loss` stays consistent.

    Elsewhere:
        coral-pytorch ``coral_loss``, ``CoralLoss``.

    Differs from:
        coral-pytorch: takes ranks, where that takes the 0 and 1 of ``levels_from_labelbatch``; axes
            beside the levels, weights, ignored ranks. Its ``logsigmoid(z) - z`` cancels: at a level
            that is surely not reached, z = -17, the slope is 5.96e-8 for 4.14e-8 in float32.

    Example:
        >>> import torch
        >>> logits = [[2.1, 1.8, -2.1, -1.8], [1.9, -1.0, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]]
        >>> round(coral_loss(torch.tensor(logits), torch.tensor([2, 1, 4])).item(), 4)
        0.692
    """
    return reduced_levels(
        "coral",
        logits,
        target,
        weight,
        level_weight,
        ignore_index,
        class_dim,
        reduction,
        nested=False,
    )


class CORALLoss(LossModule):
    """Module form of :func:`coral_loss`; same options, same defaults."""

    def __init__(
        self,
        level_weight: Numbers | None = None,
        ignore_index: int | None = -100,
        class_dim: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        check_levels(ignore_index, class_dim, reduction)
        super().__init__(
            level_weight=per_class(level_weight, "level_weight"),
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
        )

    def forward(self, logits: Tensor, target: Numbers, *, weight: Numbers | None = None) -> Tensor:
        """The loss of ``logits`` against ``target``."""
        return coral_loss(logits, target, weight=weight, **self.options())
