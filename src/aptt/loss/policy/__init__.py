"""Reinforcement learning of a policy from sampled answers.

    policy_loss         the clipped objective: PPO, GRPO, Dr.GRPO, DAPO, GSPO, CISPO
    kl_penalty_loss          the divergence from a reference, estimated from the sampled tokens
    group_advantages    rewards, compared within the answers to one prompt

Axes: tokens ``(..., T)`` with a sequence a row, or packed ``(N,)`` with ids.
"""

from __future__ import annotations

from aptt.loss.policy.advantages import group_advantages
from aptt.loss.policy.objective import PolicyLoss, policy_loss, policy_terms
from aptt.loss.policy.penalty import KLPenaltyLoss, kl_penalty_loss

__all__ = [
    "KLPenaltyLoss",
    "PolicyLoss",
    "group_advantages",
    "kl_penalty_loss",
    "policy_loss",
    "policy_terms",
]
