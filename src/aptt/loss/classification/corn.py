"""CORN: labels with an order, as questions that are asked only of those who passed the one before.

    loss = sum over levels k <= y of w[k] softplus(y > k ? -z[k] : z[k])

sigmoid(z[k]) is the probability to be above level k of whoever is above those before it, so that
their product falls with k whatever the logits are.

Axes: logits ``(N, K - 1, ...)`` or ``(..., K - 1)``; target the same without that axis.
From: Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent ordinal regression based
on conditional probabilities", arXiv:2111.08851.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import Numbers
from aptt.core.module import LossModule, per_class
from aptt.core.reduction import Reduction
from aptt.loss.classification.levels import check_levels, reduced_levels

__all__ = ["CORNLoss", "corn_loss"]


def corn_loss(
    logits: Tensor,
    target: Numbers,
    *,
    weight: Numbers | None = None,
    level_weight: Numbers | None = None,
    ignore_index: int | None = -100,
    class_dim: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """CORN: ranks by the cross-entropy of the levels that each of them reaches, from logits.

        loss = -sum over k <= y of w[k] ([y > k] log sigmoid(z[k]) + [y = k] log sigmoid(-z[k]))

    Args:
        logits: ``(N, K - 1, ...)`` or ``(..., K - 1)`` for K ranks, any floating dtype: whether a
            rank that is above level k - 1 is above level k.
        target: ranks from 0 to K - 1, of any integer dtype, shaped like the logits without the axis
            of the levels.
        weight: shaped like the target; multiplies and is counted, and 0 removes.
        level_weight: ``(K - 1,)``, the importance of each level; only multiplies.
        ignore_index: the rank that removes its position; None: nothing is ignored.
        class_dim: the axis of the levels, where the shapes leave it open.
        reduction: ``"mean"`` over the questions that were asked, by weight: y + 1 of rank y, of the
            last K - 1; ``"sum"``, ``"none"``, or a callable ``(total, count, *, term)``.

    Returns:
        The loss, at least 0: a scalar, or with ``"none"`` the sum over levels in the shape of the
        target. float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a rank out of range (on CPU), an unknown option.
        TypeError: targets that are no ranks.

    The gradient goes to ``logits``, and to weights that ask for it. A level that no rank of the
    batch reaches gets none.

    Use when:
        Classes have an order, and the head is an ordinary one. :func:`ordinal_decode` with
        ``kind="corn"`` reads the rank back.

    Elsewhere:
        coral-pytorch ``corn_loss``, ``CornLoss``.

    Differs from:
        coral-pytorch: the same numbers, but for copies of its first version, which divided by the
            number of ranks. A batch of nothing gives 0, where that divides 0 by 0.

    Example:
        >>> import torch
        >>> round(corn_loss(torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([2])).item(), 4)
        0.3157
    """
    return reduced_levels(
        "corn",
        logits,
        target,
        weight,
        level_weight,
        ignore_index,
        class_dim,
        reduction,
        nested=True,
    )


class CORNLoss(LossModule):
    """Module form of :func:`corn_loss`; same options, same defaults."""

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
        return corn_loss(logits, target, weight=weight, **self.options())
