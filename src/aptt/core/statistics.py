"""What can be asked of each row of logits beside a loss, as a formula of four values a row.

    z         = cap(scale * x)
    log_prob  = z[y] - lse,    lse = logsumexp(z),    entropy = lse - sum_c p[c] * z[c]
    margin    = z[y] - max of z[c] over the other classes

A class masked by -inf has no share in any of them; where no other class is open, the margin is as
large as the dtype allows. Of several other classes that are largest, one has the slope.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from aptt.core.formula import Formula, Kept
from aptt.core.softmax import exp_of_gaps, leading, of_class, put_class_, with_class
from aptt.core.vocabulary import Form, cap, uncap

__all__ = ["STATISTICS", "TokenStats"]


class TokenStats(NamedTuple):
    """What reinforcement learning and evaluation ask of each token, shaped like the target."""

    log_prob: Tensor
    """The log-probability of the target."""
    lse: Tensor
    """The logarithm of the sum of the exponentials of the logits."""
    entropy: Tensor
    """The entropy of the prediction, in nats."""
    margin: Tensor
    """How far the target's logit is above the best other one; below 0, another class leads."""


def _stats(x: Tensor, y: Tensor, *, softcap: float | None, scale: float = 1.0) -> Kept:
    """Of each row: the largest logit, what is beside it, the mean gap, the target's, the rival."""
    z = cap(_scaled(x, scale), Form(softcap=softcap))
    lead = leading(z)
    mean = (lead.e * _open(lead.gap)).sum(1, keepdim=True) * lead.share
    best, rival = with_class(z.detach(), y, -torch.inf).max(1, keepdim=True)
    other = torch.where(best > -torch.inf, z.gather(1, rival), -torch.inf)
    margin = of_class(z, y) - other.clamp(min=torch.finfo(z.dtype).min)
    return lead.top, lead.rest, mean, of_class(lead.gap, y), margin, other > -torch.inf, rival


def _result(
    x: Tensor, kept: Kept, y: Tensor, *, softcap: float | None, scale: float = 1.0
) -> Tensor:
    top, rest, mean, mine, margin, *_ = kept
    level = rest.log1p()
    return torch.cat((mine - level, top + level, level - mean, margin), 1)


def _step(
    x: Tensor, up: Tensor, kept: Kept, y: Tensor, *, softcap: float | None, scale: float = 1.0
) -> tuple[None, Tensor]:
    # d log_prob = onehot - p, d lse = p, d entropy = -p (log p + entropy) = -p (gap - mean),
    # d margin = onehot of y - onehot of the best other
    form, (top, rest, mean, mine, _, rivalled, rival) = Form(softcap=softcap), kept
    of_log_prob, of_lse, of_entropy, of_margin = up.split(1, 1)
    x = _scaled(x, scale)
    gap, share = cap(x, form) - top, (1 + rest).reciprocal()
    e, by = exp_of_gaps(mine), torch.addcmul(of_lse, of_entropy, mean - _open(mine))
    of_y = (e * by + (rest + (1 - e)) * of_log_prob).mul_(share).add_(of_margin)
    by = torch.addcmul(of_lse - of_log_prob + of_entropy * mean, _open(gap), -of_entropy)
    dz = put_class_(by.mul_(exp_of_gaps(gap)).mul_(share), y, of_y)
    dz = dz.scatter_add_(1, rival, torch.where(rivalled, -of_margin, 0.0))
    dx = uncap(dz, x, form)
    return None, dx if scale == 1 else dx.mul_(scale)


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1 else x * scale


def _open(gap: Tensor) -> Tensor:
    """Gaps, and 0 for a class masked by -inf."""
    return threshold(gap, torch.finfo(gap.dtype).min, 0.0)


STATISTICS = Formula(_result, _step, _stats)
"""Of rows ``(N, C)``; the values are ``(N, 4)``."""
