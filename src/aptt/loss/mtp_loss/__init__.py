"""Multi-token prediction: besides the next token, each head further down predicts a later one.

    multi_token_loss           from the logits of each head
    linear_multi_token_loss    from hidden states and the weight of the head, without the logits

Axes: each head's logits ``(..., T, V)`` or ``(..., T - k, V)``; targets ``(..., T)``.
"""

from __future__ import annotations

from aptt.loss.mtp_loss.linear import (
    LinearMTPLoss,
    linear_multi_token_loss,
    linear_multi_token_terms,
)
from aptt.loss.mtp_loss.multi_token import MTPLoss, multi_token_loss, multi_token_terms

__all__ = [
    "LinearMTPLoss",
    "MTPLoss",
    "linear_multi_token_loss",
    "linear_multi_token_terms",
    "multi_token_loss",
    "multi_token_terms",
]
