"""What reinforcement learning and evaluation ask of each token, without the logits.

    z         = scale * (hidden @ weight.T + bias)
    log_prob  = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]
    margin    = z[y] - max of z[c] over the other classes

Axes: hidden ``(..., D)``; weight ``(V, D)``; bias ``(V,)``; target ``(...)``.
From: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025,
arXiv:2411.09009, eq. 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aptt.core.checks import Numbers, as_tensor, check_indices, check_positive, taken_classes
from aptt.core.linear import HeadFormula
from aptt.core.linear.tokens import evaluate, put_back, select, tokens_of
from aptt.core.statistics import STATISTICS, TokenStats

__all__ = ["TokenStats", "linear_token_stats"]


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Numbers,
    *,
    bias: Tensor | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
) -> TokenStats:
    """Log-probability, log-sum-exp, entropy and margin of each token, without the logits.

        log_prob = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]
        margin   = z[y] - max of z[c] over the other classes

    Args:
        hidden: ``(..., D)``, any floating dtype.
        weight: ``(V, D)``, or a callable, as in :func:`linear_cross_entropy`.
        target: ``(...)`` class indices of any integer dtype.
        bias: ``(V,)``; -inf masks a class.
        ignore_index: the class index whose tokens get 0 for each, and no gradient; None: none.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk; None: at least 64, and on a CPU so many that their logits take
            nearly a quarter of the memory of ``weight``, elsewhere D, at most 4096.
        drop_ignored: leave ignored tokens out of the products.

    Returns:
        Four tensors of the target's shape, each differentiable; float32 for half types. Each is
        accumulated in float32 whatever the head's dtype: a log-probability that bfloat16 rounds is
        off by up to 0.03 a token, and a sum of hundreds of them by whole units.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU).
        TypeError: targets that are no indices, a weight that is neither a tensor nor callable.

    The gradient goes where that of :func:`linear_cross_entropy` goes.

    Example:
        >>> import torch
        >>> stats = linear_token_stats(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3]))
        >>> [round(t.item(), 4) for t in stats]
        [-1.3863, 1.3863, 1.3863, 0.0]
    """
    if softcap is not None:
        check_positive("softcap", softcap)
    target = as_tensor("target", target, hidden if isinstance(hidden, Tensor) else None)
    tokens = tokens_of(hidden, weight, bias, target, scale, chunk)
    check_indices(target=target)
    y = target.reshape(-1)
    y, keep = taken_classes(y, tokens.classes, ignore_index)
    chosen, states, y, rows = select(tokens.states, y, keep, drop=drop_ignored)
    value = evaluate(
        _STATS,
        tokens._replace(states=states),
        y,
        gather="values",
        weight=None if rows is None else rows.unsqueeze(1),
        softcap=softcap,
    )
    value = put_back(value, chosen, (*tokens.shape, 4))
    return TokenStats(*value.unbind(-1))


_STATS = HeadFormula("token statistics", STATISTICS, columns=4)
