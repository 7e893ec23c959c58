"""What reinforcement learning, preferences and evaluation ask of each token, from its logits.

    z         = cap(scale * logits)
    log_prob  = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]
    margin    = z[y] - max of z[c] over the other classes

Axes: logits ``(..., C)`` or ``(N, C, ...)``; target, and each statistic, without the class axis.
From: the quantities as in Wijmans et al. 2025, arXiv:2411.09009, eq. 1 to 3.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.axes import check_several, indexed_axis, split_axis, without_axis
from aptt.core.checks import check_floating, check_index, check_positive, taken_classes
from aptt.core.engine import evaluate
from aptt.core.statistics import STATISTICS, TokenStats

__all__ = ["token_stats"]


def token_stats(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    scale: float = 1.0,
    class_dim: int | None = None,
) -> TokenStats:
    """Log-probability, log-sum-exp, entropy and margin of each token.

        log_prob = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]
        margin   = z[y] - max of z[c] over the other classes

    Args:
        logits: ``(..., C)`` or ``(N, C, ...)``, any floating dtype.
        target: class indices of any integer dtype, shaped like the logits without the class axis.
            Nothing is shifted: a target belongs to the logits at its own place.
        ignore_index: the class index whose tokens get 0 for each, and no gradient.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        scale: multiplies the logits; a sampler's temperature divides, so pass ``1 / temperature``.
        class_dim: the class axis, where the shapes leave two.

    Returns:
        Four tensors of the target's shape, each differentiable; float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU).
        TypeError: targets that are no indices.

    The gradient goes to ``logits``.

    Use when:
        A loss is made of the log-probabilities of tokens: DPO, PPO, GRPO. From hidden states,
        :func:`linear_token_stats` gives the same without the logits.

    Differs from:
        ``log_softmax(logits, -1).gather(...)``: nothing of the logits' size is held until
            backward but the logits.
        TRL ``selective_log_softmax``: float32 whatever the dtype of the logits.

    Example:
        >>> import torch
        >>> stats = token_stats(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        >>> [round(t.item(), 4) for t in stats]
        [-0.2395, 2.2395, 0.6656, 2.0]
    """
    check_index(ignore_index=ignore_index, class_dim=class_dim)
    check_positive("scale", scale)
    if softcap is not None:
        check_positive("softcap", softcap)
    check_floating(logits=logits)
    axis = indexed_axis(logits, target, class_dim, names=("logits", "target"))
    check_several("logits", logits, axis)
    x, shape = split_axis(logits, axis, rows=True), without_axis(logits, axis)
    y, keep = taken_classes(target.reshape(-1), x.shape[1], ignore_index)
    value = evaluate(
        STATISTICS,
        x,
        y,
        gather="values",
        weight=None if keep is None else keep.unsqueeze(1),
        softcap=softcap,
        scale=scale,
    )
    return TokenStats(*value.reshape(*shape, 4).unbind(-1))
