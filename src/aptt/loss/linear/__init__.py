"""The head of a language model with its loss, without the logits.

    linear_cross_entropy    cross-entropy from hidden states and the weight of the head
    linear_token_stats      log-probability, log-sum-exp and entropy of each token

Axes: hidden ``(..., D)``; weight ``(V, D)``; bias ``(V,)``; target ``(...)``.
"""

from __future__ import annotations

from aptt.loss.linear.cross_entropy import LinearCrossEntropyLoss, linear_cross_entropy
from aptt.loss.linear.statistics import TokenStats, linear_token_stats
from aptt.loss.linear.terms import linear_cross_entropy_terms

__all__ = [
    "LinearCrossEntropyLoss",
    "TokenStats",
    "linear_cross_entropy",
    "linear_cross_entropy_terms",
    "linear_token_stats",
]
