"""What reinforcement learning and evaluation ask of each token, without the logits.

    z         = scale * (hidden @ weight.T + bias)
    log_prob  = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]

Axes: hidden ``(..., D)``; weight ``(V, D)``; bias ``(V,)``; target ``(...)``.
From: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025,
arXiv:2411.09009, eq. 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from aptt.core.checks import check_indices, check_positive, taken_classes
from aptt.core.formula import Formula, Kept
from aptt.core.linear import HeadFormula
from aptt.core.softmax import exp_of_gaps, leading, of_class, put_class_
from aptt.core.vocabulary import Form, cap, uncap
from aptt.loss.linear.tokens import evaluate, put_back, select, tokens_of

__all__ = ["TokenStats", "linear_token_stats"]


class TokenStats(NamedTuple):
    """What reinforcement learning and evaluation ask of each token, shaped like the target."""

    log_prob: Tensor
    """The log-probability of the target."""
    lse: Tensor
    """The logarithm of the sum of the exponentials of the logits."""
    entropy: Tensor
    """The entropy of the prediction, in nats."""


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor | Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    drop_ignored: bool = True,
) -> TokenStats:
    """Log-probability, log-sum-exp and entropy of each token, without the logits.

        log_prob = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]

    Args:
        hidden: ``(..., D)``, any floating dtype.
        weight: ``(V, D)``, or a callable, as in :func:`linear_cross_entropy`.
        target: ``(...)`` class indices of any integer dtype.
        bias: ``(V,)``; -inf masks a class.
        ignore_index: the class index whose tokens get 0 for each, and no gradient.
        softcap: bounds the logits, scaled before, to ``(-softcap, softcap)``.
        scale: multiplies the logits; a temperature divides.
        chunk: tokens in a chunk; None: at least 64, and on a CPU so many that their logits take
            nearly a quarter of the memory of ``weight``, elsewhere D, at most 4096.
        drop_ignored: leave ignored tokens out of the products.

    Returns:
        Three tensors of the target's shape, each differentiable; float32 for half types.

    Raises:
        ValueError: shapes that do not fit, a class out of range (on CPU).
        TypeError: targets that are no indices, a weight that is neither a tensor nor callable.

    The gradient goes where that of :func:`linear_cross_entropy` goes.

    Example:
        >>> import torch
        >>> stats = linear_token_stats(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3]))
        >>> [round(t.item(), 4) for t in stats]
        [-1.3863, 1.3863, 1.3863]
    """
    if softcap is not None:
        check_positive("softcap", softcap)
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
    value = put_back(value, chosen, (*tokens.shape, 3))
    return TokenStats(*value.unbind(-1))


def _stats(x: Tensor, y: Tensor, *, softcap: float | None) -> Kept:
    """Of each row: the largest logit, what is beside it, the mean gap, and the target's."""
    lead = leading(cap(x, Form(softcap=softcap)))
    mean = (lead.e * _open(lead.gap)).sum(1, keepdim=True) * lead.share
    return lead.top, lead.rest, mean, of_class(lead.gap, y)


def _result(x: Tensor, kept: Kept, y: Tensor, *, softcap: float | None) -> Tensor:
    top, rest, mean, mine = kept
    level = rest.log1p()
    return torch.cat((mine - level, top + level, level - mean), 1)


def _step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, *, softcap: float | None
) -> tuple[None, Tensor]:
    # d log_prob = onehot - p, d lse = p, d entropy = -p (log p + entropy) = -p (gap - mean)
    form, (top, rest, mean, mine) = Form(softcap=softcap), kept
    of_log_prob, of_lse, of_entropy = up.split(1, 1)
    gap, share = cap(x, form) - top, (1 + rest).reciprocal()
    e, by = exp_of_gaps(mine), torch.addcmul(of_lse, of_entropy, mean - _open(mine))
    of_y = (e * by + (rest + (1 - e)) * of_log_prob).mul_(share)
    by = torch.addcmul(of_lse - of_log_prob + of_entropy * mean, _open(gap), -of_entropy)
    dz = put_class_(by.mul_(exp_of_gaps(gap)).mul_(share), y, of_y)
    return None, uncap(dz, x, form)


def _open(gap: Tensor) -> Tensor:
    """Gaps, and 0 for a class masked by -inf."""
    return threshold(gap, torch.finfo(gap.dtype).min, 0.0)


_STATS = HeadFormula("token statistics", Formula(_result, _step, _stats), columns=3)
